"""Subscribing: the current alignments and the log, filtered, from anywhere, into a pipe."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from workers import ROOT, produce, sameas

from stream.config import Settings
from stream.errors import BrokerError, ConfigError
from stream.events import AlignmentEvent, AlignmentRecord, Cause, Evidence, alignment_key
from stream.subscribe import Filter, current_alignments, follow, parse_start, read_topic
from stream.topics import ensure_topics

EVERYTHING: dict[str, Any] = {"until_end": True, "start": "beginning", "wanted": Filter(), "as_json": True}


def record(number: int, confidence: float = 0.9, **event: str) -> AlignmentRecord:
    fields: dict[str, Any] = {
        "record_id": f"r{number}",
        "subject_id": f"imdb:{number}",
        "object_id": f"wiki:{number}",
        "mapping_justification": "semapv:SemanticSimilarityThresholdMatching",
        "confidence": confidence,
        "mapping_tool_version": "0",
        "mapping_date": "2026-01-01",
        "revision": 1,
        "model": "m",
        "cause": Cause("t", 0, number),
        "evidence": Evidence(),
    }
    return AlignmentEvent(**fields, **event) if event else AlignmentRecord(**fields)  # type: ignore[arg-type]


def put(settings: Settings, *records: AlignmentRecord | int) -> None:
    """Records into the topic that they belong to; a number withdraws its pair."""
    for one in records:
        if isinstance(one, int):
            pair, value, topic = (f"imdb:{one}", f"wiki:{one}"), None, settings.topics.alignments
        else:
            pair, value = (one.subject_id, one.object_id), msgspec.json.encode(one)
            is_event = isinstance(one, AlignmentEvent)
            topic = settings.topics.alignment_events if is_event else settings.topics.alignments
        produce(settings, topic, [(alignment_key(*pair).encode(), value)])


def subjects(lines: Any) -> list[str]:
    return [json.loads(line)["subject_id"] for line in lines]


def test_current_alignments_are_folded_by_key(settings: Settings) -> None:
    ensure_topics(settings)
    assert current_alignments(settings) == {}
    put(settings, record(1), record(2, 0.8), record(1, 0.95), record(3), 3)
    assert {found.subject_id: found.confidence for found in current_alignments(settings).values()} == {
        "imdb:1": 0.95,
        "imdb:2": 0.8,
    }
    assert subjects(follow(settings, log=False, **EVERYTHING)) == ["imdb:2", "imdb:1"]
    confident = {**EVERYTHING, "wanted": Filter(min_confidence=0.9)}
    assert subjects(follow(settings, log=False, **confident)) == ["imdb:1"]


def test_the_log_from_anywhere_and_filtered(settings: Settings) -> None:
    ensure_topics(settings)
    put(settings, *(record(number, event="aligned", event_id=str(number)) for number in range(5)))

    def numbers(**options: Any) -> list[str]:
        return [name[5:] for name in subjects(follow(settings, log=True, **{**EVERYTHING, **options}))]

    assert numbers() == ["0", "1", "2", "3", "4"]
    assert numbers(start=3) == ["3", "4"]
    assert numbers(start="end") == []
    assert numbers(wanted=Filter(entities=frozenset(["wiki:2"]))) == ["2"]
    assert numbers(wanted=Filter(sources=frozenset(["other"]))) == []
    table = list(follow(settings, log=True, **{**EVERYTHING, "as_json": False}))
    assert len(table) == 6
    assert "aligned" in table[1] and "imdb:0" in table[1]


def test_it_follows_until_told_to_stop(settings: Settings, tmp_path: Path) -> None:
    ensure_topics(settings)
    put(settings, record(1))
    options = [
        *("--bootstrap", settings.kafka.bootstrap_servers),
        *("--set", f"topics.alignments={settings.topics.alignments}"),
    ]
    with sameas("subscribe", *options, log=tmp_path / "log") as subscriber:
        subscriber.wait_for("imdb:1")
        put(settings, 1)
        subscriber.wait_for('"withdrawn":true')
        assert subscriber.end(signal.SIGINT) == 0
        assert subscriber.text.count("\n") == 2  # and no traceback


def test_a_closed_pipe_ends_it_quietly(settings: Settings) -> None:
    ensure_topics(settings)
    produce(
        settings,
        settings.topics.alignments,
        ((f"{n}".encode(), msgspec.json.encode(record(n))) for n in range(2000)),
    )
    command = [sys.executable, "-m", "stream.cli", "subscribe", "-e"]
    options = [
        *("--bootstrap", settings.kafka.bootstrap_servers),
        *("--set", f"topics.alignments={settings.topics.alignments}"),
    ]
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as subscriber:
        assert subscriber.stdout is not None and subscriber.stderr is not None
        assert b"imdb:0" in subscriber.stdout.readline()
        subscriber.stdout.close()
        assert subscriber.stderr.read() == b""
        assert subscriber.wait(30) == 0


def test_a_missing_topic_and_a_wrong_offset(settings: Settings) -> None:
    with pytest.raises(BrokerError, match=r"does not exist at .*has a worker run"):
        list(read_topic(settings, settings.topics.alignments))
    with pytest.raises(ConfigError, match="--offset soon"):
        parse_start("soon")
    assert parse_start("17") == 17
