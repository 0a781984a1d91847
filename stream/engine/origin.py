"""Which messages a state was made of: the ids of their topics, and how far each partition was applied.

The name of a topic and an offset do not tell: a topic may be deleted and created again.
"""

from collections.abc import Mapping

import msgspec

from index import tables
from index.entity import node_key
from index.store import Store

TOPIC_IDS = tables.META + b"topics"


class Origin:
    """On a `Store`. Offsets are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def topic_ids(self) -> dict[str, str]:
        """By name the ids of the topics that the state was made of and published to, as far as known."""
        raw = self._store.get(TOPIC_IDS)
        return {} if raw is None else msgspec.msgpack.decode(raw, type=dict[str, str])

    def adopt(self, ids: Mapping[str, str]) -> None:
        """From now on these are the topics with these names. Commits everything that is pending."""
        self._store.put(TOPIC_IDS, msgspec.msgpack.encode({**self.topic_ids(), **ids}))
        self._store.commit()

    def apply(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """By topic and partition: all messages before these offsets are applied."""
        for (topic, partition), offset in offsets.items():
            self._store.put(_key(topic, partition), node_key(offset))

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The offset after the last applied one, None if nothing of this partition was applied."""
        value = self._store.get(_key(topic, partition))
        return None if value is None else int.from_bytes(value, "big")

    def offsets(self) -> dict[tuple[str, int], int]:
        """By topic and partition the offset after the last applied one."""
        found = {}
        for key, value in self._store.scan(tables.OFFSETS):
            topic, _, partition = key[1:].decode().rpartition("\0")
            found[topic, int(partition)] = int.from_bytes(value, "big")
        return found


def _key(topic: str, partition: int) -> bytes:
    return tables.OFFSETS + f"{topic}\0{partition}".encode()
