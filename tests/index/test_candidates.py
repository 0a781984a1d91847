"""The maintained relation equals the one computed from scratch, whatever happened in between."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.candidates import CandidateOptions, CandidatePairs, VectorChange
from index.search.arrays import Pairs
from index.search.sparse import SparseIndex
from index.search.vectors import VectorIndex

DIMENSIONS = 4
KINDS = (VectorIndex, VectorIndex, SparseIndex)  # a sparse vector of four bytes is one word
OPTIONS = CandidateOptions(k=3, floors=(2, 2, 2))
LEFT, RIGHT = range(9), range(9, 18)
ORDER = np.random.default_rng(7).permutation(18).astype(np.uint64)
SMALL = st.integers(-2, 2)  # few values, so that similarities tie
WORD = st.integers(0, 5).map(lambda word: (word << 8 | 60) if word else 0)
VECTOR = st.tuples(*[st.tuples(*[SMALL] * DIMENSIONS)] * 2, st.tuples(WORD))
STEP = st.dictionaries(st.integers(0, 17), VECTOR, max_size=6)

Entities = dict[int, tuple[tuple[int, ...], ...]]  # by key, one vector a view


def change(step: Entities, side: range) -> VectorChange:
    keys = [key for key in step if key in side]
    vectors = [
        np.array([step[key][view] for key in keys], kind).reshape(len(keys), width)
        for view, (kind, width) in enumerate(((np.int8, 4), (np.int8, 4), (np.uint32, 1)))
    ]
    return VectorChange(np.array(keys, np.int32), vectors)


def expected_pairs(vectors: Entities) -> set[tuple[int, int]]:
    pairs = set()
    for view, floor in enumerate(OPTIONS.floors):
        for own, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
            for a in own:
                if a not in vectors or not any(vectors[a][view]):
                    continue
                sims = [
                    (-similarity(vectors[a][view], vectors[b][view]), ORDER[b], b)
                    for b in other
                    if b in vectors and any(vectors[b][view])
                ]
                nearest = sorted(s for s in sims if -s[0] >= floor)[: OPTIONS.k]
                pairs |= {(min(a, b), max(a, b)) for _, _, b in nearest}
    return pairs


def similarity(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    if len(one) == 1:
        return 65536 * (one == other)
    return int(np.dot(one, other))


def all_pairs() -> Pairs:
    grid = [(a, b) for a in LEFT for b in RIGHT]
    return Pairs(np.array([a for a, _ in grid], np.int32), np.array([b for _, b in grid], np.int32))


@given(st.lists(STEP, max_size=8))
def test_any_history_gives_the_relation_of_the_final_vectors(steps: list[Entities]) -> None:
    maintained = CandidatePairs([DIMENSIONS] * len(KINDS), OPTIONS, KINDS)
    vectors: Entities = {}
    grid = all_pairs()
    context, is_candidate = maintained.context(grid)
    for step in steps:
        touched = maintained.update(change(step, LEFT), change(step, RIGHT), ORDER)
        vectors |= step
        old_context, was_candidate = context, is_candidate
        context, is_candidate = maintained.context(grid)
        found = {
            (a, b) for a, b, yes in zip(*map(np.ndarray.tolist, (*grid, is_candidate)), strict=True) if yes
        }
        assert found == expected_pairs(vectors)
        # whatever changed about a candidate pair was reported
        reported = set(zip(*map(np.ndarray.tolist, touched.pairs), strict=True))
        entities = set(touched.left.tolist()) | set(touched.right.tolist()) | set(step)
        incident = maintained.incident(
            np.array([e for e in entities if e in LEFT], np.int32),
            np.array([e for e in entities if e in RIGHT], np.int32),
        )
        reported |= set(zip(*map(np.ndarray.tolist, incident), strict=True))
        differs = (is_candidate != was_candidate) | (is_candidate & (context != old_context).any(axis=1))
        for a, b in zip(grid.left[differs].tolist(), grid.right[differs].tolist(), strict=True):
            assert (a, b) in reported
    fresh = CandidatePairs([DIMENSIONS] * len(KINDS), OPTIONS, KINDS)
    fresh.update(change(vectors, LEFT), change(vectors, RIGHT), ORDER)
    np.testing.assert_array_equal(fresh.context(grid)[0], context)


def test_incident_finds_pairs_that_only_the_other_side_lists() -> None:
    pairs = CandidatePairs([DIMENSIONS], CandidateOptions(k=1, floors=(1,)), (VectorIndex,))
    left = VectorChange(np.array([0, 1], np.int32), [np.array([[2, 0, 0, 0], [1, 0, 0, 0]], np.int8)])
    right = VectorChange(np.array([9], np.int32), [np.array([[1, 0, 0, 0]], np.int8)])
    pairs.update(left, right, ORDER)
    found = pairs.incident(np.zeros(0, np.int32), np.array([9], np.int32))
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == {(0, 9), (1, 9)}
