"""The index of sparse vectors against brute force: whatever was put and removed before."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.search.arrays import MISSING
from index.search.sparse import SparseIndex
from index.search.vectors import UNIT

WIDTH = 4
KEYS = st.lists(st.integers(0, 40), unique=True, max_size=12)
STEP = st.tuples(st.booleans(), KEYS, st.integers(0, 2**32 - 1))
ORDER = np.random.default_rng(1).permutation(41).astype(np.uint64)
MANY = 1 << 23  # words, of which few are ever equal


def random_vectors(n: int, seed: int, words: int = 9) -> np.ndarray:
    chance = np.random.default_rng(seed)
    vectors = np.zeros((n, WIDTH), np.uint32)
    for row in vectors:
        some = np.unique(chance.integers(0, words, chance.integers(0, WIDTH + 1)))
        row[: len(some)] = some << 8 | chance.choice([1, 60, 255], len(some))
    return vectors


def similarity(one: np.ndarray, other: np.ndarray) -> int:
    a, b = ({int(word) >> 8: int(word) & 255 for word in vector if word} for vector in (one, other))
    product = sum(a[word] * b[word] for word in a.keys() & b.keys())
    norms = [sum(weight**2 for weight in words.values()) for words in (a, b)]
    return round(UNIT * product / (norms[0] * norms[1]) ** 0.5) if product else 0


@given(st.lists(STEP, max_size=8), st.integers(1, 6), st.sampled_from([9, MANY]))
def test_search_answers_like_brute_force(
    steps: list[tuple[bool, list[int], int]], k: int, words: int
) -> None:
    index = SparseIndex(4 * WIDTH)
    model: dict[int, np.ndarray] = {}
    bounds: dict[int, int] = {}
    for add, keys, seed in steps:
        slots = np.array(keys, np.int32)
        if add:
            new = random_vectors(len(keys), seed, words)
            index.put(slots, new)
            model |= dict(zip(keys, new, strict=True))
            index.bound(index.rows(slots), np.full(len(keys), 1 + seed % UNIT, np.int32))
            bounds |= dict.fromkeys(keys, 1 + seed % UNIT)
        else:
            index.remove(slots)
            model = {key: vector for key, vector in model.items() if key not in keys}
    queries = np.concatenate([random_vectors(5, k), *(vector[None] for vector in model.values())])
    floor = UNIT // 5
    nearest, reached = index.search(queries, k, floor, ORDER)
    for number, query in enumerate(queries):
        sims = {key: similarity(query, vector) for key, vector in model.items()}
        ranked = sorted((-sim, ORDER[key], key) for key, sim in sims.items() if sim >= floor)[:k]
        found = nearest.keys[number]
        assert found[found != MISSING].tolist() == [key for _, _, key in ranked]
        assert nearest.sims[number][: len(ranked)].tolist() == [-sim for sim, _, _ in ranked]
        mine = set(reached.key[reached.query == number].tolist())
        assert mine == {key for key, sim in sims.items() if sim >= bounds[key]}
        all_keys = np.array(sorted(model), np.int32)
        stored = index.vectors(index.rows(all_keys))
        products = index.products(np.repeat(query[None], len(stored), axis=0), stored)
        assert products.tolist() == [sims[key] for key in all_keys.tolist()]


def test_postings_do_not_pile_up() -> None:
    index, keys = SparseIndex(4 * WIDTH), np.arange(40, dtype=np.int32)
    for seed in range(300):
        index.put(keys, random_vectors(len(keys), seed, MANY))
    assert len(index._postings.table.word) <= 2048
    assert len(index._postings.table.pool) <= 4096


def test_save_and_load(tmp_path: Path) -> None:
    index = SparseIndex(4 * WIDTH)
    index.put(np.arange(9, dtype=np.int32), random_vectors(9, 1))
    index.remove(np.array([3], np.int32))
    index.save(tmp_path / "view.faiss")
    loaded = SparseIndex.load(tmp_path / "view.faiss", index.keys, np.full(8, 1, np.int32))
    queries = random_vectors(20, 2)
    answers = (one.search(queries, 3, 1, ORDER)[0] for one in (index, loaded))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.remove(index.keys)
    assert not len(loaded.search(queries, 3, 1, ORDER)[1].key)


def test_wrong_input_is_refused_and_changes_nothing() -> None:
    index, one = SparseIndex(4 * WIDTH), np.array([1], np.int32)
    vector = np.array([[5 << 8 | 200, 0, 0, 0]], np.uint32)
    index.put(one, vector)
    with pytest.raises(ValueError, match="distinct"):
        index.put(np.array([1, 1], np.int32), random_vectors(2, 0))
    assert index.search(vector, 1, 1, ORDER)[0].sims.tolist() == [[UNIT]]


def test_words_that_all_have() -> None:
    """All postings are then moved at once, time and again."""
    index = SparseIndex(4 * WIDTH)
    vectors = np.repeat(np.array([[word << 8 | 9 for word in (1, 2, 3, 4)]], np.uint32), 3000, axis=0)
    for first in range(0, len(vectors), 500):
        index.put(np.arange(first, first + 500, dtype=np.int32), vectors[first : first + 500])
    order = np.arange(len(vectors), dtype=np.uint64)
    assert index.search(vectors[:1], 3, UNIT, order)[0].keys.tolist() == [[0, 1, 2]]
