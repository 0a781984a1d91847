"""What a row or a message means: from columns to entities, relations and links. Pure functions."""
