"""The demo: its parts, and the small one from beginning to end as a user runs it."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from index.errors import SameasError
from stream.demo.airports import LEFT, NAME_COLUMN, RIGHT, SMALL_COUNTRY, Accuracy, make_scenario
from stream.demo.child import in_child
from stream.demo.figures import Act, Figures
from stream.demo.listener import Heard
from stream.demo.measuring import peak_memory, percentile
from stream.demo.play import CHANGES_PER_SECOND, interleaved, paced, run_demo
from stream.demo.text import describe_changes, print_figures, show_alignments
from stream.demo.worker_process import worker_process
from stream.errors import ConfigError
from stream.events import AttributeEvidence, Cause, Evidence, NeighbourEvidence, Upsert
from stream.mapping.language import SourceMapping
from tests.stream.records import aligned_pair
from tests.stream.workers import lives, sameas, until

FIGURES = Figures(
    f1=0.96,
    precision=0.97,
    recall=0.95,
    retrieval_recall=0.99,
    prauc=0.98,
    training_links=10,
    test_links=20,
    entities=100,
    entities_per_second=1_234.5,
    p50_ms=12.3,
    p99_ms=45.6,
    aligned=30,
    revised=2,
    withdrawn=1,
    seconds=9.9,
    peak_rss_mb=500.0,
)


def events(source: str, count: int) -> list[Upsert]:
    return [Upsert(source, str(number), "t") for number in range(count)]


def test_streams_are_interleaved_and_end_together() -> None:
    long, short = events("a", 30), events("b", 10)
    merged = list(interleaved([long, short, []]))
    assert [e for e in merged if e.source == "a"] == long
    assert [e for e in merged if e.source == "b"] == short
    assert [sum(e.source == "b" for e in merged[:n]) for n in (4, 20, 40)] == [1, 5, 10]


def test_changes_are_paced() -> None:
    started = time.monotonic()
    assert len(list(paced(events("a", 13)))) == 13
    assert time.monotonic() - started >= 12 / CHANGES_PER_SECOND


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected
    assert percentile([7.0], share) == 7.0


def test_the_memory_of_processes_is_added_up() -> None:
    one = peak_memory([os.getpid()])
    assert 10 < one < 100_000
    assert peak_memory([os.getpid(), os.getpid()]) == pytest.approx(2 * one, rel=0.1)
    assert peak_memory([]) == 0


def test_an_act_counts_what_was_heard() -> None:
    heard = [Heard(event, Cause("t", 0, 1), 0.0) for event in ("aligned", "revised", "aligned")]
    act = Act(3, 1.0, heard)
    assert [act.count(event) for event in ("aligned", "revised", "withdrawn")] == [2, 1, 0]


def test_the_figures_are_printed_beside_the_baselines(capsys: pytest.CaptureFixture[str]) -> None:
    print_figures(FIGURES, {"same name": Accuracy(1.0, 0.4, 0.57)})
    out = capsys.readouterr().out
    for text in ("0.960", "same name", "0.570", "1,234 a second", "12 ms (p50), 46 ms (p99)", "30 aligned"):
        assert text in out
    print_figures(msgspec.structs.replace(FIGURES, p50_ms=None, p99_ms=None), {})
    assert "no change led to an alignment" in capsys.readouterr().out


def test_alignments_are_shown_by_name_with_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    scenario = make_scenario(SMALL_COUNTRY)
    left, right = scenario.final_rows()
    subject, object_ = next(
        (a, b)
        for a, b in scenario.final_answers("test")
        if left[a.partition(":")[2]]["name"] != right[b.partition(":")[2]]["airport"]
    )
    evidence = Evidence(
        [AttributeEvidence("lat", 1.5, "latitude", 1.25, 0.3)],
        [NeighbourEvidence("country", f"{LEFT}:country/DE", "country", f"{RIGHT}:country/DE", 0.6)],
    )
    record = aligned_pair(subject, object_, confidence=0.987, evidence=evidence)
    show_alignments(scenario, [record])
    out = capsys.readouterr().out
    assert str(left[subject.partition(":")[2]][NAME_COLUMN[LEFT]]) in out
    assert str(right[object_.partition(":")[2]][NAME_COLUMN[RIGHT]]) in out
    assert "score 0.987, right" in out
    assert out.index("60%") < out.index("30%  lat: 1.5  ~  latitude: 1.25")


def test_changes_are_described() -> None:
    text = describe_changes(make_scenario(SMALL_COUNTRY))
    assert all(kind in text for kind in ("new", "renamed", "moved", "deleted", "returned"))


def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no directory"):
        run_demo(small=True, report=tmp_path / "gone" / "report.json")


def test_a_worker_that_ends_tells_why(tmp_path: Path) -> None:
    config = tmp_path / "sameas.toml"
    config.write_text("")
    with (
        pytest.raises(SameasError, match=r"the worker ended \(status 1\): .*127\.0\.0\.1:1:"),
        worker_process(
            config,
            ["kafka.bootstrap_servers=127.0.0.1:1", "kafka.connect_timeout_seconds=1"],
            tmp_path / "worker.log",
        ),
    ):
        pass


def test_the_mapping_of_the_demo_is_one_that_users_can_write() -> None:
    path = Path(__file__).parents[3] / "stream" / "demo" / "airports.toml"
    document = msgspec.toml.decode(path.read_bytes(), type=dict[str, dict[str, SourceMapping]])
    assert set(document["sources"]) == {LEFT, RIGHT}


def cpu_of_children() -> float:
    """Seconds; tests that run at the same time do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.kafka
