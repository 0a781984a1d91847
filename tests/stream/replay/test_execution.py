"""Replay: against real topics, interrupted, compared, and refused."""

import json
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from kafka import KafkaProducer

from benchmarks.catalogues import catalogues
from index.errors import StateError
from model.checkpoint import load_model
from stream.broker.ranges import Range, find_ranges, parse_datetime, parse_duration, read_ranges
from stream.broker.reading import read_bounds, read_topic
from stream.broker.topics import delete_topics, ensure_topics, input_specs
from stream.catalogue.feeding import feed_events
from stream.config import Settings, StateSettings
from stream.consuming.alignments import current_alignments
from stream.errors import ConfigError
from stream.events import (
    AlignmentRecord,
    AttributeEvidence,
    Delete,
    Evidence,
    Link,
    NeighbourEvidence,
    alignment_key,
)
from stream.learning.known_links import LinkPair
from stream.mapping.decoder import make_decoder
from stream.replay.comparing import compare
from stream.replay.execution import execute
from stream.replay.page import comparison
from stream.replay.run import Plan, Run, digest, remove_run
from stream.replay.timeline import POINTS, Point
from tests.stream.records import aligned_pair
from tests.stream.workers import Process, cli_environment, command, own_settings, produce, sameas, until

LINKS: list[LinkPair] = [(f"left:f{n}", f"right:f{n}") for n in range(60, 120)]


def feed(settings: Settings, films: int = 120) -> None:
    ensure_topics(settings)
    feed_events(settings, [*catalogues(films), *(Delete(source="left", id=f"f{n}") for n in range(5))])
    verdict = Link(left="left:f9", right="right:f10", verdict="same")
    produce(settings, settings.topics.links, [(b"left:f9|right:f10", msgspec.json.encode(verdict))])


def make_plan(run: Run, checkpoint: Path) -> Plan:
    model_id, model = load_model(checkpoint)
    return Plan(
        since="b",
        until="e",
        model=model_id,
        threshold=model.threshold,
        one_to_one=True,
        links=digest(LINKS),
        sources="",
        ranges=find_ranges(run.settings, None, None),
    )


def replayed(
    settings: Settings, name: str, checkpoint: Path, stops: Callable[[], Callable[[], bool]]
) -> tuple[dict[str, AlignmentRecord], list[Point], int]:
    """The alignments and the points of a run, and in how many sessions it ended."""
    run = Run(settings, name)
    plan = run.agree(make_plan(run, checkpoint))
    decode = make_decoder({}, settings.topics.entities, settings.topics.links)
    for session in range(1, 1000):
        aligner = execute(run, plan, checkpoint, decode, LINKS, stops(), lambda *_: None)
        if aligner is not None:
            aligner.close()
            current = current_alignments(run.settings)
            return {key: dateless(record) for key, record in current.items()}, run.timeline.points, session
    raise AssertionError("no end")


def dateless(record: AlignmentRecord) -> AlignmentRecord:
    return msgspec.structs.replace(record, mapping_date="")


def never() -> Callable[[], bool]:
    return lambda: False


def after(calls: int) -> Callable[[], Callable[[], bool]]:
    """Ends every session when it is asked for the so manyth time."""

    def stops() -> Callable[[], bool]:
        left = iter(range(calls))
        return lambda: next(left, None) is None

    return stops


def unused(settings: Settings, kind: str) -> str:
    """A name whose topics no other test has."""
    return f"{settings.kafka.group_id}-{kind}"


def test_interruptions_leave_no_trace(embedded_settings: Settings, checkpoint: Path) -> None:
    settings = embedded_settings
    feed(settings)
    whole = replayed(settings, unused(settings, "whole"), checkpoint, never)
    assert len(whole[0]) > 100 and len(whole[1]) == POINTS and whole[2] == 1
    assert whole[0]["left:f9|right:f10"].mapping_justification == "semapv:ManualMappingCuration"
    for calls, batch_size in ((9, 37), (5, 30)):
        align = msgspec.structs.replace(settings.align, batch_size=batch_size)
        other = msgspec.structs.replace(settings, align=align)
        pieces = replayed(other, unused(settings, f"pieces{calls}"), checkpoint, after(calls))
        assert pieces[2] > 3
        assert pieces[:2] == whole[:2]


