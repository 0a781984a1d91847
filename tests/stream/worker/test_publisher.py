"""Record batches on a real broker: order, places, headers, tombstones, and what is too large."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import NewTopic

from stream.broker.connection import admin_client
from stream.broker.limits import BATCH_BYTES, MAX_MESSAGE_BYTES, TRUNCATED_BYTES
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.config import Settings
from stream.engine.interface import Output
from stream.worker.metrics import Metrics
from stream.worker.ownership import Tenure
from stream.worker.publisher import Placed, Publisher
from tests.stream.workers import produce


def publish(settings: Settings, outputs: Sequence[Output]) -> list[Placed]:
    """As the worker does it."""

    async def confirm(tenure: Tenure | None) -> None:
        pass

    async def send() -> list[Placed]:
        async with AIOKafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, acks="all", max_batch_size=BATCH_BYTES
        ) as producer:
            faust: Any = SimpleNamespace(_ensure_producer=lambda: producer)
            publisher = Publisher(
                lambda: faust, settings.topics, ensure_topics(settings), confirm, Metrics().refused
            )
            return await publisher.send(outputs)

    return asyncio.run(send())


def record(value: str, kind: str = "film") -> bytes:
    """What of an alignment record counts here: its evidence, and something else that may be long."""
    attributes = [{"subject_value": value}] if value else []
    return msgspec.json.encode(
        {"subject_category": kind, "evidence": {"attributes": attributes, "neighbours": []}}
    )


def limited(settings: Settings, topic: str, most: int) -> None:
    """Creates one of sameas's topics, which takes no larger record batches."""
    policy = "compact" if topic == settings.topics.alignments else "delete"
    configs = {"max.message.bytes": str(most), "cleanup.policy": policy}
    with admin_client(settings.kafka) as admin:
        admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])


def test_order_headers_tombstones_and_places(settings: Settings) -> None:
    records = [Output("alignments", b"k%d" % (n % 7), b"%d" % n if n % 3 else None) for n in range(100)]
    big = [Output("alignment_events", b"k", b"%d" % n * 2000, [("ce_id", b"%d" % n)]) for n in range(700)]
    placed = publish(settings, records + big)
    found = list(read_topic(settings, settings.topics.alignments))
    assert [(record.key, record.value) for record in found] == [(out.key, out.value) for out in records]
    heard = list(read_topic(settings, settings.topics.alignment_events))
    assert [(record.value, record.headers) for record in heard] == [(out.value, out.headers) for out in big]
    assert Placed(settings.topics.alignments, 0, found[0].offset, 100) in placed
    events = [batch for batch in placed if batch.topic == settings.topics.alignment_events]
    assert len(events) > 1 and sum(batch.records for batch in events) == 700
    assert [batch.first for batch in events] == [
        heard[sum(batch.records for batch in events[:number])].offset for number in range(len(events))
    ]


def test_a_key_is_where_other_clients_put_it(settings: Settings) -> None:
    topics = msgspec.structs.replace(settings.topics, partitions=3)
    settings = msgspec.structs.replace(settings, topics=topics)
    keys = [b"left:%d|right:%d" % (n, n) for n in range(40)]
    publish(settings, [Output("alignments", key, b"ours") for key in keys])
    produce(settings, settings.topics.alignments, [(key, b"theirs") for key in keys])
    publish(settings, [Output("alignments", key, b"elsewhere", partition=2) for key in keys])
    found: dict[bytes, set[tuple[bytes, int]]] = {b"ours": set(), b"theirs": set(), b"elsewhere": set()}
    for record in read_topic(settings, settings.topics.alignments):
        found[record.value].add((record.key, record.partition))
    assert found[b"ours"] == found[b"theirs"] and len(found[b"ours"]) == 40
    assert found[b"elsewhere"] == {(key, 2) for key in keys}


def test_a_topic_that_takes_only_small_batches(apache_settings: Settings) -> None:
    """They are halved until they pass."""
    limited(apache_settings, apache_settings.topics.alignment_events, 10_000)
    events = [Output("alignment_events", b"%d" % n, record("v" * 1000)) for n in range(50)]
    publish(apache_settings, events)
    heard = read_topic(apache_settings, apache_settings.topics.alignment_events)
    assert [message.key for message in heard] == [event.key for event in events]


def test_what_a_topic_does_not_take_goes_out_smaller_or_not_at_all(
    apache_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be as large after a restart. No former record stays in the place of one that is left out."""
    topics = apache_settings.topics
    for topic in (topics.alignments, topics.alignment_events, topics.dead_letters):
        limited(apache_settings, topic, 10_000)
    large, hopeless = record("v" * 20_000), record("", "t" * 20_000)
    outputs = [
        Output(kind, key, value)
        for kind in ("alignments", "alignment_events")
        for key, value in ((b"a", record("v")), (b"b", large), (b"c", hopeless), (b"d", None))
    ]
    publish(apache_settings, [*outputs, Output("dead_letters", b"k", b"v" * 20_000)])
    found = [(message.key, message.value) for message in read_topic(apache_settings, topics.alignments)]
    assert found == [(b"a", record("v")), (b"b", record("")), (b"c", None), (b"d", None)]
    heard = [(message.key, message.value) for message in read_topic(apache_settings, topics.alignment_events)]
    assert heard == [found[0], found[1], found[3]]
    (letter,) = read_topic(apache_settings, topics.dead_letters)
    assert letter.value == b"v" * 5000 and dict(letter.headers) == {"truncated_from_bytes": b"20000"}
    told = [
        line.getMessage() for line in caplog.records if "larger than the broker allows" in line.getMessage()
    ]
    assert len(told) == 3 and all("max.message.bytes" in line for line in told)


def test_a_dead_letter_without_a_value_gets_through_shortened(settings: Settings) -> None:
    publish(settings, [Output("dead_letters", b"k" * (MAX_MESSAGE_BYTES + 1), None)])
    (letter,) = read_topic(settings, settings.topics.dead_letters)
    assert letter.key == b"k" * TRUNCATED_BYTES and letter.value is None


def test_a_dead_letter_gets_through_shortened(settings: Settings) -> None:
    letter = Output("dead_letters", b"k", b"v" * (MAX_MESSAGE_BYTES + 1), [("reason", b"malformed")])
    publish(settings, [letter, Output("dead_letters", b"next", b"v")])
    first, second = read_topic(settings, settings.topics.dead_letters)
    assert first.value == b"v" * TRUNCATED_BYTES and second.key == b"next"
    assert dict(first.headers) == {
        "reason": b"malformed",
        "truncated_from_bytes": str(MAX_MESSAGE_BYTES + 1).encode(),
    }