def test_the_small_demo(tmp_path: Path) -> None:
    report, home = tmp_path / "report.json", tmp_path / "home"
    home.mkdir()
    before = cpu_of_children()
    finished = subprocess.run(
        [sys.executable, "-m", "sameas_command", "demo", "--small", "--report", str(report)],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=tmp_path,
        env=os.environ | {"HOME": str(home)},
    )
    assert finished.returncode == 0, finished.stderr
    assert not list(home.iterdir()) and "DGL" not in finished.stdout + finished.stderr
    figures = json.loads(report.read_text(encoding="utf-8"))
    assert list(figures) == [field.name for field in msgspec.structs.fields(Figures)]
    assert figures["f1"] > 0.8 and figures["retrieval_recall"] > 0.9
    assert figures["aligned"] > 300 and figures["revised"] > 0 and figures["withdrawn"] > 0
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] < 5_000
    assert 0 < figures["seconds"] < 180 and cpu_of_children() - before < 90  # both 40 where nothing else runs
    assert figures["peak_rss_mb"] < 3_000
    for text in ("same name", "nearest position", "score", "retrieval recall", "withdrawn"):
        assert text in finished.stdout


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("^1 ", signal.SIGTERM),
        ("preparing candidates", signal.SIGINT),
        ("answers in", signal.SIGTERM),  # the worker starts
    ],
)
def test_a_demo_that_is_stopped_leaves_nothing(tmp_path: Path, stage: str, number: signal.Signals) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with sameas("demo", "--small", log=tmp_path / "log", TMPDIR=str(place)) as demo:
        demo.wait_for(f"(?m){stage}")
        children = psutil.Process(demo.process.pid).children(recursive=True)
        assert children
        assert demo.end(number, 60) == 128 + number
        until(lambda: not any(map(lives, children)), "end of its processes")
        assert "Traceback" not in demo.text
    assert list(place.glob("sameas-*")) == []


def test_a_step_in_a_child_answers_or_says_why_not() -> None:
    assert in_child(divmod, 7, 2) == (3, 1)
    with pytest.raises(ConfigError, match="there is no directory"):
        in_child(run_demo, small=True, report=Path("gone") / "report.json")
    with pytest.raises(SameasError, match="divmod ended with status 1"):
        in_child(divmod, 1, 0)
