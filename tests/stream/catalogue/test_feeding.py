"""Feeding files: what is good goes in, what is not is told with file and line."""

import json
import re
import signal
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.account import Account
from stream.catalogue.feeding import feed_events, present_entities
from stream.catalogue.reading import read_files
from stream.catalogue.resuming import FeedProgress
from stream.cli import main
from stream.config import Settings
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Upsert, encode
from stream.mapping.language import SourceMapping
from tests.stream.workers import cli_environment, command, sameas, until, upserts

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
    feed = command(settings, "feed", str(file))
    assert feed.exit_code == 1
    assert "events.jsonl:2: JSON is malformed" in feed.stderr
    assert "events.jsonl:4: longer than 1,000,000 characters" in feed.stderr
    assert "refused 2: 1 malformed, 1 too-large" in feed.stderr
    assert len(list(read_topic(settings, settings.topics.entities))) == 3
    feed = command(settings, "feed", str(file), "--strict")
    assert feed.exit_code == 1
    assert re.search(r"sameas: error: .*events\.jsonl:2", feed.stderr)


def test_a_row_that_is_nested_too_deep_is_refused_with_its_line(tmp_path: Path) -> None:
    file, settings = tmp_path / "films.jsonl", tmp_path / "sameas.toml"
    deep = "[" * 700 + "]" * 700
    file.write_text(f'{{"id": "1", "cast": [{{"name": "A"}}]}}\n{{"id": "2", "cast": {{"name": {deep}}}}}\n')
    settings.write_text('[sources.films]\nid = "id"\nfile = "films.jsonl"\nattributes.cast = "cast.name"\n')
    words = ["feed", "--dry-run", "--config", str(settings), "--source", "films", str(file)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and result.stdout.count("\n") == 1
    assert "films.jsonl:2: lists and objects are nested deeper than 64 (too-deep)" in result.stderr
    result = CliRunner().invoke(main, ["map", str(file)])
    assert result.exit_code == 0 and "1 rows" in result.stderr


def test_files_of_a_source(tmp_path: Path) -> None:
    file = tmp_path / "films.csv"
    file.write_text("id,title\n1,The Matrix\n,none\n")
    mapping = SourceMapping(file=str(file), id="id", type="film", attributes=["title"])
    settings = Settings(sources={"imdb": mapping})
    first, refusal = read_files(settings, [], "imdb", Account())
    assert first == Upsert("imdb", "1", "film", {"title": "The Matrix"})
    assert isinstance(refusal, InvalidInput)
    assert "films.csv:3" in str(refusal)
    assert next(iter(read_files(settings, [file], "imdb", Account()))) == first
    account = Account()
    assert list(account.accepted([first, refusal])) == [first]
    assert account.report().refused == {"bad-id": 1}
    with pytest.raises(InvalidInput):
        list(Account(strict=True).accepted([first, refusal]))


def test_what_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"no \[sources.other\].*known sources: none"):
        list(read_files(Settings(), [], "other", Account()))
    with pytest.raises(ConfigError, match="nothing to feed"):
        list(read_files(Settings(), [], None, Account()))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_files(Settings(), [Path("nowhere.jsonl")], None, Account()))
    with pytest.raises(InvalidInput, match=r"x:1: 1,.* bytes"):
        encode(Upsert("x", "1", "t", {"a": "x" * 1_000_000}))


def canonical(directory: Path, numbers: range, name: str = "events.jsonl") -> Path:
    file = directory / name
    file.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in upserts(numbers)))
    return file


