"""Every error that a user can cause or must act on; their root is in `index/errors.py`.

    SameasError                 one line for people: what, where, what to do
    ├── InvalidInput            a record that cannot be used; becomes a dead letter
    │   └── UnreadableKey       a deletion's key, which does not show the id; the row may be known by it
    ├── ConfigError             sameas.toml, environment or flags
    ├── BrokerError             unreachable, a topic that is missing or shaped wrongly
    │   └── Refused             the broker is there and says no: waiting does not help
    ├── StateError              the state directory: locked, corrupt, other schema, other model
    └── ModelError              a checkpoint that is missing, incomplete or does not fit

The command line prints the message of a `SameasError` and exits with status 1; anything else is a defect
and shows its traceback.
"""

from index.errors import SameasError


class InvalidInput(SameasError):
    """A record that cannot be used. `reason` is a short stable word for metrics and headers."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class UnreadableKey(InvalidInput):
    """The key of a deletion does not show the id. The row may be known by the key itself."""


class ConfigError(SameasError):
    """A setting that is unknown, missing or out of range."""


class BrokerError(SameasError):
    """The broker cannot be reached or does not have what is needed."""


class Refused(BrokerError):
    """The broker is there and says no, or says what cannot be read. Waiting does not help."""
