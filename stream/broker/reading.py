"""Plain consumers: without a group, with explicit positions, and with ends that can be trusted."""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError, UnsupportedCodecError

from stream.broker.access import check_access
from stream.broker.connection import admin_client, connect
from stream.broker.headers import read_any_batch
from stream.config import Settings
from stream.errors import BrokerError, Refused
from stream.events import Cause, Message

BOUNDS_SECONDS = 10.0
POLL_MS = 500
LOOKUP_MS = 10_000  # for the offset at a date
FETCH_WAIT_MS = 10  # while messages come
QUIET_WAIT_MS = 500  # Kafka's own default
QUIET_SHARE = 1 / 20  # of the time since the last message
_RETRY_OF = "sameas_retry_of"
_PLACE = re.compile(rb"([0-9]{1,9}):([0-9]{1,18})")

read_any_batch()

Bounds = dict[TopicPartition, tuple[int, int]]  # the first offset, and the one after the last

# An offset is meant for every partition; from a moment on means what the broker received then or later.
Start = Literal["beginning", "end"] | int | datetime


class Patience:
    """How long fetches may wait for records: the longer, the longer none came.

    Kafka answers as soon as there are records. The embedded broker looks for them only in the middle and at
    the end of that time, so a message that finds a fetch waiting is late by up to half of it. Every fetch
    costs most of a millisecond of CPU; if all were short, an idle process would keep a core busy by a tenth.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def wait_ms(self, came: bool) -> int:
        """For the next fetch.

        Args:
            came: whether the last one brought records.
        """
        now = time.monotonic()
        if came:
            self._last = now
        return int(min(max(FETCH_WAIT_MS, 1000 * QUIET_SHARE * (now - self._last)), QUIET_WAIT_MS))


class PatientConsumer(KafkaConsumer):  # type: ignore[misc]
    """kafka-python's, whose fetches wait as `Patience` says.

    A poll takes all that a fetch brought: what is left of it while a partition is paused never comes back
    (kafka-python 3.0.12 looks for it only where no partition was read before).
    """

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, fetch_max_wait_ms=FETCH_WAIT_MS, **options)
        self._patience = Patience()

    def poll(self, timeout_ms: int) -> Any:
        records = super().poll(timeout_ms=timeout_ms, max_records=sys.maxsize)
        self._fetcher.config["fetch_max_wait_ms"] = self._patience.wait_ms(bool(records))
        return records


def as_message(record: Any) -> Message:
    """A record of kafka-python's or aiokafka's consumer."""
    cause = Cause(record.topic, record.partition, record.offset)
    first = _first_of(cause, record.headers) if record.headers else None
    return Message(cause, record.key, record.value, record.timestamp / 1000, first)


def retry_header(first: Cause) -> tuple[str, bytes]:
    """What tells a message that is sent again from new ones: where it stood in this topic first."""
    return _RETRY_OF, f"{first.partition}:{first.offset}".encode()


def _first_of(cause: Cause, headers: Iterable[tuple[str, bytes | None]]) -> Cause | None:
    for name, value in headers:
        if name == _RETRY_OF and (place := _PLACE.fullmatch(value or b"")):
            first = Cause(cause.topic, int(place[1]), int(place[2]))
            if first.partition != cause.partition or first.offset < cause.offset:
                return first
    return None


@contextmanager
def open_consumer(settings: Settings, *, committed: bool = True) -> Iterator[Any]:
    """A kafka-python consumer that belongs to no group, closed at the end.

    Args:
        committed: of transactions read only what is committed; no further than where one is still open.

    Raises:
        BrokerError: unreachable, or what it was used for is refused.
    """
    consumer = connect(
        settings.kafka,
        lambda options: PatientConsumer(
            **options,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            isolation_level="read_committed" if committed else "read_uncommitted",
        ),
    )
    try:
        yield consumer
    except TopicAuthorizationFailedError as error:
        raise Refused(f"{error}: this user may not read it; an ACL has to allow it") from error
    except UnsupportedCodecError as error:
        raise Refused(f"{error}; it comes with sameas: install that anew") from error
    except KafkaError as error:
        servers = ", ".join(settings.kafka.servers)
        raise BrokerError(f"reading from {servers} failed: {type(error).__name__}: {error}") from error
    finally:
        consumer.close()


def read_bounds(
    settings: Settings, partitions: Iterable[tuple[str, int]], *, committed: bool = True
) -> Bounds:
    """`bounds` with a consumer of its own."""
    with open_consumer(settings, committed=committed) as consumer:
        return bounds(consumer, [TopicPartition(topic, number) for topic, number in partitions])


def bounds(consumer: Any, partitions: list[TopicPartition]) -> Bounds:
    """Where each partition begins and ends; assigns the partitions and leaves positions undefined.

    Asked for its end, the embedded broker names the first offset of the last batch plus one, so that batch is
    fetched. The high watermark that comes with it is not the end for a consumer that reads what is committed.

    Raises:
        BrokerError: the broker does not answer.
    """
    consumer.assign(partitions)
    firsts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    unknown = {tp for tp in partitions if ends[tp] > firsts[tp]}
    for tp in partitions:
        consumer.seek(tp, max(firsts[tp], ends[tp] - 1))
    deadline = time.monotonic() + BOUNDS_SECONDS
    while unknown:
        consumer.poll(timeout_ms=POLL_MS)
        unknown = {tp for tp in unknown if consumer.highwater(tp) is None}
        if time.monotonic() > deadline:
            raise BrokerError(f"no answer to a fetch of {', '.join(sorted({tp.topic for tp in unknown}))}")
    return {tp: (firsts[tp], max(ends[tp], consumer.position(tp))) for tp in partitions}


def parse_date(text: str) -> datetime:
    """ISO 8601; UTC unless it says otherwise. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def offsets_at(consumer: Any, found: Bounds, moment: datetime) -> dict[TopicPartition, int]:
    """Where each partition goes on from a moment; its end when nothing is as new.

    The embedded broker goes by when a message arrived, names an offset that may be too early, and says that
    there is nothing by a time of -1. kafka-python refuses what was before 1970.
    """
    answers = consumer.offsets_for_times(
        dict.fromkeys(found, max(0, int(moment.timestamp() * 1000))), timeout_ms=LOOKUP_MS
    )
    offsets = {}
    for tp, (first, end) in found.items():
        answer = answers[tp]
        offsets[tp] = end if answer is None or answer.timestamp < 0 else max(first, answer.offset)
    return offsets