def test_a_dry_run_shows_events_and_refusals_without_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{n},name {n}\n" for n in range(1, 30))
    (tmp_path / "films.csv").write_text(f"id,title\n{rows},no id\n30\n")
    (tmp_path / "sameas.toml").write_text(
        '[sources.imdb]\nfile = "films.csv"\nid = "id"\ntype = "film"\nattributes = ["title"]\n'
    )
    words = ["feed", "--source", "imdb", "--dry-run", "--bootstrap", "127.0.0.1:1"]
    feed = CliRunner().invoke(main, words)
    assert feed.exit_code == 1
    shown = [json.loads(line) for line in feed.stdout.splitlines()]
    assert [event["id"] for event in shown] == [str(n) for n in range(1, 11)]
    assert "refused: films.csv:31: id: the row has no id (bad-id)" in feed.stderr
    assert "refused: films.csv:32: 1 cells under 2 columns (malformed)" in feed.stderr
    assert "29 rows, 29 entities: 29 film; refused 2: 1 bad-id, 1 malformed" in feed.stderr


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["gone.jsonl"], "gone.jsonl cannot be read: No such file or directory"),
        (["--source", "imdb"], "gone.csv cannot be read: No such file or directory"),
        (["--source", "imdb", "films.csv"], "films.csv: no column 'id'; there are 'nr'"),
        (["--source", "other"], "there is no [sources.other] in the settings; known sources: imdb"),
        (["films.csv"], "without a mapping, canonical events in a .jsonl file are expected"),
    ],
)
def test_what_is_wrong_with_the_files_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], message: str
) -> None:
    """Before anybody asks the broker, which is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films.csv").write_text("nr\n1\n")
    (tmp_path / "sameas.toml").write_text('[sources.imdb]\nfile = "gone.csv"\nid = "id"\n')
    runs = [["--dry-run"]]
    if "films.csv" not in files:
        runs.append(["--bootstrap", "127.0.0.1:1"])
    for options in runs:
        feed = CliRunner().invoke(main, ["feed", *files, *options])
        assert feed.exit_code == 1 and message in feed.stderr and feed.stderr.count("\n") == 1


def test_what_is_gone_from_a_full_export_is_deleted(settings: Settings, tmp_path: Path) -> None:
    others = [Upsert("other", "1", "thing"), Upsert("x2", "1", "thing")]
    feed_events(settings, [*upserts(range(10)), *others])
    export = canonical(tmp_path, range(8))
    feed = command(settings, "feed", str(export), "--delete-missing")
    assert feed.exit_code == 0 and "deleted 2 entities" in feed.stderr
    assert set(present_entities(settings)) == {b"other:1", b"x2:1", *(b"x:%d" % n for n in range(8))}
    # a refused line may be the entity that seems to be gone
    export.write_text(canonical(tmp_path, range(4)).read_text() + "{bad\n")
    feed = command(settings, "feed", str(export), "--delete-missing")
    assert feed.exit_code == 1 and "nothing was deleted" in feed.stderr
    assert len(present_entities(settings)) == 10
    export.write_text("")
    feed = command(settings, "feed", str(export), "--delete-missing")
    assert feed.exit_code == 1 and "would delete everything" in feed.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_feed_that_was_interrupted_goes_on(
    embedded_settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    settings = embedded_settings
    count = 60_000
    file, progress = canonical(tmp_path, range(count)), tmp_path / "progress.json"
    words = ["feed", str(file), "--resume", str(progress)]
    with sameas(*words, log=tmp_path / "log", **cli_environment(settings)) as feed:
        until(progress.exists, "progress file", feed)
        feed.process.send_signal(number)
        assert feed.wait() == (-number if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGINT:
        assert re.search(
            r"interrupted by SIGINT; [\d,]+ events are fed; the same command continues", feed.text
        )
    done = json.loads(progress.read_bytes())["events"]
    before = len(list(read_topic(settings, settings.topics.entities)))
    assert 0 < done <= before < count
    again = command(settings, *words)
    assert again.exit_code == 0 and f"continuing after {done:,} events" in again.stderr
    assert not progress.exists()
    keys = [record.key for record in read_topic(settings, settings.topics.entities)]
    assert list(dict.fromkeys(keys)) == [b"x:%d" % n for n in range(count)]
    assert len(keys) == before + count - done


def test_progress_of_another_feed_is_not_taken(embedded_settings: Settings, tmp_path: Path) -> None:
    settings = embedded_settings
    file, progress = canonical(tmp_path, range(3)), tmp_path / "progress.json"
    ensure_topics(settings)
    begun = FeedProgress.begin(settings, [file], None)
    msgspec.structs.replace(begun, events=2).save(progress)
    assert begun.resumed(progress).events == 2
    canonical(tmp_path, range(4))
    with pytest.raises(ConfigError, match="belongs to another feed: files has changed; delete it"):
        FeedProgress.begin(settings, [file], None).resumed(progress)
    for corrupt in (b"{", b'{"events":"\xff"}', b'{"x":' + b"[" * 5000):
        progress.write_bytes(corrupt)
        with pytest.raises(ConfigError, match=r"cannot be read.*delete it"):
            begun.resumed(progress)
    with pytest.raises(ConfigError, match="cannot be written"):
        begun.resumed(tmp_path / "gone" / "progress")
