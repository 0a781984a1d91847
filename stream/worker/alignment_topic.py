"""The alignment topic belongs to one worker: how it notices another one's records, and makes them good.

A worker whose state is older than what was published (a standby that takes over, a restored or rebuilt state
directory, a store whose log a crash cut short) reads the messages again and publishes what they come to.
But pairs that only its predecessor had aligned, and that came apart since, it never knew, so it would never
withdraw them. Once it has caught up it therefore compares its records with the topic, unless that ends where
its own last record stands.

The comparison also reads what transactions wrote that are open or were aborted: a tombstone after that is
right whatever becomes of it, and what follows an open one may be this worker's own.

Another process may use another partitioner. A stray record, which is in a partition where its key does not
belong, gets a tombstone there. Partitions that were added leave many of those; a state that has not published
to such a topic refuses it. One that has knows how many partitions there were, and no stray of others ends it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import xxhash
from aiokafka.partitioner import murmur2
from kafka import TopicPartition

from index.errors import StateError
from stream.broker.folding import fold
from stream.broker.reading import POLL_MS, bounds, open_consumer, read_bounds
from stream.broker.topics import AFTER_GROWTH
from stream.config import Settings
from stream.engine.interface import Output
from stream.events import MAX_CURIE_CHARS, UNDECODABLE, AlignmentRecord
from stream.worker.publisher import Placed

FEW = 3  # strays, which never count as partitions added
MAX_KEY_BYTES = 2 * 4 * MAX_CURIE_CHARS + 1  # of a pair, in UTF-8 and with its bars escaped
MAX_FORGED_BYTES = 16 * 2**20  # of longer keys, which are of no pair, are kept; the others stay in the topic
MOVED_SHARE = 1 / 3  # of the keys; where partitions are added, half of them or more move

_decode = msgspec.json.Decoder(AlignmentRecord).decode


class Claim:
    """Where the alignment topic ends while no other process writes to it.

    It is disputed as soon as the topic ends elsewhere, until what is there was compared with the state.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._ends: dict[int, int] | None = None  # by partition; None before the first assignment
        self.is_disputed = False
        self.has_published = False  # this state has, to these partitions

    @property
    def ends(self) -> dict[int, int] | None:
        """Where the partitions end after what this process has published, None if that is not known yet."""
        return None if self._ends is None else dict(self._ends)

    @property
    def undisputed_ends(self) -> dict[int, int] | None:
        """What the state may remember: a dispute has to outlive a crash, so the ends before it stay there."""
        return None if self.is_disputed else self.ends

    def begin(self, before: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """From now on the topic belongs to this worker.

        Args:
            before: where the partitions ended after its own last record.
            ends: where they end now.
        """
        self._ends, self.has_published = dict(ends), bool(before)
        self.is_disputed |= any(before.get(number, 0) != end for number, end in ends.items())

    def look(self, before: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """It is disputed where the ends cannot be explained by what this process alone has published.

        Args:
            before: `ends` as they stood before the partitions were asked.
            ends: where the partitions ended; all records of this process among them are known by now.
        """
        ours = self._ends or {}
        self.is_disputed |= any(
            not before.get(number, 0) <= end <= ours.get(number, 0) for number, end in ends.items()
        )

    def settle(self, ends: Mapping[int, int]) -> None:
        """The topic was read up to these ends; what differs there from the state is published next."""
        self._ends = dict(ends)

    def place(self, batches: Sequence[Placed]) -> None:
        """These have been published: where no other process writes, alignment records follow one another."""
        for batch in batches:
            if batch.topic == self.topic and self._ends is not None:
                self.is_disputed |= self._ends.get(batch.partition, 0) != batch.first
                self._ends[batch.partition] = batch.first + batch.records


def read_ends(settings: Settings, partitions: int) -> Mapping[int, int]:
    """Where each partition of the alignment topic ends. Raises BrokerError or KafkaError."""
    places = [(settings.topics.alignments, number) for number in range(partitions)]
    found = read_bounds(settings, places, committed=False)  # as it is compared
    return {tp.partition: end for tp, (_, end) in found.items()}


class Stray(NamedTuple):
    """A record in a partition where its key does not belong."""

    partition: int
    offset: int
    key: bytes


class Published:
    """The alignment topic folded by key: a digest of what each record says.

    Args:
        partitions: of the topic.
        may_have_grown: whether partitions may have been added to it.
    """

    def __init__(self, settings: Settings, partitions: int, *, may_have_grown: bool = True) -> None:
        self._settings = settings
        self._may_have_grown = may_have_grown
        self._room = MAX_FORGED_BYTES
        self._topic = settings.topics.alignments
        self._next = {TopicPartition(self._topic, number): 0 for number in range(partitions)}
        self._found: dict[bytes, bytes] = {}
        self._strays: dict[int, dict[bytes, int]] = {}  # by partition and key the offset

    @property
    def ends(self) -> dict[int, int]:
        """Up to where each partition was read."""
        return {tp.partition: end for tp, end in self._next.items()}

    def read(self) -> None:
        """Goes on to the present end. Raises BrokerError, and StateError where keys have moved."""
        with open_consumer(self._settings, committed=False) as consumer:
            ends = {}
            for tp, (first, end) in bounds(consumer, list(self._next)).items():
                ends[tp] = end
                consumer.seek(tp, max(first, self._next[tp]))
            while any(consumer.position(tp) < end for tp, end in ends.items()):
                for records in consumer.poll(timeout_ms=POLL_MS).values():
                    for record in records:
                        self._fold(record)
            self._next = {tp: consumer.position(tp) for tp in ends}
        if self._may_have_grown:
            self._check_growth()

    def _check_growth(self) -> None:
        """Raises StateError where so many keys have moved as where partitions are added."""
        moved = {stray.key for stray in self.strays}
        if len(moved) > max(FEW, MOVED_SHARE * len(moved | self._found.keys())):
            raise StateError(
                f"topic {self._topic} has {len(moved)} pairs in a partition where their next record would "
                f"not go, such as {min(moved)!r:.200}: if partitions were added, {AFTER_GROWTH}"
            )

    @property
    def strays(self) -> list[Stray]:
        """The records in partitions where their keys do not belong."""
        return sorted(
            Stray(partition, offset, key)
            for partition, keys in self._strays.items()
            for key, offset in keys.items()
        )

    def differences(self, records: Iterable[tuple[bytes, bytes]]) -> list[Output]:
        """What has to be published so that the topic says `records` (key, value) and nothing else.

        A record whose key has a stray comes again: a reader may have taken in that one after it.
        """
        surplus, outputs = dict.fromkeys(self._found), []
        strays = {stray.key for stray in self.strays}
        for key, value in records:
            surplus.pop(key, None)
            if key in strays or self._found.get(key) != _digest(value):
                outputs.append(Output("alignments", key, value))
        return [*outputs, *(Output("alignments", key, None) for key in surplus)]

    def _fold(self, record: Any) -> None:
        if len(record.key or b"") > MAX_KEY_BYTES:
            if len(record.key) > self._room:
                return
            self._room -= len(record.key)
        if record.partition == self._partition(record.key):
            fold(self._found, record.key, None if record.value is None else _digest(record.value))
        else:
            strays = self._strays.setdefault(record.partition, {})
            fold(strays, record.key, None if record.value is None else record.offset)

    def _partition(self, key: bytes | None) -> int:
        """Where Kafka's own clients, and the worker's, write this key."""
        count = len(self._next)
        return 0 if count == 1 else (murmur2(key or b"") & 0x7FFFFFFF) % count


def _digest(value: bytes) -> bytes:
    """Of all but the date, which is that of the writing. What is no record differs from every record."""
    try:
        dateless = msgspec.structs.replace(_decode(value), mapping_date="")
    except UNDECODABLE:
        return b""
    return xxhash.xxh3_128_digest(msgspec.json.encode(dateless))