def read_topic(settings: Settings, topic: str, *, start: Start = "beginning") -> Iterator[Any]:
    """A topic's records as kafka-python gives them (key, value, partition, offset, timestamp in ms, headers).

    It stops at what was the end when reading began.

    Raises:
        BrokerError: unreachable, no such topic, or no permission to read it.
    """
    for record in read_on(settings, topic, start):
        if record is None:
            return
        yield record


def read_on(settings: Settings, topic: str, start: Start) -> Iterator[Any]:
    """Records for ever, and one None where the end was when reading began."""
    partitions = [TopicPartition(topic, number) for number in range(_count_partitions(settings, topic))]
    with open_consumer(settings) as consumer:
        ends = {}
        for tp, (first, end) in bounds(consumer, partitions).items():
            ends[tp] = end
            consumer.seek(tp, _position(consumer, tp, start, first, end))
        behind = {tp for tp in partitions if consumer.position(tp) < ends[tp]}
        if not behind:
            yield None
        since = start.timestamp() * 1000 if isinstance(start, datetime) else 0.0
        while True:
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                # may pass the old end; then there is simply more
                yield from (record for record in records if record.timestamp >= since)
            if behind:
                behind = {tp for tp in behind if consumer.position(tp) < ends[tp]}
                if not behind:
                    yield None


def _position(consumer: Any, tp: TopicPartition, start: Start, first: int, end: int) -> int:
    if start == "beginning":
        return first
    if isinstance(start, datetime):
        return offsets_at(consumer, {tp: (first, end)}, start)[tp]
    return end if start == "end" else min(max(int(start), first), end)


def _count_partitions(settings: Settings, topic: str) -> int:
    with admin_client(settings.kafka) as admin:
        try:
            [description] = admin.describe_topics([topic])
        except KafkaError as error:
            raise BrokerError(
                f"topic {topic} cannot be described: {type(error).__name__}: {error}"
            ) from error
        check_access(admin, [description], {topic: ["READ"]})
    if description["error_code"] != 0:
        raise BrokerError(
            f"topic {topic} does not exist at {', '.join(settings.kafka.servers)}; "
            "has a worker run (`sameas run`), and is the topic's name in the settings right?"
        )
    return len(description["partitions"])
