"""Plain consumers: without a group, with explicit positions, and with ends that can be trusted."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError

from stream.broker import unreachable
from stream.config import Settings
from stream.errors import BrokerError
from stream.events import Cause, Message
from stream.security import client_options

BOUNDS_SECONDS = 10.0
POLL_MS = 500
LOOKUP_MS = 10_000  # for the offset at a date
FETCH_WAIT_MS = 10  # while messages come
QUIET_WAIT_MS = 500  # Kafka's own default
QUIET_SHARE = 1 / 20  # of the time since the last message

Bounds = dict[TopicPartition, tuple[int, int]]  # the first offset, and the one after the last


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
    """kafka-python's, whose fetches wait as `Patience` says."""

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, fetch_max_wait_ms=FETCH_WAIT_MS, **options)
        self._patience = Patience()

    def poll(self, *arguments: Any, **options: Any) -> Any:
        records = super().poll(*arguments, **options)
        self._fetcher.config["fetch_max_wait_ms"] = self._patience.wait_ms(bool(records))
        return records


def as_message(record: Any) -> Message:
    """A record of kafka-python's or aiokafka's consumer."""
    cause = Cause(record.topic, record.partition, record.offset)
    return Message(cause, record.key, record.value, record.timestamp / 1000)


@contextmanager
def open_consumer(settings: Settings, *, committed: bool = True) -> Iterator[Any]:
    """A kafka-python consumer that belongs to no group, closed at the end.

    Args:
        committed: of transactions read only what is committed; no further than where one is still open.

    Raises:
        BrokerError: unreachable, or what it was used for is refused.
    """
    try:
        consumer = PatientConsumer(
            **client_options(settings.kafka),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            isolation_level="read_committed" if committed else "read_uncommitted",
        )
    except (KafkaError, ValueError) as error:
        raise unreachable(settings.kafka, error) from error
    try:
        yield consumer
    except TopicAuthorizationFailedError as error:
        raise BrokerError(f"{error}: this user may not read it; an ACL has to allow it") from error
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
    fetched. The high watermark that comes with it is no end for who reads what is committed.

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
        consumer.poll(timeout_ms=POLL_MS, max_records=sys.maxsize)
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
