"""What may be wrong with a model."""

from index.errors import SameasError


class ModelError(SameasError):
    """The model checkpoint cannot be used as it is."""
