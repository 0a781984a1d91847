"""Reading topics: the current alignments, or the log of alignment events."""

from collections.abc import Generator, Iterator
from typing import Any, Literal, TypeVar

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError, for_code

from stream.broker import admin_client
from stream.config import Settings
from stream.console import HEADER, row, withdrawn_row
from stream.errors import BrokerError, ConfigError, InvalidInput
from stream.events import AlignmentEvent, AlignmentRecord, split_curie
from stream.reading import POLL_MS, bounds, open_consumer

Start = Literal["beginning", "end"] | int  # an offset is meant for every partition

_T = TypeVar("_T", bound=AlignmentRecord)
_record = msgspec.json.Decoder(AlignmentRecord)
_event = msgspec.json.Decoder(AlignmentEvent)


class Filter(msgspec.Struct, frozen=True):
    """Which alignments are wanted; empty wants all."""

    sources: frozenset[str] = frozenset()  # either side comes from one of them
    min_confidence: float = 0.0
    entities: frozenset[str] = frozenset()  # CURIEs; either side is one of them

    def wants(self, subject_id: str, object_id: str, confidence: float) -> bool:
        pair = {subject_id, object_id}
        return (
            confidence >= self.min_confidence
            and (not self.entities or bool(pair & self.entities))
            and (not self.sources or any(_source(name) in self.sources for name in pair))
        )


def read_topic(
    settings: Settings, topic: str, *, until_end: bool = True, start: Start = "beginning"
) -> Iterator[Any]:
    """A topic's records as kafka-python gives them (key, value, partition, offset, timestamp in ms, headers).

    Args:
        until_end: stop at what was the end when reading began; else go on for ever.

    Raises:
        BrokerError: unreachable, no such topic, or no permission to read it.
    """
    for record in _read(settings, topic, start):
        if record is not None:
            yield record
        elif until_end:
            return


def _read(settings: Settings, topic: str, start: Start) -> Iterator[Any]:
    """Records for ever, and one None where the end was when reading began."""
    partitions = [TopicPartition(topic, number) for number in range(_count_partitions(settings, topic))]
    with open_consumer(settings) as consumer:
        ends = {}
        for tp, (first, end) in bounds(consumer, partitions).items():
            ends[tp] = end
            consumer.seek(tp, _position(start, first, end))
        behind = {tp for tp in partitions if consumer.position(tp) < ends[tp]}
        if not behind:
            yield None
        while True:
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                yield from records  # may pass the old end; then there is simply more
            if behind:
                behind = {tp for tp in behind if consumer.position(tp) < ends[tp]}
                if not behind:
                    yield None


def follow(
    settings: Settings, *, log: bool, until_end: bool, start: Start, wanted: Filter, as_json: bool
) -> Generator[str, None, None]:
    """Lines to print: the current alignments and then their changes, or the log of events.

    The current alignments are folded by key first, so that what is printed held when reading began.
    """
    if not as_json:
        yield HEADER
    topic = settings.topics.alignment_events if log else settings.topics.alignments
    current: dict[bytes, Any] | None = None if log else {}
    for record in _read(settings, topic, start):
        if record is None:
            for known in (current or {}).values():
                yield from _lines(known, wanted, log, as_json)
            current = None
            if until_end:
                return
        elif current is None:
            yield from _lines(record, wanted, log, as_json)
        elif record.value is None:
            current.pop(record.key, None)
        else:
            current.pop(record.key, None)  # the newest last
            current[record.key] = record


def _lines(record: Any, wanted: Filter, log: bool, as_json: bool) -> Iterator[str]:
    if record.value is None:
        pair = [name.replace("%7C", "|") for name in (record.key or b"").decode().split("|")]
        if len(pair) == 2 and wanted.wants(pair[0], pair[1], 1.0):
            gone = {"subject_id": pair[0], "object_id": pair[1], "withdrawn": True}
            yield msgspec.json.encode(gone).decode() if as_json else withdrawn_row(*pair)
        return
    alignment = decode_event(record) if log else decode_record(record)
    if wanted.wants(alignment.subject_id, alignment.object_id, alignment.confidence):
        what = alignment.event if isinstance(alignment, AlignmentEvent) else "same"
        yield record.value.decode() if as_json else row(what, alignment)


def parse_start(text: str) -> Start:
    """beginning, end or an offset.

    Raises:
        ConfigError: it is none of them.
    """
    if text in ("beginning", "end"):
        return "beginning" if text == "beginning" else "end"
    if text.isdecimal():
        return int(text)
    raise ConfigError(f"--offset {text}: beginning, end, or an offset")


def current_alignments(settings: Settings) -> dict[str, AlignmentRecord]:
    """The compacted topic folded by key: what is aligned now. Raises BrokerError as `read_topic`."""
    current: dict[str, AlignmentRecord] = {}
    for record in read_topic(settings, settings.topics.alignments):
        key = (record.key or b"").decode()
        if record.value is None:
            current.pop(key, None)
        else:
            current[key] = decode_record(record)
    return current


def decode_record(record: Any) -> AlignmentRecord:
    """The alignment record in a Kafka record. Raises InvalidInput if it is none."""
    return _decode(_record, record)


def decode_event(record: Any) -> AlignmentEvent:
    """The alignment event in a Kafka record. Raises InvalidInput if it is none."""
    return _decode(_event, record)


def _decode(decoder: "msgspec.json.Decoder[_T]", record: Any) -> _T:
    try:
        return decoder.decode(record.value or b"")
    except msgspec.DecodeError as error:
        raise InvalidInput(
            "malformed", f"{record.topic}, partition {record.partition}, offset {record.offset}: {error}"
        ) from error


def _source(name: str) -> str:
    return split_curie(name)[0]


def _position(start: Start, first: int, end: int) -> int:
    if start == "beginning":
        return first
    return end if start == "end" else min(max(int(start), first), end)


def _count_partitions(settings: Settings, topic: str) -> int:
    with admin_client(settings.kafka) as admin:
        try:
            [description] = admin.describe_topics([topic])
        except KafkaError as error:
            raise BrokerError(
                f"topic {topic} cannot be described: {type(error).__name__}: {error}"
            ) from error
    if for_code(description["error_code"]) is TopicAuthorizationFailedError:
        raise BrokerError(f"topic {topic}: this user may not read it; an ACL has to allow it")
    if description["error_code"] != 0:
        raise BrokerError(
            f"topic {topic} does not exist at {', '.join(settings.kafka.servers)}; "
            "has a worker run (`sameas run`), and is the topic's name in the settings right?"
        )
    return len(description["partitions"])
