"""A compacted topic as a mapping. Apart from `reading.py`, since this needs no Kafka client."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

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


class Partitions(Generic[_Value]):
    """A compacted topic, each partition folded by itself, as they may be read in any order.

    Where a key stands in two partitions, by another partitioner's doing, its tombstone in one of them says
    nothing of the other.
    """

    def __init__(self) -> None:
        self._partitions: defaultdict[int, dict[bytes, _Value]] = defaultdict(dict)

    def fold(self, record: Any, value: _Value | None) -> None:
        """Takes in a record of Kafka, whose value comes to this; None is a tombstone."""
        fold(self._partitions[record.partition], record.key, value)

    def newest(self) -> dict[bytes, _Value]:
        """The newest value of each key."""
        newest: dict[bytes, _Value] = {}
        for partition in self._partitions.values():
            newest |= partition
        return newest

    def standing(self) -> Iterator[tuple[int, bytes, _Value]]:
        """Partition, key and value of what stands in each partition."""
        for number, partition in self._partitions.items():
            for key, value in partition.items():
                yield number, key, value

    def clear(self) -> None:
        self._partitions.clear()
