"""Work that waits."""

import sys
from pathlib import Path

from index import tables
from index.store import Store
from stream.engine.backlog import Backlog

GATHERED = tables.META + b"gathered"


def test_a_bulk_is_known_until_nothing_waits_also_after_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        backlog = Backlog(store)
        assert backlog.settle(gathering=True) == 0 and not backlog.is_gathered
        backlog.evaluate(1, b"in force")
        assert backlog.settle(gathering=False) == 1 and not backlog.is_gathered
        backlog.evaluate(2, b"in force")
        assert backlog.settle(gathering=True) == 2 and backlog.is_gathered
        store.commit()
    with Store(tmp_path) as store:
        backlog = Backlog(store)
        assert backlog.is_gathered
        backlog.evaluated([1])
        assert backlog.settle(gathering=False) == 1 and backlog.is_gathered
        backlog.evaluated([2])
        assert backlog.settle(gathering=False) == 0 and not backlog.is_gathered
        store.commit()
        assert store.get(GATHERED) is None


def test_when_nothing_waits_any_more_the_memory_is_given_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        backlog = Backlog(store)
        waiting = (backlog.entities, backlog._fresh, backlog._outdated, backlog.deferred)
        for node in range(10_000):
            backlog.evaluate(node, b"in force")
            backlog.refresh(node)
        backlog.outdate(range(10_000))
        backlog.defer(range(10_000))
        large = [sys.getsizeof(numbers) for numbers in waiting]
        backlog.evaluated(range(9_999))
        assert len(backlog) == 1
        backlog.evaluated([9_999])
        assert len(backlog) == 0
        for numbers, size in zip(waiting, large, strict=True):
            assert sys.getsizeof(numbers) < size / 100
