"""The root of the errors that a user can act on, and what may be wrong with a state directory."""

MAX_MESSAGE_CHARS = 1_000


class SameasError(Exception):
    """Root of the errors that are answered with one line instead of a traceback.

    A message may quote what came in. Whatever its size, the message keeps its beginning, which says what and
    where, and its end, which says what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message, MAX_MESSAGE_CHARS))


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end with an ellipsis between them, `most` characters in all."""
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 1]}…{text[-end:]}"


class StateError(SameasError):
    """The state directory cannot be used as it is."""


class StoreError(Exception):
    """The state directory cannot be used as it is; the message says what to do."""
