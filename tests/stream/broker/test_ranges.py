"""Topics again, in the order of time: partitions of very different length."""

from typing import Any

import pytest
from kafka import KafkaProducer

from stream.broker.connection import client_options
from stream.broker.ranges import Range, read_ranges
from stream.broker.topics import ensure_topics
from stream.config import Settings

pytestmark = pytest.mark.kafka
HOUR = 3_600_000


def write(settings: Settings, topic: str, times: Any) -> None:
    """A message at each of these times, in milliseconds since the epoch."""
    producer = KafkaProducer(**client_options(settings.kafka))
    for number, time in enumerate(times):
        producer.send(topic, key=b"%d" % number, value=b"%d" % number, timestamp_ms=time)
    producer.flush(timeout=30)
    producer.close()


@pytest.mark.timeout(60)  # kafka-python lost what a fetch had brought of a partition that was paused
@pytest.mark.parametrize("few_at", [0, 1351, 2600], ids=["few first", "few between", "few last"])
def test_partitions_of_different_length_are_merged_by_time(settings: Settings, few_at: int) -> None:
    ensure_topics(settings)
    many, few = settings.topics.entities, settings.topics.links
    write(settings, many, (HOUR + 1000 * n for n in range(2600)))
    write(settings, few, (HOUR + 1000 * few_at + n for n in range(9)))
    ranges = [Range(many, 0, 0, 2600), Range(few, 0, 0, 9)]
    messages = list(read_ranges(settings, ranges))
    assert [m.timestamp for m in messages] == sorted(m.timestamp for m in messages)
    for topic, count in ((many, 2600), (few, 9)):
        assert [m.cause.offset for m in messages if m.cause.topic == topic] == list(range(count))
