"""Dead letters: listed, and sent again."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from click.testing import Result
from kafka import KafkaProducer

from stream.broker.reading import as_message, read_topic
from stream.broker.topics import ensure_topics
from stream.config import Settings
from stream.consuming.dead_letters import Selection, read_dead_letters
from stream.consuming.retrying import plan_retry, resend
from stream.engine.inbox import Received
from stream.errors import InvalidInput
from tests.stream.workers import command, produce

ROW = b'{"op":"upsert","source":"left","id":"%s","type":"t%s"}'


def put_letters(
    settings: Settings, letters: Sequence[tuple[bytes | None, bytes | None, dict[str, str]]]
) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for key, value, headers in letters:
        encoded = [(name, text.encode()) for name, text in headers.items()]
        producer.send(settings.topics.dead_letters, key=key, value=value, headers=encoded)
    producer.flush(timeout=30)
    producer.close(timeout=5)


def from_topic(topic: str, offset: int, reason: str = "malformed") -> dict[str, str]:
    place = {"topic": topic, "partition": "0", "offset": str(offset)}
    return {"stage": "decode", "reason": reason, "message": "why"} | place


def sameas(settings: Settings, *arguments: str) -> Result:
    return command(settings, "dead-letters", *arguments)


def listed(settings: Settings, *arguments: str) -> list[dict[str, Any]]:
    result = sameas(settings, "list", *arguments)
    assert result.exit_code == 0
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_letters_are_listed_once_each_text_as_text_and_bytes_as_base64(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    topic = embedded_settings.topics.entities
    put_letters(
        embedded_settings,
        [
            (b"left:1", b"{bad", from_topic(topic, 7)),
            (b"left:1", b"{bad", from_topic(topic, 7)),  # again, after a crash
            (None, b"\xff\x00", from_topic(topic, 9, "bad-id")),
        ],
    )
    first, second = listed(embedded_settings)
    assert first | {"when": ""} == {
        "key": "left:1",
        "value": "{bad",
        "reason": "malformed",
        "stage": "decode",
        "message": "why",
        "topic": topic,
        "partition": 0,
        "offset": 7,
        "when": "",
        "truncated": False,
        "retry_of": None,
        "obstacle": None,
    }
    assert first["when"].startswith("20")
    assert (second["key"], second["value"]) == (None, {"base64": "/wA="})
    assert [letter["offset"] for letter in listed(embedded_settings, "--reason", "bad-id")] == [9]
    assert [letter["offset"] for letter in listed(embedded_settings, "--offset", "7")] == [7]
    assert listed(embedded_settings, "--topic", embedded_settings.topics.links) == []


def test_headers_that_are_not_ours_harm_nothing(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    odd = [{"partition": "x"}, {"partition": "3", "offset": "9" * 5000}, {"partition": "-1", "offset": ""}]
    put_letters(embedded_settings, [(b"k", b"v", headers) for headers in odd])
    letters = listed(embedded_settings)
    assert [(letter["partition"], letter["offset"]) for letter in letters] == [(0, 0), (3, 1), (0, 2)]
    assert sameas(embedded_settings, "retry").exit_code == 0


def test_a_time_that_no_calendar_has_and_a_header_without_value_harm_nothing(
    embedded_settings: Settings,
) -> None:
    ensure_topics(embedded_settings)
    topic = embedded_settings.topics.dead_letters

    async def put() -> None:
        async with AIOKafkaProducer(bootstrap_servers=embedded_settings.kafka.bootstrap_servers) as producer:
            nothing = [("reason", None), ("topic", None)]
            await producer.send_and_wait(topic, b"v", b"k", headers=nothing, timestamp_ms=2**62)
            await producer.send_and_wait(topic, b"v", b"k", headers=[("retry_of", b"x:1")])

    asyncio.run(put())
    first, second = listed(embedded_settings)
    assert (first["when"], first["reason"], first["topic"]) == (None, "unknown", topic)
    assert second["retry_of"] is None
    assert sameas(embedded_settings, "retry", "--execute").exit_code == 0


@pytest.mark.kafka
def test_a_retry_is_planned_and_then_sends_the_original_bytes(settings: Settings) -> None:
    ensure_topics(settings)
    topics = settings.topics
    produce(settings, topics.entities, [(b"left:0", b"before"), (b"left:1", b"{bad\xff"), (b"left:5", b"x")])
    produce(settings, topics.links, [(b"left:2", None)])
    put_letters(
        settings,
        [
            (b"left:1", b"{bad\xff", from_topic(topics.entities, 1)),
            (b"left:2", None, from_topic(topics.links, 0)),
            (b"left:3", b"x", from_topic("elsewhere", 1)),
            (b"left:4", b"x", from_topic(topics.entities, 2) | {"truncated_from_bytes": "5000000"}),
            (b"left:5", b"x", from_topic(topics.entities, 2, "bad-id")),
            (b"left:6", b"x", {}),
        ],
    )
    planned = sameas(settings, "retry", "--reason", "malformed")
    assert planned.exit_code == 0
    assert f"1 to {topics.entities} (malformed)" in planned.stderr
    assert "1 cannot be sent again: from elsewhere, which is no input" in planned.stderr
    assert "2 messages would be sent" in planned.stderr
    assert len(list(read_topic(settings, topics.entities))) == 3
    sent = sameas(settings, "retry", "--reason", "malformed", "--execute")
    assert "2 messages sent" in sent.stderr
    found = [(r.key, r.value) for r in read_topic(settings, topics.entities)]
    assert found[3:] == [(b"left:1", b"{bad\xff")]
    assert [(r.key, r.value) for r in read_topic(settings, topics.links)] == [(b"left:2", None)] * 2


def test_what_was_shortened_is_not_sent_again(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    topic = embedded_settings.topics.entities
    produce(embedded_settings, topic, [(b"left:4", b"x")])
    put_letters(embedded_settings, [(b"left:4", b"x", from_topic(topic, 0) | {"truncated_from_bytes": "5"})])
    assert "1 cannot be sent again: shortened" in sameas(embedded_settings, "retry").stderr


@pytest.mark.parametrize("key", [b"left:1", None])
def test_a_retry_overtakes_nothing_that_came_since(embedded_settings: Settings, key: bytes | None) -> None:
    """Nor brings anything into a topic that was not there."""
    ensure_topics(embedded_settings)
    topic = embedded_settings.topics.entities
    old, new, other = ROW % (b"1", b"old"), ROW % (b"1", b"new"), ROW % (b"2", b"")
    produce(embedded_settings, topic, [(key, old), (key, new), (key and b"left:2", other), (None, b"{bad")])
    forged, gone = (from_topic(topic, offset) for offset in (2, 77))
    put_letters(
        embedded_settings,
        [
            (key, old, from_topic(topic, 0)),
            (key, new, from_topic(topic, 1)),
            (b"left:2", ROW % (b"2", b"forged"), forged),
            (b"left:2", other, gone),
            (None, b"{bad", from_topic(topic, 3)),
        ],
    )
    overtaken, sent, *others = [letter["obstacle"] for letter in listed(embedded_settings, "--check")]
    assert overtaken == f"overtaken by something newer in {topic}" and sent is None
    assert [o.partition(",")[0] for o in others] == [f"no longer in {topic}"] * 2 + ["without a key"]
    said = sameas(embedded_settings, "retry", "--execute").stderr
    assert f"1 cannot be sent again: overtaken by something newer in {topic}" in said
    assert "1 messages sent" in said
    assert [record.value for record in read_topic(embedded_settings, topic)][4:] == [new]
    assert "0 messages sent" in sameas(embedded_settings, "retry", "--execute").stderr


def test_whoever_may_write_letters_gives_no_verdict_with_them(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    topics = embedded_settings.topics
    key, verdict = b"left:1|right:2", b'{"left":"left:1","right":"right:2"}'
    produce(embedded_settings, topics.entities, [(key, verdict), (b"left:3", b"x")])
    forged = [from_topic(topics.links, 0), from_topic(topics.links, 10**17) | {"partition": "7"}]
    forged += [from_topic(topics.alignments, 0), {"stage": "apply", **from_topic(topics.links, -1)}]
    put_letters(embedded_settings, [(key, verdict, headers) for headers in forged])
    assert "0 messages sent" in sameas(embedded_settings, "retry", "--execute").stderr
    assert list(read_topic(embedded_settings, topics.links)) == []
    assert list(read_topic(embedded_settings, topics.alignments)) == []


@pytest.mark.kafka
def test_a_key_that_went_to_another_partition_is_found_there(settings: Settings) -> None:
    """As happens when partitions are added."""
    spread = msgspec.structs.replace(settings, topics=msgspec.structs.replace(settings.topics, partitions=2))
    ensure_topics(spread)
    topic = settings.topics.entities
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for number, partition in enumerate((1, 0, 0, 1)):
        value, key = b"%d" % number, b"k%d" % (number % 2)
        producer.send(topic, key=key, value=value, partition=partition, timestamp_ms=1000 + number).get(30)
    producer.close(timeout=30)
    places = [(b"k0", b"0", 1, 0), (b"k1", b"1", 0, 0), (b"k0", b"2", 0, 1), (b"k1", b"3", 1, 1)]
    letters = [(key, value, from_topic(topic, o) | {"partition": str(p)}) for key, value, p, o in places]
    put_letters(settings, letters[:1])
    assert [bool(letter["obstacle"]) for letter in listed(settings, "--check")] == [True]
    put_letters(settings, letters[1:])
    assert [bool(letter["obstacle"]) for letter in listed(settings, "--check")] == [True, True, False, False]
    assert "2 messages sent" in sameas(settings, "retry", "--execute").stderr
    found = [(r.partition, r.key, r.value) for r in read_topic(settings, topic) if r.offset > 1]
    assert sorted(found) == [(0, b"k0", b"2"), (1, b"k1", b"3")]


@pytest.mark.kafka
def test_what_came_while_messages_were_sent_is_the_last_word(settings: Settings) -> None:
    ensure_topics(settings)
    topic = settings.topics.entities
    produce(settings, topic, [(b"left:1", b"old"), (b"left:2", b"{bad")])
    put_letters(
        settings,
        [(b"left:1", b"old", from_topic(topic, 0)), (b"left:2", b"{bad", from_topic(topic, 1))],
    )
    plan = plan_retry(settings, read_dead_letters(settings, Selection()))
    produce(settings, topic, [(b"left:1", b"new"), (b"left:1", b"newest"), (b"left:3", b"other")])
    assert resend(settings, plan) == 2
    records = [(record.key, record.value) for record in read_topic(settings, topic)]
    assert records[5:] == [(b"left:1", b"old"), (b"left:2", b"{bad"), (b"left:1", b"newest")]


def refuse_since(settings: Settings, offset: int) -> None:
    """The letters that a worker writes for what stands there."""
    letters = Received()
    for record in read_topic(settings, settings.topics.entities, start=offset):
        letters.refuse(as_message(record), "decode", InvalidInput("malformed", "why"))
    put_letters(
        settings,
        [
            (output.key, output.value, {name: text.decode() for name, text in output.headers})
            for output in letters.dead_letters
        ],
    )


@pytest.mark.kafka
def test_what_is_refused_again_has_one_letter(settings: Settings) -> None:
    ensure_topics(settings)
    produce(settings, settings.topics.entities, [(b"left:%d" % number, b"{bad") for number in range(5)])
    refuse_since(settings, 0)
    for times, letters in enumerate((5, 4)):
        chosen = [] if letters == 5 else [word for n in range(1, 5) for word in ("--offset", str(n))]
        assert f"{letters} messages sent" in sameas(settings, "retry", "--execute", *chosen).stderr
        refuse_since(settings, 5 * (times + 1))
    found = listed(settings)
    assert sorted((letter["retry_of"]["offset"], letter["offset"]) for letter in found) == [
        (0, 5),
        *((n, 9 + n) for n in range(1, 5)),
    ]
    assert len(listed(settings, "--offset", "1")) == 1


def test_no_topic_is_told_as_one_line(embedded_settings: Settings) -> None:
    result = sameas(embedded_settings, "list")
    assert result.exit_code == 1
    assert "does not exist" in result.stderr and "Traceback" not in result.stderr
