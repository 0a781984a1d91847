"""Which messages a state was made of: the ids of their topics, and how far each partition was applied.

The name of a topic and an offset do not tell: a topic may be deleted and created again, and a log may be cut
back and go on otherwise. So the last messages applied of each partition are known by a digest, too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import xxhash

from index import tables
from index.entity import node_key
from index.store import Store
from stream.events import Message

TOPIC_IDS = tables.META + b"topics"
SETTLED = tables.META + b"settled"

KEPT_TRACES = 8  # of each partition; compaction may remove the messages of some

Place = tuple[str, int]  # topic, partition


class Trace(msgspec.Struct, frozen=True, array_like=True):
    """A message that was applied."""

    offset: int
    digest: int  # of its key, value and timestamp


class Applied(NamedTuple):
    """What was applied of a partition."""

    following: int  # the offset after the last message
    traces: Sequence[Trace]  # of the last messages, in order


class Origin:
    """On a `Store`. What `apply` writes is pending until the store commits."""

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

    def apply(self, offsets: Mapping[Place, int], messages: Iterable[Message]) -> None:
        """All messages before these offsets are applied; the last of them, in order, are `messages`."""
        last: defaultdict[Place, list[Message]] = defaultdict(list)
        for message in messages:
            last[message.cause.topic, message.cause.partition].append(message)
        for place, offset in offsets.items():
            self._store.put(_key(tables.OFFSETS, place), node_key(offset))
            traces = [*self.traces(*place), *map(trace, last[place][-KEPT_TRACES:])][-KEPT_TRACES:]
            self._store.put(_key(tables.TRACES, place), msgspec.msgpack.encode(traces))

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The offset after the last applied one, None if nothing of this partition was applied."""
        value = self._store.get(_key(tables.OFFSETS, (topic, partition)))
        return None if value is None else int.from_bytes(value, "big")

    def offsets(self) -> dict[Place, int]:
        """By topic and partition the offset after the last applied one."""
        return self._numbers(tables.OFFSETS)

    def traces(self, topic: str, partition: int) -> list[Trace]:
        """The last messages applied of a partition; none of a state from before they were kept."""
        raw = self._store.get(_key(tables.TRACES, (topic, partition)))
        return [] if raw is None else msgspec.msgpack.decode(raw, type=list[Trace])

    def applied(self, places: Iterable[Place]) -> dict[Place, Applied]:
        """What was applied of these partitions, 0 messages of unknown ones."""
        return {place: Applied(self.next_offset(*place) or 0, self.traces(*place)) for place in places}

    def settle(self) -> dict[Place, int]:
        """Nothing waits: what is applied by now has had its effect. Returns the offsets after it."""
        offsets = self.offsets()
        self._store.put(SETTLED, msgspec.msgpack.encode([(*place, end) for place, end in offsets.items()]))
        return offsets

    def settled(self) -> dict[Place, int]:
        """What `settle` returned last; of other partitions nothing has had its effect."""
        raw = self._store.get(SETTLED)
        entries = [] if raw is None else msgspec.msgpack.decode(raw, type=list[tuple[str, int, int]])
        return {(topic, partition): end for topic, partition, end in entries}

    def lose(self, topic: str, partition: int, following: int) -> None:
        """What is missing before this offset will never be applied. Commits everything that is pending."""
        place = (topic, partition)
        lost = self.lost().get(place, 0) + following - (self.next_offset(*place) or 0)
        self._store.put(_key(tables.LOST, place), node_key(lost))
        self._store.put(_key(tables.OFFSETS, place), node_key(following))
        self._store.commit()

    def lost(self) -> dict[Place, int]:
        """How many offsets `lose` has passed over in all."""
        return self._numbers(tables.LOST)

    def _numbers(self, table: bytes) -> dict[Place, int]:
        found = {}
        for key, value in self._store.scan(table):
            topic, _, partition = key[1:].decode().rpartition("\0")
            found[topic, int(partition)] = int.from_bytes(value, "big")
        return found


def trace(message: Message) -> Trace:
    """What a message is known by."""
    content = msgspec.msgpack.encode((message.key, message.value, message.timestamp))
    return Trace(message.cause.offset, xxhash.xxh3_64_intdigest(content))


def _key(table: bytes, place: Place) -> bytes:
    return table + f"{place[0]}\0{place[1]}".encode()
