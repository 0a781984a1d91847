"""Subscribing: the current alignments and the log, filtered, from anywhere, into a pipe."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyoxigraph
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import present_entities
from stream.catalogue.rows import read_rows
from stream.cli import main
from stream.config import Settings
from stream.console import printable
from stream.consuming.alignments import Filter, current_alignments, decode_record, follow, parse_start
from stream.consuming.export import n_triples, sssom
from stream.errors import BrokerError, ConfigError, InvalidInput
from stream.events import AlignmentEvent, AlignmentRecord, Cause, alignment_key
from stream.mapping.language import SourceMapping, is_absolute
from stream.worker.alignment_topic import Published
from tests.stream.records import aligned_pair
from tests.stream.workers import ROOT, cli_environment, command, produce, sameas

EVERYTHING: dict[str, Any] = {"until_end": True, "start": "beginning", "wanted": Filter(), "as_json": True}


def record(number: int, confidence: float = 0.9, **event: str) -> AlignmentRecord:
    kind = "film" if number % 2 else "person"
    found = aligned_pair(
        f"imdb:{number}",
        f"wiki:{number}",
        record_id=f"r{number}",
        subject_category=kind,
        object_category=kind,
        confidence=confidence,
        cause=Cause("t", 0, number),
    )
    return AlignmentEvent(**msgspec.structs.asdict(found), **event) if event else found  # type: ignore[arg-type]


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


def test_garbage_in_a_topic_ends_nothing(embedded_settings: Settings) -> None:
    settings = embedded_settings
    garbage = [(b"1", b"x"), (b"2", b'{"x":"\xff"}'), (b"3", b'{"x":' + b"[" * 5000)]
    ensure_topics(settings)
    for topic in (settings.topics.alignments, settings.topics.entities):
        produce(settings, topic, garbage)
    published = Published(settings, 1)
    published.read()
    outputs = published.differences([(b"2", msgspec.json.encode(record(2)))])
    assert [output.key for output in outputs] == [b"2", b"1", b"3"]
    assert set(present_entities(settings)) == {b"1", b"2", b"3"}
    for found in read_topic(settings, settings.topics.alignments):
        with pytest.raises(InvalidInput, match=rf"partition 0, offset {found.offset}: "):
            decode_record(found)


# one after the other what it says, with the key of a pair, and the key and value of each record
HOSTILE_RECORDS: list[tuple[str, bytes | None, bytes | None]] = [
    ("garbage", b"imdb:11|wiki:11", b"x"),
    ("nothing", b"imdb:12|wiki:12", b""),
    ("another pair's key", b"imdb:13|wiki:13", msgspec.json.encode(record(3))),
    ("a key that is no UTF-8", b"\xff|wiki:14", msgspec.json.encode(record(14))),
    ("no key", None, msgspec.json.encode(record(15))),
    ("an id without a source", b"16|wiki:16", msgspec.json.encode(record(16)).replace(b"imdb:16", b"16")),
    ("a score of 7", b"imdb:17|wiki:17", msgspec.json.encode(record(17, 7.0))),
    ("deep", b"imdb:18|wiki:18", b'{"x":' + b"[" * 5000),
    (
        "no UTF-8 in a field of its own",
        b"imdb:19|wiki:19",
        msgspec.json.encode(record(19))[:-1] + b',"x":"\xff"}',
    ),
]
READERS = [
    *("subscribe -e --json", "subscribe -e --json --source imdb", "subscribe --sssom", "subscribe --rdf"),
    *("replay diff live live --json", "replay diff live live"),
]


@pytest.mark.parametrize("words", READERS)
def test_records_that_are_none_are_skipped_and_told_once(embedded_settings: Settings, words: str) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    put(settings, record(1))
    produce(settings, settings.topics.alignments, [(b"imdb:2|wiki:2", b"garbage"), (b"\xff\xfe", None)])
    put(settings, record(2))  # takes its place
    produce(settings, settings.topics.alignments, [(key, value) for _, key, value in HOSTILE_RECORDS])
    result = command(settings, *words.split())
    assert result.exit_code == 0, result.stderr
    if "diff" not in words:
        assert result.stdout.count("imdb:1") == result.stdout.count("imdb:2") == 1
    topic = settings.topics.alignments
    warnings = [line for line in result.stderr.splitlines() if "warning" in line]
    assert f"skipped a record that is none: {topic}, partition 0, offset 4: " in warnings[0]
    assert f"skipped {len(HOSTILE_RECORDS)} records in all" in warnings[1]
    result = command(settings, *words.split(), "--strict")
    assert result.exit_code == 1
    assert f"error: {topic}, partition 0, offset 4: " in result.stderr


@pytest.mark.parametrize(
    ("key", "value"), [one[1:] for one in HOSTILE_RECORDS], ids=[one[0] for one in HOSTILE_RECORDS]
)
def test_who_follows_is_not_stopped(
    embedded_settings: Settings, key: bytes | None, value: bytes | None
) -> None:
    """By what no record is, by a tombstone of no pair, in the topic and in the log."""
    settings = embedded_settings
    ensure_topics(settings)
    for log, topic in ((False, settings.topics.alignments), (True, settings.topics.alignment_events)):
        lines = follow(settings, log=log, **{**EVERYTHING, "until_end": False})
        one, other = (
            record(number, event="aligned", event_id="1") if log else record(number) for number in (1, 2)
        )
        put(settings, one)
        assert subjects([next(lines)]) == ["imdb:1"]
        produce(settings, topic, [(key, value), (b"imdb", None)])
        put(settings, other)
        assert subjects([next(lines)]) == ["imdb:2"]
        lines.close()


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
    assert numbers(wanted=Filter(types=frozenset(["film"]))) == ["1", "3"]
    table = list(follow(settings, log=True, **{**EVERYTHING, "as_json": False}))
    assert len(table) == 6
    assert "aligned" in table[1] and "imdb:0" in table[1]


def test_it_follows_until_told_to_stop(settings: Settings, tmp_path: Path) -> None:
    ensure_topics(settings)
    put(settings, record(1))
    with sameas("subscribe", log=tmp_path / "log", **cli_environment(settings)) as subscriber:
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
        ((f"imdb:{n}|wiki:{n}".encode(), msgspec.json.encode(record(n))) for n in range(2000)),
    )
    with subprocess.Popen(
        [sys.executable, "-m", "sameas_command", "subscribe", "-e"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **cli_environment(settings)},
    ) as subscriber:
        assert subscriber.stdout is not None and subscriber.stderr is not None
        assert b"imdb:0" in subscriber.stdout.readline()
        subscriber.stdout.close()
        assert subscriber.stderr.read() == b""
        assert subscriber.wait() == 0


def test_a_missing_topic_and_a_wrong_offset(settings: Settings) -> None:
    with pytest.raises(BrokerError, match=r"does not exist at .*has a worker run"):
        list(read_topic(settings, settings.topics.alignments))
    with pytest.raises(ConfigError, match="--offset soon"):
        parse_start("soon")
    with pytest.raises(ConfigError, match=r"--offset 2026-02-30: .* or a date such as"):
        parse_start("2026-02-30")
    assert parse_start("17") == 17
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_start("2026-01-31T12:00") == parse_start("2026-01-31T13:00+01:00") == noon


def test_from_a_date_on(settings: Settings) -> None:
    ensure_topics(settings)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=ago) for ago in (4, 3, 2, 1, 0)]  # the topic forgets what is a month old
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for number, moment in enumerate(days[1:4]):
        value = msgspec.json.encode(record(number, event="aligned", event_id="e"))
        stamp = int(moment.timestamp() * 1000)
        producer.send(settings.topics.alignment_events, value, b"k", timestamp_ms=stamp).get(timeout=20)
    producer.close(timeout=5)

    def since(text: str) -> list[str]:
        return subjects(follow(settings, log=True, **{**EVERYTHING, "start": parse_start(text)}))

    assert since(f"{days[0]:%Y-%m-%d}") == ["imdb:0", "imdb:1", "imdb:2"]
    assert since(f"{days[2]:%Y-%m-%d}") == ["imdb:1", "imdb:2"]
    assert since(f"{days[2]:%Y-%m-%d}T00:00:01") == ["imdb:2"]
    assert since(f"{days[4]:%Y-%m-%d}") == []


def test_a_withdrawn_pair_has_the_names_that_were_aligned(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    ids = ("imdb:a%7Cb|c", "wiki:%257C")
    one = msgspec.structs.replace(record(1), subject_id=ids[0], object_id=ids[1])
    options = {**EVERYTHING, "until_end": False, "wanted": Filter(entities=frozenset(ids[:1]))}
    put(embedded_settings, one)
    lines = follow(embedded_settings, log=False, **options)
    next(lines)
    produce(embedded_settings, embedded_settings.topics.alignments, [(alignment_key(*ids).encode(), None)])
    assert json.loads(next(lines)) == {"subject_id": ids[0], "object_id": ids[1], "withdrawn": True}


def test_a_pair_that_falls_below_the_filter_is_withdrawn(embedded_settings: Settings) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    put(settings, record(1), record(3, 0.5), record(2))
    wanted = Filter(min_confidence=0.8, types=frozenset(["film"]))
    lines = follow(settings, log=False, until_end=False, start="beginning", wanted=wanted, as_json=True)
    assert json.loads(next(lines))["subject_id"] == "imdb:1"
    put(settings, 2, 3, record(1, 0.7), record(1, 0.6), record(1, 0.9), 1, record(5))
    found = [json.loads(next(lines)) for _ in range(4)]
    assert [(line["subject_id"], line.get("withdrawn")) for line in found] == [
        ("imdb:1", True),  # below
        ("imdb:1", None),  # above again
        ("imdb:1", True),  # gone
        ("imdb:5", None),
    ]
    lines.close()


@pytest.mark.parametrize("entity", ["tt0133093", ":1", "imdb:", "im db:1"])
def test_an_entity_is_named_with_its_source(entity: str) -> None:
    result = CliRunner().invoke(main, ["subscribe", "--entity", entity])
    assert result.exit_code == 1
    assert f"Z sameas: error: --entity {entity}: " in result.stderr and result.stderr.count("\n") == 1


AWKWARD = ["tt1", "http://x/Amelie", "//x", 'person/S. "W" |%\t[x]', "Amélie_(film)", "a#b?c", "50%20off"]


def awkward(sources: dict[str, SourceMapping]) -> tuple[Settings, list[AlignmentRecord]]:
    pairs = [(f"9x:{one}", f"dbpedia:{other}") for one in AWKWARD for other in AWKWARD]
    records = [
        msgspec.structs.replace(
            record(number), subject_id=pair[0], object_id=pair[1], record_id=f"sameas:{number}"
        )
        for number, pair in enumerate(pairs)
    ]
    return Settings(sources=sources), records


DBPEDIA = {"dbpedia": SourceMapping(topic="t", id="id", iri="http://dbpedia.org/resource/")}


def printed(rows: Iterable[Sequence[str]]) -> list[str]:
    return ["\t".join(map(printable, cells)) for cells in rows]


def test_rdf_is_rdf_and_pairs_stay_apart() -> None:
    lines = printed(n_triples(*awkward({})))
    triples = list(pyoxigraph.parse("\n".join(lines), pyoxigraph.RdfFormat.N_TRIPLES))
    assert len(set(triples)) == len(AWKWARD) ** 2
    last = printed(n_triples(*awkward(DBPEDIA)))[AWKWARD.index("Amélie_(film)")]
    assert last.startswith("<urn:sameas:9x:tt1> <http://www.w3.org/2002/07/owl#sameAs> ")
    assert last.endswith(" <http://dbpedia.org/resource/Amélie_(film)> .")


def named_by_sssom(lines: list[str]) -> list[tuple[str, str]]:
    """The IRIs of each pair: CURIEs expanded with the prefixes that the file itself declares."""
    prefixes = dict(
        json.loads(f"[{line[3:].replace(': ', ', ', 1)}]") for line in lines if line.startswith("#  ")
    )
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]

    def expanded(name: str) -> str:
        prefix, _, local = name.partition(":")
        return name if local.startswith("//") or prefix not in prefixes else prefixes[prefix] + local

    return [(expanded(row[1]), expanded(row[4])) for row in rows]


def named_by_rdf(lines: list[str]) -> list[tuple[str, str]]:
    triples = pyoxigraph.parse("\n".join(lines), pyoxigraph.RdfFormat.N_TRIPLES)
    return [(triple.subject.value, triple.object.value) for triple in triples]


IRIS = st.text("abé橋/:?%&'(),.~\xa0\u200d\U0001f600", min_size=1).map(lambda text: text.replace("%", "%25"))


@given(
    st.lists(IRIS, min_size=1, max_size=4), st.sampled_from(["http://fr.example.org/resource/", "http://x/a"])
)
def test_both_exports_name_an_entity_as_its_file_does(ends: list[str], iri: str) -> None:
    """Also where the IRI is not the source's own, or its end looks like one."""
    iris = {f"{start}{end}" for end in ends for start in (iri, f"{iri}http://y/", "http://y/", "urn:x:")}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.nt"
        path.write_text("".join(f'<{name}> <http://p/name> "x" .\n' for name in sorted(iris)))
        rows = [row for _, row in read_rows(path, iri=iri)]
    ids = [f"fr:{row['@id']}" for row in rows if not isinstance(row, InvalidInput)]
    records = [msgspec.structs.replace(record(1), subject_id=name) for name in ids]
    settings = Settings(sources={"fr": SourceMapping(topic="t", id="id", iri=iri)})
    assert {left for left, _ in named_by_rdf(printed(n_triples(settings, records)))} == iris
    assert {left for left, _ in named_by_sssom(printed(sssom(settings, records)))} == iris


