"""The vector index against brute force and against FAISS's own search."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.search import vectors
from index.search.arrays import MISSING
from index.search.vectors import VectorIndex

DIMENSIONS = 5
KEYS = st.lists(st.integers(0, 40), unique=True, max_size=12)
STEP = st.tuples(st.booleans(), KEYS, st.integers(0, 2**32 - 1))
ORDER = np.random.default_rng(1).permutation(41).astype(np.uint64)


def random_vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3, 4, (n, DIMENSIONS)).astype(np.int8)


@given(st.lists(STEP, max_size=8), st.integers(1, 6))
def test_search_answers_like_brute_force(steps: list[tuple[bool, list[int], int]], k: int) -> None:
    index = VectorIndex(DIMENSIONS)
    model: dict[int, np.ndarray] = {}
    bounds: dict[int, int] = {}
    for add, keys, seed in steps:
        slots = np.array(keys, np.int32)
        if add:
            new = random_vectors(len(keys), seed)
            index.put(slots, new)
            model |= dict(zip(keys, new, strict=True))
            index.bound(index.rows(slots), np.full(len(keys), seed % 9, np.int32))
            bounds |= dict.fromkeys(keys, seed % 9)
        else:
            index.remove(slots)
            model = {key: vector for key, vector in model.items() if key not in keys}
    queries = random_vectors(7, k)
    nearest, reached = index.search(queries, k, 1, ORDER)
    sims = [{key: int(q.astype(int) @ v) for key, v in model.items()} for q in queries]
    for number, of_query in enumerate(sims):
        ranked = sorted((-sim, ORDER[key], key) for key, sim in of_query.items() if sim >= 1)[:k]
        found = nearest.keys[number]
        assert found[found != MISSING].tolist() == [key for _, _, key in ranked]
        assert nearest.sims[number][: len(ranked)].tolist() == [-sim for sim, _, _ in ranked]
        mine = set(reached.key[reached.query == number].tolist())
        assert mine == {key for key, sim in of_query.items() if sim >= bounds[key]}
    assert sorted(index.keys.tolist()) == sorted(model)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(DIMENSIONS)
    index.put(np.arange(41, dtype=np.int32), random_vectors(41, 3))
    queries = random_vectors(20, 4)
    whole = index.search(queries, 5, -100, ORDER)[0]
    monkeypatch.setattr(vectors, "QUERY_BLOCK", 3)
    monkeypatch.setattr(vectors, "ROW_BLOCK", 4)
    for one, other in zip(whole, index.search(queries, 5, -100, ORDER)[0], strict=True):
        np.testing.assert_array_equal(one, other)


def test_similarities_are_those_of_faiss() -> None:
    stored = np.random.default_rng(0).integers(-127, 128, (500, 128)).astype(np.int8)
    index = VectorIndex(128)
    index.put(np.arange(500, dtype=np.int32), stored)
    flat = faiss.IndexFlatIP(128)
    flat.add(stored.astype(np.float32))
    sims, _ = flat.search(stored[:9].astype(np.float32), 4)
    nearest, _ = index.search(stored[:9], 4, -(1 << 30), np.arange(500, dtype=np.uint64))
    np.testing.assert_array_equal(nearest.sims, sims.astype(np.int32))


def test_save_and_load(tmp_path: Path) -> None:
    index = VectorIndex(DIMENSIONS)
    index.put(np.array([7, 3, 9], np.int32), random_vectors(3, 1))
    index.remove(np.array([3], np.int32))
    index.save(tmp_path / "view.faiss")
    keys, bounds = np.array([17, 19], np.int32), np.array([1, 2], np.int32)  # the keys of another process
    loaded = VectorIndex.load(tmp_path / "view.faiss", keys, bounds)
    np.testing.assert_array_equal(
        loaded.vectors(loaded.rows(keys)), index.vectors(np.arange(2, dtype=np.int32))
    )
    loaded.put(np.array([3], np.int32), random_vectors(1, 2))
    assert len(loaded) == 3
    with pytest.raises(ValueError, match="holds 2 vectors, not 1"):
        VectorIndex.load(tmp_path / "view.faiss", keys[:1], bounds[:1])
    (tmp_path / "view.faiss").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"view\.faiss"):
        VectorIndex.load(tmp_path / "view.faiss", keys, bounds)


def test_wrong_input_is_refused() -> None:
    index = VectorIndex(DIMENSIONS)
    with pytest.raises(ValueError, match="distinct"):
        index.put(np.array([1, 1], np.int32), random_vectors(2, 0))
    with pytest.raises(ValueError, match="vectors of 5"):
        index.put(np.array([1], np.int32), np.zeros((1, 4), np.int8))
