"""Catalogues as files: opening, reading and feeding them, and proposing a mapping for them."""
