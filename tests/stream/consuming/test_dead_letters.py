"""Dead letters: listed, and sent again."""

import json
from typing import Any

from click.testing import CliRunner, Result
from kafka import KafkaProducer

from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.cli import main
from stream.config import Settings
from tests.stream.workers import produce


def put_letters(settings: Settings, letters: list[tuple[bytes | None, bytes | None, dict[str, str]]]) -> None:
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
    overrides = [("kafka.bootstrap_servers", settings.kafka.bootstrap_servers)]
    overrides += [("topics.entities", settings.topics.entities), ("topics.links", settings.topics.links)]
    overrides += [("topics.dead_letters", settings.topics.dead_letters)]
    flags = [word for name, value in overrides for word in ("--set", f"{name}={value}")]
    return CliRunner().invoke(main, ["dead-letters", *arguments, *flags], catch_exceptions=False)


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


def test_a_retry_is_planned_and_then_sends_the_original_bytes(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    topics = embedded_settings.topics
    produce(embedded_settings, topics.entities, [(b"left:0", b"before")])
    put_letters(
        embedded_settings,
        [
            (b"left:1", b"{bad\xff", from_topic(topics.entities, 7)),
            (b"left:2", None, from_topic(topics.links, 8)),
            (b"left:3", b"x", from_topic("elsewhere", 1)),
            (b"left:4", b"x", from_topic(topics.entities, 2) | {"truncated_from_bytes": "5000000"}),
            (b"left:5", b"x", from_topic(topics.entities, 3, "bad-id")),
            (b"left:6", b"x", {}),
        ],
    )
    planned = sameas(embedded_settings, "retry", "--reason", "malformed")
    assert planned.exit_code == 0
    assert f"1 to {topics.entities} (malformed)" in planned.stderr
    assert "1 cannot be sent again: from elsewhere, which is no input" in planned.stderr
    assert "1 cannot be sent again: shortened" in planned.stderr
    assert "2 messages would be sent" in planned.stderr
    assert len(list(read_topic(embedded_settings, topics.entities))) == 1
    sent = sameas(embedded_settings, "retry", "--reason", "malformed", "--execute")
    assert "2 messages sent" in sent.stderr
    found = [(r.key, r.value) for r in read_topic(embedded_settings, topics.entities)]
    assert found == [(b"left:0", b"before"), (b"left:1", b"{bad\xff")]
    assert [(r.key, r.value) for r in read_topic(embedded_settings, topics.links)] == [(b"left:2", None)]


def test_no_topic_is_told_as_one_line(embedded_settings: Settings) -> None:
    result = sameas(embedded_settings, "list")
    assert result.exit_code == 1
    assert "does not exist" in result.stderr and "Traceback" not in result.stderr
