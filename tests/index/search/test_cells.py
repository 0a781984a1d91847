"""Search in cells against brute force over the pairs that see each other."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.candidates import CandidateOptions, CandidatePairs, VectorChange
from index.search.arrays import MISSING, Pairs
from index.search.cells import CELLS, CellIndex, TwoCellIndex, sign_cells, with_cells
from index.search.prefetch import AHEAD
from index.search.vectors import VectorIndex

DIMENSIONS = 5
ORDER = np.random.default_rng(1).permutation(41).astype(np.uint64)
KINDS = (CellIndex, TwoCellIndex)
VECTOR = st.tuples(*[st.integers(-3, 3)] * DIMENSIONS).filter(any)
CELL = st.sampled_from([1, 2, 3, 1 << 23])
ENTITY = st.tuples(VECTOR, st.lists(CELL, unique=True, max_size=4))
PUT = st.dictionaries(st.integers(0, 40), ENTITY, max_size=12)
STEP = st.one_of(PUT, st.lists(st.integers(0, 40), unique=True, max_size=12))

Entity = tuple[tuple[int, ...], list[int]]


def stored(entities: list[Entity]) -> np.ndarray:
    packed = np.zeros((len(entities), 4), np.uint32)
    for row, (_, own) in enumerate(entities):
        packed[row, : len(own)] = own
    return with_cells(np.array([vector for vector, _ in entities], np.int8).reshape(-1, DIMENSIONS), packed)


def sees(kind: type[CellIndex], one: Entity, other: Entity) -> bool:
    return len(set(one[1]) & set(other[1])) >= kind.SHARED


@given(
    st.sampled_from(KINDS),
    st.lists(STEP, max_size=8),
    st.lists(ENTITY, min_size=1, max_size=7),
    st.integers(1, 6),
)
def test_search_answers_like_brute_force_among_those_that_share_cells(
    kind: type[CellIndex],
    steps: list[dict[int, Entity] | list[int]],
    queries: list[Entity],
    k: int,
) -> None:
    index = kind(DIMENSIONS)
    model: dict[int, Entity] = {}
    bounds: dict[int, int] = {}
    for number, step in enumerate(steps):
        slots = np.array(list(step), np.int32)
        if isinstance(step, dict):
            index.put(slots, stored(list(step.values())))
            index.bound(index.rows(slots), np.full(len(slots), number, np.int32))
            model |= step
            bounds |= dict.fromkeys(step, number)
        else:
            index.remove(slots)
            model = {key: entity for key, entity in model.items() if key not in step}
    nearest, reached = index.search(stored(queries), k, 1, ORDER)
    everything = index.nearest_of_all(stored(queries), k, 1, ORDER)
    for number, query in enumerate(queries):
        sims = {key: int(np.dot(query[0], vector)) for key, (vector, _) in model.items()}
        seen = {key for key, entity in model.items() if sees(kind, query, entity)}
        for found, among in ((nearest, seen), (everything, model.keys())):
            ranked = sorted((-sims[key], ORDER[key], key) for key in among if sims[key] >= 1)[:k]
            keys = found.keys[number]
            assert keys[keys != MISSING].tolist() == [key for _, _, key in ranked]
            assert found.sims[number][: len(ranked)].tolist() == [-sim for sim, _, _ in ranked]
        mine = set(reached.key[reached.query == number].tolist())
        assert mine == {key for key in seen if sims[key] >= bounds[key]}


def test_more_rows_than_are_asked_for_ahead() -> None:
    chance = np.random.default_rng(2)
    n = 3 * AHEAD
    vectors = chance.integers(-3, 4, (n, DIMENSIONS)).astype(np.int8)
    shared = np.tile(np.array([1, 2], np.uint32), (n, 1))
    order = chance.permutation(n).astype(np.uint64)
    seen, exact = TwoCellIndex(DIMENSIONS), VectorIndex(DIMENSIONS)
    seen.put(np.arange(n, dtype=np.int32), with_cells(vectors, shared))
    exact.put(np.arange(n, dtype=np.int32), vectors)
    for index in (seen, exact):
        index.bound(np.arange(n, dtype=np.int32), np.full(n, 5, np.int32))
    (nearest, reached), (exact_nearest, exact_reached) = (
        index.search(queries, 5, -100, order)
        for index, queries in ((seen, with_cells(vectors, shared)), (exact, vectors))
    )
    np.testing.assert_array_equal(nearest.keys, exact_nearest.keys)
    np.testing.assert_array_equal(nearest.sims, exact_nearest.sims)
    assert len(reached.key) > 1024  # more than there is room for at first
    hits, exact_hits = (
        sorted(zip(h.query.tolist(), h.key.tolist(), h.sim.tolist(), strict=True))
        for h in (reached, exact_reached)
    )
    assert hits == exact_hits


def test_save_and_load(tmp_path: Path) -> None:
    entities: list[Entity] = [((1, 2, 3, 0, 0), [4, 5]), ((3, 2, 1, 0, 0), [5]), ((1, 1, 1, 0, 0), [6])]
    index = CellIndex(DIMENSIONS)
    index.put(np.array([7, 3, 9], np.int32), stored(entities))
    index.save(tmp_path / "view.faiss")
    loaded = CellIndex.load(tmp_path / "view.faiss", index.keys, np.zeros(3, np.int32))
    for one, other in zip(
        *(i.search(stored(entities), 2, 1, ORDER)[0] for i in (index, loaded)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    loaded.remove(np.array([7], np.int32))
    assert loaded.search(stored(entities), 2, 1, ORDER)[0].keys.tolist() == [
        [3, MISSING],
        [3, MISSING],
        [9, MISSING],
    ]


LEFT, RIGHT = range(9), range(9, 18)
HISTORY = st.lists(st.dictionaries(st.integers(0, 17), ENTITY, max_size=6), min_size=1, max_size=8)


def change(step: dict[int, Entity], side: range) -> VectorChange:
    keys = [key for key in step if key in side]
    return VectorChange(np.array(keys, np.int32), [stored([step[key] for key in keys])] * len(KINDS))


@given(HISTORY)
def test_any_history_gives_the_relation_of_the_final_entities(history: list[dict[int, Entity]]) -> None:
    options = CandidateOptions(k=2, floors=(2, 2))
    maintained, fresh = (CandidatePairs([DIMENSIONS] * len(KINDS), options, KINDS) for _ in range(2))
    final: dict[int, Entity] = {}
    for step in history:
        maintained.update(change(step, LEFT), change(step, RIGHT), ORDER)
        final |= step
    fresh.update(change(final, LEFT), change(final, RIGHT), ORDER)
    grid = np.array([(a, b) for a in LEFT for b in RIGHT], np.int32)
    pairs = Pairs(grid[:, 0].copy(), grid[:, 1].copy())
    expected = {
        tuple(sorted((a, b)))
        for kind in KINDS
        for own, others in ((LEFT, RIGHT), (RIGHT, LEFT))
        for a in own
        if a in final
        for _, _, b in sorted(
            (-int(np.dot(final[a][0], final[b][0])), ORDER[b], b)
            for b in others
            if b in final and sees(kind, final[a], final[b]) and np.dot(final[a][0], final[b][0]) >= 2
        )[:2]
    }
    context, is_candidate = maintained.context(pairs)
    assert {tuple(pair) for pair in grid[is_candidate].tolist()} == expected
    np.testing.assert_array_equal(context, fresh.context(pairs)[0])


def test_recall_says_what_cells_hide() -> None:
    options = CandidateOptions(k=1, floors=(1, 1))
    pairs = CandidatePairs([DIMENSIONS] * len(KINDS), options, KINDS)
    one, alike, hidden = ((3, 0, 0, 0, 0), [1, 2]), ((2, 0, 0, 0, 0), [1, 2]), ((3, 0, 0, 0, 0), [3])
    pairs.update(change({0: one}, LEFT), change({9: alike, 10: hidden}, RIGHT), ORDER)
    # nearest are 0: 10, 9: 0, 10: 0; in lists are 0: 9, 9: 0
    assert pairs.recall(5, np.random.default_rng(0), ORDER).tolist() == [[1, 3], [1, 3]]
    pairs.update(change({}, LEFT), change({10: ((3, 0, 0, 0, 0), [1, 2])}, RIGHT), ORDER)
    assert pairs.recall(5, np.random.default_rng(0), ORDER).tolist() == [[3, 3], [3, 3]]


def test_vectors_share_cells_of_signs_the_more_the_more_alike_they_are() -> None:
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(2000, 32)) * 30
    shared = []
    for noise in (0.0, 0.3, 1.0, 100.0):
        others = vectors + noise * 30 * chance.normal(size=vectors.shape)
        one, other = (sign_cells(np.clip(some, -127, 127).astype(np.int8)) for some in (vectors, others))
        assert all(len(set(row)) == CELLS for row in one[:50].tolist())
        shared.append((one == other).any(axis=1).mean())
    assert shared[0] == 1 and shared[1] > 0.8 > shared[2] > shared[3] and shared[3] < 0.02
    assert not sign_cells(np.zeros((1, 32), np.int8)).any()
