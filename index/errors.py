"""The root of the errors that a user can act on, and what may be wrong with a state directory."""


class SameasError(Exception):
    """Root of the errors that are answered with one line instead of a traceback."""


class StateError(SameasError):
    """The state directory cannot be used as it is."""


class StoreError(Exception):
    """The state directory cannot be used as it is; the message says what to do."""
