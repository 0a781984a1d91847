"""`sameas align` leaves a state, of which `sameas explain` tells why."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.catalogues import catalogues
from stream.cli import main
from stream.engine.explaining import Explanation
from stream.events import AlignmentRecord, Upsert
from stream.learning.alignment import align


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


@pytest.fixture
def records(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[AlignmentRecord]:
    """What `sameas align` printed, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, "checkpoint")
    Path("all.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, catalogues(30))))
    result = run("align", "all.jsonl")
    assert result.exit_code == 0, result.output
    assert " alignments are of types without links in training (person: " in result.stderr
    return [msgspec.json.decode(line, type=AlignmentRecord) for line in result.stdout.splitlines()]


def test_what_was_aligned_can_be_explained(records: list[AlignmentRecord]) -> None:
    shutil.rmtree("checkpoint")  # the state has its own
    result = run("explain", records[0].subject_id, records[0].object_id)
    assert "from aligned, as `sameas align` left it 20" in result.stderr
    told = msgspec.json.decode(result.stdout, type=Explanation)
    assert (told.outcome, told.evidence) == ("aligned", records[0].evidence)
    assert told.calibrated == records[0].calibrated == (told.subject_category == "film")
    Path("aligned").rename("elsewhere")
    result = run("explain", records[0].subject_id)
    assert result.exit_code == 1
    assert "no state to read: a worker leaves one in state, and `sameas align` in aligned" in result.stderr
    assert run("explain", records[0].subject_id, "--state", "elsewhere").exit_code == 0


def test_a_workers_state_goes_first(records: list[AlignmentRecord]) -> None:
    shutil.copytree("aligned", "state")
    Path("state/aligned.json").unlink()
    result = run("explain", records[0].subject_id)
    assert "from the worker's state, state; `--state aligned` is what `sameas align` left" in result.stderr
    shutil.rmtree("aligned")
    result = run("explain", records[0].subject_id)
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_state_is_replaced_and_no_other_directory(records: list[AlignmentRecord]) -> None:
    Path("few.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, catalogues(1))))
    Path("kept").mkdir()
    for directory in ("aligned", "kept"):
        assert run("align", "few.jsonl", "--state", directory).exit_code == 0
        result = run("explain", "left:f20", "--state", directory)
        assert result.exit_code == 1 and "there is no left:f20 in this state" in result.stderr
    shutil.copytree("aligned", "state")
    Path("state/aligned.json").unlink()  # a worker's
    result = run("align", "few.jsonl", "--state", "state")
    assert result.exit_code == 1
    assert "--state state: not what `sameas align` left there; name another directory" in result.stderr
    result = run("align", "few.jsonl", "--state", "/proc/none/state")
    assert result.exit_code == 1 and "/proc/none/state: cannot write" in result.stderr


def test_a_state_of_another_version_is_aligned_anew(
    records: list[AlignmentRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.SCHEMA_VERSION", 1_000)
    result = run("explain", records[0].subject_id)
    assert result.exit_code == 1
    assert "this version reads 1000" in result.stderr and "or run `sameas align` again" in result.stderr


def test_what_is_broken_off_leaves_what_was_there(records: list[AlignmentRecord], checkpoint: Path) -> None:
    def broken() -> Iterator[Upsert]:
        yield from catalogues(1)
        raise KeyboardInterrupt

    there = sorted(Path().iterdir())
    with pytest.raises(KeyboardInterrupt):
        align(broken(), checkpoint, keep=Path("aligned"))
    assert sorted(Path().iterdir()) == there
    assert run("explain", records[0].subject_id).exit_code == 0