@pytest.mark.slow
def test_kills_leave_no_trace(settings: Settings, checkpoint: Path, tmp_path: Path) -> None:
    feed(settings)
    whole = replayed(settings, unused(settings, "whole"), checkpoint, never)
    name = unused(settings, "killed")
    environment = cli_environment(settings, model__dir=str(checkpoint), align__batch_size="20")
    (tmp_path / "links.csv").write_text("left,right\n" + "".join(f"{a},{b}\n" for a, b in LINKS))
    command = ("replay", "--run", name, "--links", "links.csv", "--execute")
    progress = Run(settings, name).home / "progress.json"
    for kill, point in enumerate((30, 200, 370)):
        with sameas(*command, log=tmp_path / f"{kill}.log", **environment) as running:

            def received(least: int = point) -> bool:
                return progress.exists() and json.loads(progress.read_text())["counts"]["received"] >= least

            until(received, f"{point} messages", running)
            assert running.end(signal.SIGKILL) == -signal.SIGKILL
    with sameas(*command, log=tmp_path / "last.log", **environment) as running:
        assert running.wait() == 0, running.text
    run = Run(settings, name)
    records = {key: dateless(record) for key, record in current_alignments(run.settings).items()}
    assert (records, run.timeline.points) == whole[:2]


@pytest.mark.slow
def test_a_worse_model_is_seen_to_be_worse(
    settings: Settings, checkpoint: Path, worse: Path, tmp_path: Path
) -> None:
    """The third person's way: a worker is running; would the other model be better?"""
    feed(settings)
    environment = cli_environment(settings, model__dir=str(checkpoint))
    (tmp_path / "links.csv").write_text("left,right\n" + "".join(f"{a},{b}\n" for a, b in LINKS))
    reports = {}
    with sameas("run", log=tmp_path / "worker.log", **environment) as worker:
        worker.wait_for("ready: ")
        until(lambda: len(current_alignments(settings)) > 150, "alignments", worker)
        worker.wait_for("is what this state says")
        live_topics = [settings.topics.alignments, settings.topics.alignment_events]
        before = read_bounds(settings, [(topic, 0) for topic in live_topics])
        for name, model in (("same", checkpoint), ("worse", worse)):
            run = unused(settings, name)
            words = ["replay", "--run", run, "--model", str(model), "--links", "links.csv"]
            with sameas(*words, log=tmp_path / f"{name}-plan.log", **environment) as plan:
                assert plan.wait() == 0, plan.text
                assert f"{settings.topics.entities}, partition 0: 0 to 437 (437)" in plan.text
                assert "nothing was done" in plan.text
            directory = tmp_path / f"report-{name}"
            words += ["--execute", "--report", str(directory)]
            with sameas(*words, log=tmp_path / f"{name}.log", **environment) as running:
                assert running.wait() == 0, running.text
                assert "received 438 = applied 438" in running.text
            reports[name] = json.loads((directory / "report.json").read_text())
            page = (directory / "report.html").read_text()
            assert page.count("<svg") == 3
            assert not re.search(r"https?:|src=|href=|url\(|<script|@import", page)
        assert read_bounds(settings, [(topic, 0) for topic in live_topics]) == before
        assert worker.end() == 0

    same, other = reports["same"], reports["worse"]
    assert (same["live"]["new"], same["live"]["gone"], same["live"]["changed"]) == (0, 0, 0)
    assert same["live"]["same"] == same["alignments"] > 150
    for figure in ("f1", "prauc"):
        assert other["quality"][figure] < same["quality"][figure] - 0.02
        assert other["quality"]["by_type"]["film"][figure] < same["quality"]["by_type"]["film"][figure]
    assert other["timeline"][-1]["f1"] < same["timeline"][-1]["f1"]
    assert [point["position"] for point in same["timeline"]][-1] == 438
    assert other["live"]["gone_right"] + other["live"]["new_wrong"] > 0
    assert other["live"]["largest"]["gone"][0]["evidence_before"]["attributes"]
    names = [unused(settings, "same"), unused(settings, "worse")]
    with sameas("replay", "diff", *names, "--json", log=tmp_path / "diff.log", **environment) as diff:
        assert diff.wait() == 0
        changes = [json.loads(line)["change"] for line in diff.text.splitlines()]
    assert changes.count("gone") == other["live"]["gone"]
    assert changes.count("changed") == other["live"]["changed"]


