"""Listens to the alignment events of a worker, and notes when each arrived."""

import threading
import time

import msgspec
from kafka import TopicPartition

from index.errors import SameasError
from stream.broker.connection import client_options
from stream.broker.reading import PatientConsumer
from stream.config import Settings
from stream.demo.worker_process import STALL_SECONDS, STOP_SECONDS
from stream.events import Cause, Trigger


class Heard(msgspec.Struct, frozen=True):
    """An alignment event as it arrived; `arrival` is in seconds since the epoch.

    `cause` is the input of one of its two entities that made it; None if something else did.
    """

    event: str
    cause: Cause | None
    arrival: float


class _Event(msgspec.Struct, frozen=True):
    event: str
    trigger: Trigger


class Listener:
    """Reads the alignment events in a thread of its own, from the beginning."""

    def __init__(self, settings: Settings) -> None:
        self.heard: list[Heard] = []
        self.aligned = 0  # pairs, now
        self._partition = TopicPartition(settings.topics.alignment_events, 0)
        self._consumer = PatientConsumer(**client_options(settings.kafka), enable_auto_commit=False)
        self._consumer.assign([self._partition])
        self._consumer.seek(self._partition, 0)
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="listener", daemon=True)
        self._thread.start()

    def catch_up(self) -> list[Heard]:
        """All that was published by the time of the call. Raises SameasError if it does not arrive."""
        self._caught_up.clear()
        if not self._caught_up.wait(STALL_SECONDS):
            raise SameasError(f"topic {self._partition.topic} cannot be read to its end")
        return list(self.heard)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _listen(self) -> None:
        decode = msgspec.json.Decoder(_Event).decode
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=50).values():
                now = time.time()
                for record in records:
                    event = decode(record.value)
                    own = event.trigger.cause if event.trigger.kind == "input" else None
                    self.heard.append(Heard(event.event, own, now))
                    self.aligned += {"aligned": 1, "withdrawn": -1}.get(event.event, 0)
            if not self._caught_up.is_set():
                end = self._consumer.end_offsets([self._partition])[self._partition]
                if self._consumer.position(self._partition) >= end:
                    self._caught_up.set()
        self._consumer.close()
