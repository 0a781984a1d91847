"""Producing records into a topic: in order, each delivered or reported."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from stream.broker.connection import connect
from stream.broker.limits import BATCH_BYTES
from stream.config import Settings
from stream.errors import BrokerError
from stream.events import MAX_EVENT_BYTES
from stream.interrupts import Interrupted

DELIVERY_TIMEOUT_MS = 25_000  # an event that is not acknowledged by then is an error
LINGER_MS = 20
CHECK_EVERY = 2_000  # events between two looks at what the broker refused
LAST_SECONDS = 1.5  # for acknowledgements after an interrupt, and for closing
SETTLE_SECONDS = 1.0  # between two waits for all acknowledgements, where they are reported

Report = Callable[[int], None]  # takes the number of events so far


class Record(NamedTuple):
    """A message to send. Without a partition the key decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def produce(
    settings: Settings,
    records: Iterable[Record],
    progress: Report | None = None,
    settled: Report | None = None,
) -> int:
    """Produces records in order; their number, when the broker has acknowledged all.

    Args: as for `feed_events`.

    Raises:
        BrokerError: unreachable, no such topic, or a record was not delivered.
    """
    failures: list[tuple[str, BaseException]] = []
    sent, topic, last = 0, "none", time.monotonic()
    producer = _producer(settings)

    def settle(seconds: float = DELIVERY_TIMEOUT_MS / 1000 + 5) -> None:
        producer.flush(timeout=seconds)
        _raise_first(failures, settings)
        if settled is not None:
            settled(sent)

    try:
        for topic, key, value, partition, headers in records:
            producer.send(
                topic, key=key, value=value, partition=partition, headers=list(headers)
            ).add_errback(lambda error, topic=topic: failures.append((topic, error)))
            sent += 1
            if sent % CHECK_EVERY == 0:
                _raise_first(failures, settings)
                if progress is not None:
                    progress(sent)
                if settled is not None and time.monotonic() - last > SETTLE_SECONDS:
                    settle()
                    last = time.monotonic()
        settle()
    except KafkaError as error:
        raise _undelivered(error, settings, topic) from error
    except Interrupted:
        with contextlib.suppress(KafkaError, BrokerError):
            settle(LAST_SECONDS)
        raise
    finally:
        producer.close(timeout=0 if failures else LAST_SECONDS)
    if progress is not None:
        progress(sent)
    return sent


def _producer(settings: Settings) -> KafkaProducer:
    return connect(
        settings.kafka,
        lambda options: KafkaProducer(
            **options,
            acks="all",
            compression_type=settings.kafka.codec,
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_request_size=2 * MAX_EVENT_BYTES,
            max_block_ms=DELIVERY_TIMEOUT_MS,
            request_timeout_ms=10_000,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            allow_auto_create_topics=False,
        ),
    )


def _raise_first(failures: list[tuple[str, BaseException]], settings: Settings) -> None:
    if failures:
        topic, error = failures[0]
        raise _undelivered(error, settings, topic)


def _undelivered(error: BaseException, settings: Settings, topic: str) -> BrokerError:
    what: Any = (
        "larger than the topic's max.message.bytes" if isinstance(error, MessageSizeTooLargeError) else error
    )
    return BrokerError(
        f"topic {topic} at {', '.join(settings.kafka.servers)}: an event was not delivered: "
        f"{type(error).__name__}: {what}; feed again, repeated events do no harm"
    )
