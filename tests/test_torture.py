"""A short round of `make torture`, on Apache Kafka, too, where there is one."""

from pathlib import Path

import pytest

from benchmarks.torture import torture


@pytest.mark.slow
@pytest.mark.kafka
def test_killed_workers_lose_and_invent_nothing(checkpoint: Path, tmp_path: Path) -> None:
    outcome = torture(checkpoint, tmp_path, count=2, seed=7, only=["kills"])
    assert outcome.kills in (2, 4) and outcome.events > 100
    assert outcome.passed, outcome


@pytest.mark.slow
@pytest.mark.kafka
def test_partitions_that_are_added_lose_and_invent_nothing(checkpoint: Path, tmp_path: Path) -> None:
    outcome = torture(checkpoint, tmp_path, count=0, seed=7, only=["added partitions"])
    if not outcome.scenarios:
        pytest.skip("no Apache Kafka, and the embedded broker cannot add partitions")
    assert outcome.passed, outcome
