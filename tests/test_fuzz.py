"""Short rounds of `make fuzz`."""

import shutil
from pathlib import Path

import pytest

from benchmarks.fuzz import GROWTH_BOUND, fuzz
from benchmarks.fuzz_inputs import MOST_MIB, Fuzzer


@pytest.mark.slow
def test_hostile_messages_are_all_accounted_for(checkpoint: Path, tmp_path: Path) -> None:
    report = fuzz(1_500, seed=3, checkpoint=checkpoint, state=tmp_path / "state", relations=2_000)
    assert report.counts.received == 1_500
    assert report.accounted, report
    assert {"malformed", "bad-id", "not-finite", "bad-version"} <= report.dead_letters.keys()
    assert "failed" not in report.dead_letters, "a message got through validation that it should not pass"
    assert 0 < report.warm_mib <= report.peak_mib
    assert report.growth_mib < GROWTH_BOUND


def test_hostile_inputs_end_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "model")
    result = Fuzzer(3, tmp_path).run(range(600))
    assert not result.failed
    assert result.growth < MOST_MIB
    kinds = {"file read", "file in part", "file refused", "file proposed", "message read", "message refused"}
    assert {*kinds, "record read", "record refused", "model refused"} <= result.outcomes.keys()
