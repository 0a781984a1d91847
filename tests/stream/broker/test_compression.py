"""Whatever topics are compressed with, and whoever sets it: all that reads them can."""

import json
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from benchmarks.brokers import ApacheKafka
from stream.broker.ranges import find_ranges, read_ranges
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics, worker_specs
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from stream.errors import Refused
from tests.stream.workers import (
    command,
    numbers,
    produce,
    upserts,
    wait_until_aligned,
    worker,
)

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}  # in the attributes of a record batch
ATTRIBUTES = 22  # the byte of a batch where they stand


def codecs_of(kafka: dict[str, Any], topic: str) -> set[int]:
    """Of the batches on the broker's disk. A producer leaves a small one as it is if it gets no smaller."""
    broker: ApacheKafka = kafka["broker"]
    [log] = broker.directory.rglob(f"{topic}-0/00000000000000000000.log")
    content, found = log.read_bytes(), set()
    while len(content) > ATTRIBUTES and (length := int.from_bytes(content[8:12], "big")):
        found.add(content[ATTRIBUTES] & 7)
        content = content[12 + length :]
    return found


@pytest.mark.parametrize("setter", ["producer", "topic"])
@pytest.mark.parametrize("codec", CODECS)
def test_all_that_reads_topics_reads_compressed_ones(
    apache_settings: Settings, apache_kafka: dict[str, Any], tmp_path: Path, codec: str, setter: str
) -> None:
    kafka = msgspec.structs.replace(
        apache_settings.kafka, compression_type=codec if setter == "producer" else "none"
    )
    settings = msgspec.structs.replace(apache_settings, kafka=kafka)
    config = {"compression.type": codec} if setter == "topic" else {}
    topics = [NewTopic(s.name, 1, 1, topic_configs=s.config | config) for s in worker_specs(settings)]
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    admin.create_topics(topics)
    admin.close()

    feed_events(settings, upserts(range(20)))
    produce(settings, settings.topics.entities, [(b"x:bad", b"{bad")])
    with worker(settings, kafka__compression_type=kafka.compression_type) as process:
        wait_until_aligned(settings, numbers(range(20)), process)
        assert process.end(signal.SIGTERM) == 0
    assert "received 21 = applied 20 + stale 0 + dead-lettered 1" in process.text
    for topic in (settings.topics.entities, settings.topics.alignments, settings.topics.dead_letters):
        assert codecs_of(apache_kafka, topic) - {0} == {CODECS[codec]}

    assert len(command(settings, "subscribe", "-e").stdout.splitlines()) == 20
    [letter] = command(settings, "dead-letters", "list").stdout.splitlines()
    assert json.loads(letter)["key"] == "x:bad"
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in upserts(range(15))))
    said = command(settings, "feed", str(file), "--delete-missing", "--dry-run").stderr
    assert "6 entities would be deleted" in said  # the bad one counts
    # what a replay and a promotion read with
    assert len(list(read_ranges(settings, find_ranges(settings, None, None)))) == 21


def test_a_codec_that_is_missing_is_not_the_brokers_absence(
    embedded_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(embedded_settings)
    feed_events(embedded_settings, upserts(range(2)))
    monkeypatch.setattr("kafka.record.default_records.codecs.has_lz4", lambda: False)
    with pytest.raises(Refused, match="lz4 compression codec not found; it comes with sameas"):
        list(read_topic(embedded_settings, embedded_settings.topics.entities))
