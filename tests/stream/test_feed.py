"""Feeding files: what is good goes in, what is not is told with file and line."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from workers import sameas, upserts

from stream.columns import SourceMapping
from stream.config import Settings
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Upsert
from stream.feed import accepted, encode, feed_events, read_files
from stream.subscribe import read_topic

GOOD = '{"op":"upsert","source":"x","id":"1","type":"t"}\n'
DELETE = '{"op":"delete","source":"x","id":"1"}\n'


def test_events_arrive_in_order_with_their_key(settings: Settings) -> None:
    told: list[int] = []
    assert feed_events(settings, upserts(range(4500)), told.append) == 4500
    assert told == [2000, 4000, 4500]
    records = list(read_topic(settings, settings.topics.entities))
    assert [record.key for record in records] == [f"x:{number}".encode() for number in range(4500)]
    assert msgspec.json.decode(records[7].value, type=EntityEvent) == upserts([7])[0]


def test_the_command_refuses_bad_lines_and_feeds_the_others(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    large = json.dumps(
        {"op": "upsert", "source": "x", "id": "2", "type": "t", "attributes": {"a": "x" * 10_000_000}}
    )
    file.write_text(GOOD + "{bad\n" + DELETE + large + "\n" + GOOD)
    options = [
        *("--bootstrap", settings.kafka.bootstrap_servers),
        *("--set", f"topics.entities={settings.topics.entities}"),
    ]
    with sameas("feed", str(file), *options, log=tmp_path / "log") as feed:
        assert feed.wait(30) == 1
        assert re.search(r"events\.jsonl:2: JSON is malformed", feed.text)
        assert re.search(r"events\.jsonl:4: 10,?\d+ bytes", feed.text)
        assert "2 of 5 events were refused" in feed.text
        assert "Traceback" not in feed.text
    assert len(list(read_topic(settings, settings.topics.entities))) == 3
    with sameas("feed", str(file), "--strict", *options, log=tmp_path / "log") as feed:
        assert feed.wait(30) == 1
        assert re.search(r"sameas: error: .*events\.jsonl:2", feed.text)


def test_files_of_a_source(tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("id,title\n1,The Matrix\n,none\n")
    mapping = SourceMapping(file=str(file), id="id", type="film", attributes=["title"])
    settings = Settings(sources={"imdb": mapping})
    first, refusal = read_files(settings, [], "imdb")
    assert first == Upsert("imdb", "1", "film", {"title": "The Matrix"})
    assert isinstance(refusal, InvalidInput)
    assert "films.csv:3" in str(refusal)
    assert next(iter(read_files(settings, [file], "imdb"))) == first
    refused: list[InvalidInput] = []
    assert list(accepted([first, refusal], refused.append, strict=False)) == [first]
    assert refused == [refusal]
    with pytest.raises(InvalidInput):
        list(accepted([first, refusal], refused.append, strict=True))


def test_what_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"no \[sources.other\].*known sources: none"):
        list(read_files(Settings(), [], "other"))
    with pytest.raises(ConfigError, match="nothing to feed"):
        list(read_files(Settings(), [], None))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_files(Settings(), [Path("nowhere.jsonl")], None))
    with pytest.raises(InvalidInput, match=r"x:1: 1,.* bytes"):
        encode(Upsert("x", "1", "t", {"a": "x" * 1_000_000}))
