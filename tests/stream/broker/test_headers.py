"""A header's name that is no UTF-8 ends no reader."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

import stream.worker.transport  # noqa: F401  (the worker's consumer)
from stream.broker.headers import AnyText
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.config import Settings


class Raw(str):
    """A name that is sent as these bytes."""

    raw = b"\xff\xfename"

    def encode(self, *_: str) -> bytes:
        return self.raw


@pytest.mark.kafka
@pytest.mark.parametrize("codec", [None, "lz4"])
def test_all_consumers_read_on(settings: Settings, codec: str | None) -> None:
    """Those of commands and that of the worker; in one batch and in batches of their own."""
    ensure_topics(settings)
    topic = settings.topics.entities
    for linger in (0, 1000):
        producer = KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=linger, compression_type=codec
        )
        for number in range(4):
            headers = [("before", b"1"), (Raw(), b"2"), ("after", b"3")] if number % 2 else []
            producer.send(topic, key=b"%d" % number, value=b"v", headers=headers)
        producer.flush(timeout=30)
        producer.close(timeout=30)
    odd = (("before", b"1"), ("��name", b"2"), ("after", b"3"))
    expected = [(b"%d" % (number % 4), odd if number % 2 else ()) for number in range(8)]
    assert [(record.key, tuple(record.headers)) for record in read_topic(settings, topic)] == expected

    async def read() -> list[tuple[bytes, tuple[tuple[str, bytes | None], ...]]]:
        servers = settings.kafka.bootstrap_servers
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=servers, auto_offset_reset="earliest"
        ) as consumer:
            found = [await asyncio.wait_for(consumer.getone(), 30) for _ in range(8)]
        return [(record.key, tuple(record.headers)) for record in found]

    assert asyncio.run(read()) == expected


@given(st.binary())
def test_every_part_of_bytes_is_text(raw: bytes) -> None:
    text = AnyText(raw)
    assert text == raw and len(text[1:3]) == len(raw[1:3]) and list(text) == list(raw)
    assert text[0:2].decode("utf-8") == raw[0:2].decode("utf-8", "replace")