def test_a_run_is_claimed_by_its_first_command(
    embedded_settings: Settings, checkpoint: Path, worse: Path
) -> None:
    settings = embedded_settings
    feed(settings, films=10)
    name = unused(settings, "run")
    run = Run(settings, name)
    plan = make_plan(run, checkpoint)
    decode = make_decoder({}, settings.topics.entities, settings.topics.links)
    aligner = execute(run, plan, checkpoint, decode, LINKS, lambda: False, lambda *_: None)
    assert aligner is not None
    with closing(aligner):
        with pytest.raises(StateError, match="in use by process"):
            execute(run, plan, checkpoint, decode, LINKS, lambda: False, lambda *_: None)
        with pytest.raises(StateError, match="in use by process"):
            remove_run(run)
    for changed in (
        msgspec.structs.replace(plan, model=load_model(worse)[0]),
        msgspec.structs.replace(plan, threshold=0.9),
        msgspec.structs.replace(plan, since="2026-01-01"),
    ):
        with pytest.raises(ConfigError, match=f"run {name} was started with .*`sameas replay remove {name}`"):
            run.agree(changed)
    later = msgspec.structs.replace(plan, ranges=[], links="others, as it is finished")
    assert run.agree(later) == plan
    # its state is gone, its topics are not
    (run.home / "run.json").rename(run.home / "run.json.away")
    with pytest.raises(StateError, match="has records of another run"):
        execute(run, plan, checkpoint, decode, LINKS, lambda: False, lambda *_: None)
    assert len(remove_run(run)) == 4 and not run.home.exists()
    assert replayed(settings, name, checkpoint, never)[0]


def test_an_interrupted_run_goes_on_with_the_same_topics_only(
    embedded_settings: Settings, checkpoint: Path
) -> None:
    settings = embedded_settings
    feed(settings, films=10)
    run = Run(settings, unused(settings, "run"))
    plan = make_plan(run, checkpoint)
    decode = make_decoder({}, settings.topics.entities, settings.topics.links)
    assert execute(run, plan, checkpoint, decode, [], after(2)(), lambda *_: None) is None
    links = [spec for spec in input_specs(settings) if spec.role == "links"]
    delete_topics(settings, links)
    with pytest.raises(StateError, match=rf"{settings.topics.links}, which run {run.name} .* not exist"):
        execute(run, plan, checkpoint, decode, [], lambda: False, lambda *_: None)
    ensure_topics(settings, links)
    with pytest.raises(StateError, match=rf"{settings.topics.links} is not the one .*`sameas replay remove"):
        execute(run, plan, checkpoint, decode, [], lambda: False, lambda *_: None)


def test_the_end_is_fixed_at_the_start(embedded_settings: Settings, checkpoint: Path) -> None:
    settings = embedded_settings
    feed(settings, films=10)
    run = Run(settings, unused(settings, "run"))
    plan = make_plan(run, checkpoint)
    feed_events(settings, [Delete(source="left", id=f"p{n}") for n in range(96)])
    decode = make_decoder({}, settings.topics.entities, settings.topics.links)
    aligner = execute(run, plan, checkpoint, decode, [], lambda: False, lambda *_: None)
    assert aligner is not None and not run.timeline.points
    with closing(aligner):
        assert aligner.exist(["left:p3"]) == [True]
        assert run.progress.counts.received == plan.messages


def timed(settings: Settings) -> Settings:
    """The settings with three partitions, and a message a second in one after the other."""
    topics = msgspec.structs.replace(settings.topics, partitions=3)
    settings = msgspec.structs.replace(settings, topics=topics)
    ensure_topics(settings)
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for number in range(60):
        producer.send(
            topics.entities,
            key=b"%d" % number,
            partition=number % 3,
            timestamp_ms=1_700_000_000_000 + number * 1000,
        )
    producer.close(timeout=10)
    return settings


def keys(settings: Settings, ranges: list[Range]) -> list[int]:
    return [int(message.key or b"") for message in read_ranges(settings, ranges)]


def test_partitions_are_merged_by_time(settings: Settings) -> None:
    settings = timed(settings)
    assert keys(settings, find_ranges(settings, None, None)) == list(range(60))
    topic = settings.topics.entities
    assert keys(settings, [Range(topic, 1, 5, 7), Range(topic, 2, 4, 4)]) == [16, 19]
    assert keys(settings, []) == []


def test_a_range_between_two_dates(apache_kafka: dict[str, Any], tmp_path: Path) -> None:
    settings = timed(own_settings(apache_kafka["plaintext"], tmp_path))
    since, until = (parse_datetime("", text) for text in ("2023-11-14T22:13:30", "2023-11-14T23:14:00+01:00"))
    assert keys(settings, find_ranges(settings, since, until)) == list(range(10, 40))
    assert keys(settings, find_ranges(settings, parse_datetime("", "2199-01-01"), None)) == []


