"""Work on several cores comes out as on one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.search import threads, vectors
from index.search.arrays import Vectors
from index.search.cells import CellIndex, with_cells
from index.search.sparse import SparseIndex
from index.search.threads import spread
from index.search.vectors import VectorIndex

ORDER = np.random.default_rng(1).permutation(100).astype(np.uint64)


@given(st.integers(0, 50), st.integers(1, 60))
def test_slices_make_up_the_range(count: int, least: int) -> None:
    parts = spread(lambda some: list(range(count))[some], count, least)
    assert [number for part in parts for number in part] == list(range(count))
    assert len(parts) == 1 or min(map(len, parts)) >= least


def random_vectors(kind: type[VectorIndex], n: int) -> Vectors:
    chance = np.random.default_rng(n)
    dense = chance.integers(-3, 4, (n, 5)).astype(np.int8)
    if kind is VectorIndex:
        return dense
    words = np.sort(np.stack([chance.permutation(9)[:3] for _ in range(n)]) + 1).astype(np.uint32)
    return with_cells(dense, words) if kind is CellIndex else words << 8 | 50


@pytest.mark.parametrize("kind", [VectorIndex, SparseIndex, CellIndex])
def test_search_on_several_cores_is_the_same(
    kind: type[VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = kind(12 if kind is SparseIndex else 5)
    keys = np.arange(100, dtype=np.int32)
    index.put(keys, random_vectors(kind, 100))
    index.bound(index.rows(keys), np.full(100, 9, np.int32))
    queries = random_vectors(kind, 11)
    whole, all_reached = index.search(queries, 4, 1, ORDER)
    monkeypatch.setattr(vectors, "SHARE", 2)
    monkeypatch.setattr(threads, "CORES", 3)
    nearest, reached = index.search(queries, 4, 1, ORDER)
    np.testing.assert_array_equal(nearest.keys, whole.keys)
    np.testing.assert_array_equal(nearest.sims, whole.sims)
    assert len(reached.key) > 11
    assert sorted(zip(*reached, strict=True)) == sorted(zip(*all_reached, strict=True))
