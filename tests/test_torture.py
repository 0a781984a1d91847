"""A short round of `make torture`."""

from pathlib import Path

import pytest

from benchmarks import scenarios
from benchmarks.torture import torture


@pytest.mark.slow
@pytest.mark.kafka
def test_killed_workers_lose_and_invent_nothing(tmp_path: Path) -> None:
    outcome = torture(3, seed=7, directory=tmp_path, only=[])
    assert outcome.kills == 3 and outcome.events > 100
    assert outcome.passed, outcome


@pytest.mark.slow
@pytest.mark.kafka
def test_a_worker_that_stood_still_is_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Apache Kafka, too, where there is one."""
    monkeypatch.setattr(scenarios, "PAUSES", 1)
    outcome = torture(0, seed=7, directory=tmp_path, only=["pauses", "pauses on Apache Kafka"])
    assert outcome.kills in (1, 2)
    assert outcome.passed, outcome
