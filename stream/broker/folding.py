"""A compacted topic as a mapping. Apart from `reading.py`, since this needs no Kafka client."""

from typing import TypeVar

_Value = TypeVar("_Value")


def fold(newest: dict[bytes, _Value], key: bytes | None, value: _Value | None) -> None:
    """Takes in one record of a compacted topic. What stays is the newest value of each key, the newest last.

    So the outcome is the same whatever the broker has compacted already.

    Args:
        value: None is a tombstone.
    """
    key = key or b""
    newest.pop(key, None)
    if value is not None:
        newest[key] = value
