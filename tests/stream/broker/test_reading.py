"""Fetches wait the longer, the longer no message came."""

import pytest
from kafka import TopicPartition

from stream.broker import reading
from stream.broker.reading import FETCH_WAIT_MS, QUIET_WAIT_MS, Patience, open_consumer
from stream.broker.topics import ensure_topics
from stream.config import Settings
from tests.stream.workers import produce


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reading, "time", clock)
    return clock


def test_patience_grows_with_the_quiet_and_ends_with_it(clock: Clock) -> None:
    patience = Patience()
    waits = []
    for seconds in (0, 0.1, 0.9, 2, 6, 3600):
        clock.now += seconds
        waits.append(patience.wait_ms(False))
    assert waits == [FETCH_WAIT_MS, FETCH_WAIT_MS, 50, 150, 450, QUIET_WAIT_MS]
    assert [patience.wait_ms(came) for came in (True, False)] == [FETCH_WAIT_MS] * 2


@pytest.mark.kafka
def test_a_consumer_is_patient_and_hears_what_comes_then(settings: Settings, clock: Clock) -> None:
    ensure_topics(settings)
    topic = settings.topics.entities
    with open_consumer(settings) as consumer:
        [partition] = reading.bounds(consumer, [TopicPartition(topic, 0)])
        consumer.seek(partition, 0)
        clock.now += 3600
        assert not consumer.poll(timeout_ms=0)
        assert consumer._fetcher.config["fetch_max_wait_ms"] == QUIET_WAIT_MS
        produce(settings, topic, [(b"key", b"value")])
        while not (heard := consumer.poll(timeout_ms=1000)):
            pass
        assert [record.value for record in heard[partition]] == [b"value"]
        assert consumer._fetcher.config["fetch_max_wait_ms"] == FETCH_WAIT_MS