@given(
    st.lists(st.tuples(st.sampled_from(["a", "9x", "_9x", "owl", "_owl"]), st.text(min_size=1) | IRIS)),
    st.sampled_from([None, "http://x/", "http://x/#"]),
)
def test_both_exports_agree_whatever_the_ids_are(names: list[tuple[str, str]], iri: str | None) -> None:
    mapping = SourceMapping(topic="t", id="id", iri=iri)
    settings = Settings(sources={"a": mapping})
    records = [msgspec.structs.replace(record(1), subject_id=f"{source}:{name}") for source, name in names]
    rdf = named_by_rdf(printed(n_triples(settings, records)))
    assert sorted(rdf) == sorted(named_by_sssom(printed(sssom(settings, records))))
    assert all("\t" not in line or line.count("\t") == 10 for line in printed(sssom(settings, records)))
    urns = {left for left, _ in rdf if left.startswith(("urn:sameas:9x", "urn:sameas:_", "urn:sameas:owl"))}
    assert len(urns) == len({one for one in names if one[0] != "a" and not is_absolute(one[1])})


def test_sssom_is_what_the_sssom_package_takes(tmp_path: Path) -> None:
    validator = next(
        (
            path
            for path in (Path(sys.executable).with_name("sssom"), ROOT / ".venv-sssom" / "bin" / "sssom")
            if path.exists()
        ),
        None,
    )
    settings, records = awkward(DBPEDIA)
    ascii_only = [one for one in records if one.object_id.isascii()]  # the package knows no other IRIs
    lines = printed(sssom(settings, ascii_only))
    assert '#  "dbpedia": "http://dbpedia.org/resource/"' in lines
    assert len({line.split("\t")[1] + line.split("\t")[4] for line in lines[9:]}) == len(ascii_only)
    if validator is None:
        pytest.skip("no sssom: `make sssom` installs it beside the project")
    path = tmp_path / "pairs.sssom.tsv"
    path.write_text("\n".join(lines) + "\n")
    found = subprocess.run([validator, "validate", path], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    # what it does not understand it leaves out, and only warns
    parsed = tmp_path / "parsed.tsv"
    command: list[str | Path] = [validator, "parse", path, "-o", parsed]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "not well-formed" not in found.stderr, found.stderr
    rows = [line for line in parsed.read_text().splitlines() if not line.startswith("#")]
    assert len(rows) == 1 + len(ascii_only)


def test_a_hostile_record_makes_no_column_row_or_formula() -> None:
    hostile = msgspec.structs.replace(
        record(1),
        record_id="r\t1",
        subject_id="=cmd:1|calc",
        subject_category="=cmd|' /C calc'!A1",
        object_category='a\tb\r\nc "d"',
        object_id="wiki:\u202e\t=1",
        mapping_tool="+1",
        mapping_tool_version="\x1b[2J",
        mapping_date="  @SUM(A1)",
        mapping_justification="-1",
    )
    with pytest.raises(InvalidInput, match="source '=cmd'"):
        list(sssom(Settings(), [hostile]))  # which `decode_record` does not let through
    hostile = msgspec.structs.replace(hostile, subject_id="-c:1|calc")
    *_, slots, cells = sssom(Settings(), [hostile])
    assert len(cells) == len(slots) and not any(re.search(r"[\t\r\n\"]", cell) for cell in cells)
    assert not any(re.match(r"\s*[=+\-@]", cell) for cell in cells)
    found = dict(zip(slots, cells, strict=True))
    assert found["subject_category"] == "'=cmd|' /C calc'!A1" and found["object_category"] == "a b c 'd'"
    assert found["subject_id"] == "_-c:1%7Ccalc" and found["object_id"] == "wiki:%E2%80%AE%09=1"
    [[triple]] = n_triples(Settings(), [hostile])
    assert "\u202e" not in triple and "%E2%80%AE%09=1" in triple


@pytest.mark.parametrize(
    ("words", "warns"), [("-o 0", True), ("-o 2026-01-01", True), ("--events -o 0", False), ("", False)]
)
def test_a_reader_that_goes_on_is_warned_of_tombstones_that_expired(
    embedded_settings: Settings, words: str, warns: bool
) -> None:
    ensure_topics(embedded_settings)
    result = command(embedded_settings, "subscribe", "-e", *words.split())
    assert result.exit_code == 0
    assert ("may not be shown as withdrawn, as tombstones expire" in result.stderr) == warns


def test_exports_are_of_the_current_alignments(embedded_settings: Settings, tmp_path: Path) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    put(settings, record(1), record(2), record(3, 0.5), 2)
    result = command(settings, "subscribe", "--sssom")
    assert result.exit_code == 0
    rows = [line.split("\t")[1] for line in result.stdout.splitlines() if not line.startswith("#")]
    assert rows == ["subject_id", "imdb:1", "imdb:3"]
    result = command(settings, "subscribe", "--rdf", "--min-confidence", ".8")
    assert result.stdout.startswith("<urn:sameas:imdb:1> <http://") and result.stdout.count("\n") == 1
    result = command(settings, "subscribe", "--rdf", "--events")
    assert result.exit_code == 1 and "leave out --events" in result.stderr
