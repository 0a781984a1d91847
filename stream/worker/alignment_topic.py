"""Making the alignment topic what the state says, where another worker wrote it.

A worker whose state is older than what was published (a standby that takes over, a restored or rebuilt state
directory, a store whose log a crash cut short) reads the messages again and publishes what they come to.
But pairs that only its predecessor had aligned, and that came apart since, it never knew, so nobody would
withdraw them. Once it has caught up it therefore compares its records with the topic, unless that ends where
its own last record stands.

It also reads what transactions wrote that are open or were aborted: a tombstone after that is right whatever
becomes of it, and what follows an open one may be this worker's own.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import xxhash
from kafka import TopicPartition

from stream.broker.reading import POLL_MS, bounds, open_consumer
from stream.config import Settings
from stream.engine.interface import Output
from stream.events import UNDECODABLE, AlignmentRecord

_decode = msgspec.json.Decoder(AlignmentRecord).decode


class Published:
    """The alignment topic folded by key: a digest of what each record says."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._topic = settings.topics.alignments
        self._next = {TopicPartition(self._topic, number): 0 for number in range(partitions)}
        self._found: dict[bytes, bytes] = {}

    @property
    def ends(self) -> dict[int, int]:
        """Up to where each partition was read."""
        return {tp.partition: end for tp, end in self._next.items()}

    def read(self) -> None:
        """Goes on to the present end. Raises BrokerError."""
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

    def differences(self, records: Iterable[tuple[bytes, bytes]]) -> list[Output]:
        """What has to be published so that the topic says `records` (key, value) and nothing else."""
        surplus, outputs = dict.fromkeys(self._found), []
        for key, value in records:
            surplus.pop(key, None)
            if self._found.get(key) != _digest(value):
                outputs.append(Output("alignments", key, value))
        return [*outputs, *(Output("alignments", key, None) for key in surplus)]

    def _fold(self, record: Any) -> None:
        key = record.key or b""
        if record.value is None:
            self._found.pop(key, None)
        else:
            self._found[key] = _digest(record.value)


def _digest(value: bytes) -> bytes:
    """Of all but the date, which is that of the writing. What is no record differs from every record."""
    try:
        dateless = msgspec.structs.replace(_decode(value), mapping_date="")
    except UNDECODABLE:
        return b""
    return xxhash.xxh3_128_digest(msgspec.json.encode(dateless))
