"""A short round of `make torture`."""

from pathlib import Path

import pytest

from benchmarks.torture import torture


@pytest.mark.slow
@pytest.mark.kafka
def test_killed_workers_lose_and_invent_nothing(tmp_path: Path) -> None:
    outcome = torture(3, seed=7, directory=tmp_path, only=[])
    assert outcome.kills == 3 and outcome.events > 100
    assert outcome.passed, outcome
