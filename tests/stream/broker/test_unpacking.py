"""A batch that unpacks to gigabytes becomes a dead letter, and all that reads its topic goes on."""

import json
import signal
from typing import Any

import pytest
from aiokafka.consumer import fetcher as of_aiokafka
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from kafka import KafkaProducer
from kafka.consumer import fetcher as of_kafka_python

from stream.broker import unpacking
from stream.broker.ranges import find_ranges, read_ranges
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from stream.errors import InvalidInput
from stream.events import check_bytes
from stream.worker.records import read_any_batch
from tests.stream.workers import command, numbers, upserts, wait_until_aligned, worker

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CLIENTS = [of_aiokafka, of_kafka_python]
MOST = 2**16
BOMB = b"\0" * (unpacking.MOST_BYTES + 1)

read_any_batch()


def batch(codec: int, *values: bytes) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        builder.append(offset, 1_000 + offset, b"key", value, [])
    return bytes(builder.build())


def read(client: Any, content: bytes) -> list[list[Any]]:
    """The records of each batch."""
    records, found = client.MemoryRecords(content), []
    while records.has_next() and (one := records.next_batch()):
        assert one.validate_crc()
        found.append(list(one))
        assert one.next_offset == 2
    return found


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_of_a_batch_that_is_too_large_or_damaged_one_record_is_left(
    monkeypatch: pytest.MonkeyPatch, client: Any, codec: int
) -> None:
    monkeypatch.setattr(unpacking, "MOST_BYTES", MOST)
    good, large = batch(codec, b"a" * 900, b"b"), batch(codec, b"a", bytes(MOST))
    cut = bytearray(batch(codec, b"a" * 900, b"b"))
    del cut[-12:]
    cut[8:12] = (len(cut) - 12).to_bytes(4)
    for one, words in ((large, "its batch unpacks to more than 0 MiB"), (bytes(cut), "cannot be unpacked")):
        first, second = (list(client.MemoryRecords(content).next_batch()) for content in (good, one))
        assert [(r.offset, r.key, r.timestamp, len(r.value)) for r in first] == [
            (0, b"key", 1_000, 900),
            (1, b"key", 1_001, 1),
        ]
        [record] = second
        assert (record.offset, record.key, record.timestamp) == (0, None, 1_000)
        with pytest.raises(InvalidInput, match=f"offsets 0 to 1: .*{words}") as refused:
            check_bytes(record.value)
        assert refused.value.reason == "too-large"


@pytest.mark.parametrize("client", CLIENTS)
def test_a_batch_of_too_many_records(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    monkeypatch.setattr(unpacking, "MOST_RECORDS", 1)
    [[record]] = read(client, batch(4, b"a", b"b"))
    assert b"its batch has 2 records; 1 are allowed" in record.value
    assert [len(records) for records in read(client, batch(0, b"a", b"b"))] == [2]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_fetch_of_many_batches_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch, client: Any) -> None:
    """What is behind the part that was taken is fetched again, since positions go by what was taken."""
    one = batch(4, b"a" * 9_000, b"b" * 40_000)
    assert len(read(client, one * 5)) == 5
    for module in ("stream.broker.headers", "stream.worker.records"):
        monkeypatch.setattr(f"{module}.MOST_BYTES", MOST)
    assert len(read(client, one * 5)) == 2


@pytest.mark.slow
def test_a_worker_and_all_readers_go_on(settings: Settings) -> None:
    topic = settings.topics.entities
    ensure_topics(settings)
    feed_events(settings, upserts(range(5)))
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, compression_type="zstd", max_request_size=1 << 30
    )
    producer.send(topic, key=b"left:1", value=BOMB)
    producer.flush(timeout=60)
    producer.close(timeout=5)
    feed_events(settings, upserts(range(5, 9)))
    with worker(settings) as process:
        wait_until_aligned(settings, numbers(range(9)), process)
        assert process.end(signal.SIGTERM) == 0
    assert "dead-lettered 1" in process.text
    letters = command(settings, "dead-letters", "list").stdout
    [letter] = map(json.loads, letters.splitlines())
    assert letter["reason"] == "too-large"
    assert "offsets 5 to 5: its batch unpacks to more than 64 MiB" in letter["value"]
    assert sum(1 for _ in read_ranges(settings, find_ranges(settings, None, None))) == 10
