"""An open loop: events are sent when they are due, whether or not earlier ones were answered.

A delay counts from when its event was due, not from when it could be sent. A closed loop would wait with its
questions just when the answers are slow, and never see them (coordinated omission).
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from stream.broker.connection import client_options
from stream.broker.reading import FETCH_WAIT_MS
from stream.config import Settings

POLL_MS = 20
LINGER_MS = 5  # the default of Kafka 4; part of every delay
Send = Callable[[], Any]


class Sent(NamedTuple):
    """In the order of sending; seconds of `time.monotonic`."""

    due: list[float]
    at: list[float]
    results: list[Any]


def paced(sends: Sequence[Send], rate: float) -> Sent:
    """Calls them at even times, `rate` a second; those that are overdue at once."""
    begin = time.monotonic()
    sent = Sent([begin + number / rate for number in range(len(sends))], [], [])
    for due, send in zip(sent.due, sends, strict=True):
        early = due - time.monotonic()
        if early > 0:
            time.sleep(early)
        sent.at.append(time.monotonic())
        sent.results.append(send())
    return sent


def delays(due: Mapping[int, float], arrivals: Iterable[tuple[int, float]]) -> list[float]:
    """Milliseconds from when each event was due to the first arrival that it caused.

    Args:
        due: by offset.
        arrivals: offset and time, in any order. Those of other events do not count, nor do later ones: an
            event may change several pairs.
    """
    first: dict[int, float] = {}
    for offset, at in arrivals:
        if offset in due:
            first[offset] = min(at, first.get(offset, at))
    return [(at - due[offset]) * 1000 for offset, at in first.items()]


class Ear:
    """Hears everything on a topic of one partition, in a thread of its own, from now on."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self.heard: list[tuple[float, bytes]] = []  # seconds of `time.monotonic`, and the value
        self._partition = TopicPartition(topic, 0)
        self._consumer = KafkaConsumer(
            **client_options(settings.kafka), enable_auto_commit=False, fetch_max_wait_ms=FETCH_WAIT_MS
        )
        self._consumer.assign([self._partition])
        self._consumer.seek(self._partition, self._end())
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)
        self._thread.start()

    def finish(self) -> list[tuple[float, bytes]]:
        """What was published before this call."""
        self._finish.set()
        self._thread.join()
        return self.heard

    def _end(self) -> int:
        return int(self._consumer.end_offsets([self._partition])[self._partition])

    def _listen(self) -> None:
        end: int | None = None
        while end is None or self._consumer.position(self._partition) < end:
            for records in self._consumer.poll(timeout_ms=POLL_MS).values():
                now = time.monotonic()
                self.heard += [(now, record.value or b"") for record in records]
            if end is None and self._finish.is_set():
                end = self._end()
        self._consumer.close()


@contextmanager
def sending(settings: Settings) -> Iterator[KafkaProducer]:
    """A producer as Kafka's own: a request for every event would cost the worker half of its two cores."""
    producer = KafkaProducer(**client_options(settings.kafka), acks="all", linger_ms=LINGER_MS)
    try:
        yield producer
    finally:
        producer.close(timeout=5)
