"""The outbox: outputs that are stored, and not yet known to be published."""

from index import tables

OUTBOX_CHUNK = 500  # pairs of one batch when a generation takes the place of another

PUBLISHED_ENDS = tables.META + b"published"  # where the alignment topic ended after the last publication