def test_durations_and_dates() -> None:
    assert parse_duration("", "PT6H").total_seconds() == 21_600
    assert parse_duration("", "P1DT30M5S").total_seconds() == 88_205
    for wrong in ("", "P", "PT", "6h", "PT6", "P6H", "-PT6H"):
        with pytest.raises(ConfigError, match=r"write it as PT6H"):
            parse_duration("--by-duration", wrong)
    for wrong in ("P5000000D", "P9999999999D", "PT9999999999999999999H", f"P{'9' * 5000}D"):
        with pytest.raises(ConfigError, match=rf"--by-duration {wrong[:9]}.*: too long"):
            parse_duration("--by-duration", wrong)
    assert datetime.now(UTC) - parse_duration("", "P365000D")
    with pytest.raises(ConfigError, match="--from-datetime yesterday: no date"):
        parse_datetime("--from-datetime", "yesterday")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--execute"], "give the run a name with --run NAME"),
        (["--run", "a.b"], "--run a.b: up to 64 letters"),
        (["--run", "live"], "--run live: "),
        (["--run", "a", "--report", "r"], "--report needs --execute"),
        (["--run", "a", "--by-duration", "6h"], "--by-duration 6h: no duration"),
        (["--run", "a", "--from-datetime", "2026-13-01"], "--from-datetime 2026-13-01: no date"),
        (["--run", "a", "--from-beginning", "--by-duration", "PT1H"], "one of --from-beginning"),
        (["--run", "a", "--links", "none.csv"], "none.csv"),
        (["--run", "a", "--model", "nowhere"], "nowhere: no model.json"),
        (["--run", "a"], "does not exist at 127.0.0.1"),
        (["--run", "a", "--from-datetime", "2026-02-01", "--to-datetime", "2026-01-01"], "is not after"),
        (["diff", "a", "live"], "topic sameas.replay.a.alignments does not exist"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: Sequence[str],
    message: str,
    embedded_settings: Settings,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = invoke(embedded_settings, checkpoint, *words)
    assert outcome.exit_code == 1
    last = outcome.stderr.splitlines()[-1]
    assert "Z sameas: error: " in last and message in last


def invoke(settings: Settings, checkpoint: Path, *words: str) -> Result:
    """`sameas replay` in this process."""
    return command(settings, "replay", *words, model__dir=str(checkpoint))


@pytest.mark.parametrize("corrupt", [b"garbage", b'{"x":"\xff"}', b'{"x":' + b"[" * 5000])
def test_corrupt_files_of_a_run_are_told(corrupt: bytes, tmp_path: Path) -> None:
    run = Run(Settings(state=StateSettings(dir=tmp_path / "state")), "a")
    run.home.mkdir(parents=True)
    for name, read in (
        ("run.json", lambda: run.plan),
        ("progress.json", lambda: run.progress),
        ("timeline.jsonl", lambda: run.timeline),
    ):
        (run.home / name).write_bytes(corrupt)
        with pytest.raises(StateError, match=rf"{name}: .*`sameas replay remove` forgets"):
            read()


def test_what_cannot_be_written_is_told_in_one_line(
    embedded_settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    feed(embedded_settings, films=2)
    words = ["--run", unused(embedded_settings, "run"), "--execute"]
    nowhere = tmp_path / "replay"  # root may write everywhere, but not through a link to nothing
    nowhere.symlink_to(tmp_path / "gone")
    outcome = invoke(embedded_settings, checkpoint, *words, "--report", str(nowhere / "report"))
    assert outcome.exit_code == 1
    assert f"error: --report {nowhere}/report: cannot be written: " in outcome.stderr
    outcome = invoke(embedded_settings, checkpoint, *words)
    assert outcome.exit_code == 1
    assert f": {nowhere}: File exists; runs are kept beside state.dir" in outcome.stderr


def test_a_disk_that_refuses_a_runs_files_is_told(tmp_path: Path) -> None:
    run = Run(Settings(state=StateSettings(dir=tmp_path / "state")), "a")
    (run.home / "progress.json.partial").mkdir(parents=True)
    with pytest.raises(StateError, match=r"run a: .*progress\.json\.partial: Is a directory; runs are kept"):
        run.save("progress.json", run.progress)
    timeline = run.timeline
    (run.home / "timeline.jsonl.partial").mkdir()
    with pytest.raises(StateError, match=r"timeline\.jsonl cannot be written: Is a directory"):
        timeline.add(Point(position=1, time=0.0, aligned=0, links=0, correct=0, wrong=0))


def test_nothing_in_the_range(embedded_settings: Settings, checkpoint: Path) -> None:
    feed(embedded_settings, films=2)
    outcome = invoke(embedded_settings, checkpoint, "--run", "x", "--from-datetime", "2199-01-01")
    assert outcome.exit_code == 1
    assert "there are no messages from 2199-01-01 to the end" in outcome.stderr
    outcome = invoke(embedded_settings, checkpoint, "--run", "x", "--to-datetime", "1969-07-20")
    assert outcome.exit_code == 1
    assert "there are no messages from the beginning to 1969-07-20" in outcome.stderr
    for words in (["--from-datetime", "0001-01-01"], ["--by-duration", "P365000D"]):
        outcome = invoke(embedded_settings, checkpoint, "--run", "x", *words)
        assert outcome.exit_code == 0 and f"from {words[1]} to the end, 202 offsets" in outcome.stderr
    outcome = invoke(embedded_settings, checkpoint, "--run", "x", "--by-duration", "PT1H")
    assert outcome.exit_code == 0 and "from PT1H to the end, 202 offsets" in outcome.stderr


def test_an_interrupt_says_how_to_go_on(
    embedded_settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    feed(embedded_settings)
    environment = cli_environment(embedded_settings, model__dir=str(checkpoint), align__batch_size="1")
    words = ["replay", "--run", unused(embedded_settings, "int"), "--execute"]

    def begun(running: Process) -> Any:
        return running.wait_for(r"replaying \d+ of 438")

    with sameas(*words, log=tmp_path / "log", **environment) as running:
        begun(running)
        assert running.end(signal.SIGINT) == 130
        assert "the same command continues" in running.text and "Traceback" not in running.text
    with sameas(*words, log=tmp_path / "again", **environment) as running:
        running.wait_for("started already, continues")
        begun(running)
        assert running.end(signal.SIGTERM) == 143


def test_letters_of_a_run_are_its_own(embedded_settings: Settings, checkpoint: Path) -> None:
    settings = embedded_settings
    feed(settings, films=2)
    produce(settings, settings.topics.entities, [(b"k", b"{" + b"x" * 200_000), (b"k" * 200_000, None)])
    name = unused(settings, "letters")
    replayed(settings, name, checkpoint, never)
    letter, tombstone = read_topic(settings, Run(settings, name).settings.topics.dead_letters)
    assert len(letter.value) == 100_000
    assert len(tombstone.key) == 100_000 and tombstone.value is None
    assert dict(letter.headers)["truncated_from_bytes"] == b"200001"
    assert list(read_topic(settings, settings.topics.dead_letters)) == []


def record(left: int, right: int, confidence: float, evidence: Evidence | None = None) -> AlignmentRecord:
    return aligned_pair(f"a:{left}", f"b:{right}", confidence=confidence, evidence=evidence or Evidence())


def test_the_evidence_of_forged_records_makes_no_large_report() -> None:
    """Those of a worker are shown whole."""
    for size in (1_000, 400_000):
        text = "x" * size
        attribute = AttributeEvidence(text, text, text, ["y" * (size // 2), "z"], 0.5)
        neighbour = NeighbourEvidence(text, f"a:{text}", text, f"b:{text}", 0.5)
        evidence = Evidence([attribute] * (size // 200), [neighbour] * (size // 200))
        found = compare({}, {"a:1|b:1": record(1, 1, 0.9, evidence)}).to_json(50)
        shown = found["largest"]["new"][0]["evidence_after"]
        assert len(json.dumps(found)) < 60_000 and len(comparison(found)) < 60_000
        assert (shown == msgspec.to_builtins(evidence)) == (size == 1_000)


def test_diff_knows_right_from_wrong() -> None:
    def keyed(*records: AlignmentRecord) -> dict[str, AlignmentRecord]:
        return {alignment_key(one.subject_id, one.object_id): one for one in records}

    before = keyed(record(1, 1, 0.9), record(2, 2, 0.5), record(3, 4, 0.8), record(9, 9, 0.7))
    after_ = keyed(record(1, 1, 0.9), record(2, 2, 0.6), record(3, 3, 0.7), record(8, 8, 0.7))
    found = compare(before, after_, [("b:3", "a:3"), ("a:1", "b:1")]).to_json()
    assert {name: found[name] for name in ("same", "new", "gone", "changed")} == {
        "same": 1,
        "new": 2,
        "gone": 2,
        "changed": 1,
    }
    assert (found["new_right"], found["new_wrong"], found["gone_right"], found["gone_wrong"]) == (1, 0, 0, 0)
    assert [one["link"] for one in found["largest"]["new"]] == [True, None]
