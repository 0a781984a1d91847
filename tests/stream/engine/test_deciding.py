"""The repaired matching equals the greedy one from scratch, whatever happened in between."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.store import Store
from stream.engine.deciding import Deciding, Standing
from stream.engine.pairs import DIFFERENT, NONE, SAME, PairId, PairScores

THRESHOLD = 0.5
PAIR = st.builds(PairId, st.integers(1, 5), st.integers(11, 15), st.just("a"), st.just("b")) | st.builds(
    PairId, st.integers(1, 5), st.integers(21, 23), st.just("a"), st.just("c")
)
SCORE = st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.7, 0.7, 0.9])
STEP = st.tuples(
    st.dictionaries(PAIR, SCORE, max_size=6),
    st.dictionaries(PAIR, st.sampled_from([SAME, NONE, DIFFERENT]), max_size=2),
)

Step = tuple[dict[PairId, float], dict[PairId, int]]  # scores and verdicts


def greedy(standings: dict[PairId, Standing], one_to_one: bool) -> set[PairId]:
    taken: set[tuple[int, str]] = set()
    chosen = set()
    for pair in sorted(standings, key=lambda p: (*(-w for w in standings[p].weight), p.left, p.right)):
        ends = {(pair.left, pair.right_source), (pair.right, pair.left_source)}
        if standings[pair].acceptable and not (one_to_one and taken & ends):
            chosen.add(pair)
            taken |= ends
    return chosen


def scored(scores: dict[PairId, float]) -> list[PairScores]:
    return [
        PairScores(
            pair.left_source,
            pair.right_source,
            np.array([pair.left], np.uint64),
            np.array([pair.right], np.uint64),
            np.array([score]),
        )
        for pair, score in scores.items()
    ]


@pytest.mark.parametrize("one_to_one", [True, False])
@settings(max_examples=60)
@given(steps=st.lists(STEP, max_size=8))
def test_any_history_gives_the_greedy_matching(
    tmp_path_factory: pytest.TempPathFactory, one_to_one: bool, steps: list[Step]
) -> None:
    with Store(tmp_path_factory.mktemp("state")) as store:
        deciding = Deciding(store, THRESHOLD, one_to_one=one_to_one)
        standings: dict[PairId, Standing] = {}
        aligned: dict[PairId, Standing] = {}
        for scores, verdicts in steps:
            for decision in deciding.decide(scored(scores), verdicts.items()):
                aligned.pop(decision.pair, None)
                if decision.standing is not None:
                    aligned[decision.pair] = decision.standing
            store.commit()
            for pair, score in scores.items():
                score = score if score >= THRESHOLD else 0.0
                standings[pair] = standings.get(pair, Standing(0.0, NONE))._replace(score=score)
            for pair, verdict in verdicts.items():
                standings[pair] = standings.get(pair, Standing(0.0, NONE))._replace(verdict=verdict)
            assert aligned == {pair: standings[pair] for pair in greedy(standings, one_to_one)}


def test_a_displaced_partner_takes_its_next_best_and_so_on(tmp_path: Path) -> None:
    def pair(left: int, right: int) -> PairId:
        return PairId(left, right, "a", "b")

    with Store(tmp_path) as store:
        deciding = Deciding(store, THRESHOLD, one_to_one=True)
        deciding.decide(scored({pair(1, 11): 0.8, pair(2, 11): 0.7, pair(2, 12): 0.6, pair(3, 12): 0.55}), [])
        assert [deciding.partners(node, "a", "b") for node in (1, 2, 3)] == [[11], [12], []]
        deciding.decide(scored({pair(1, 11): 0.0}), [])
        assert [deciding.partners(node, "a", "b") for node in (1, 2, 3)] == [[], [11], [12]]
        deciding.decide([], [(pair(3, 11), SAME)])
        assert [deciding.partners(node, "a", "b") for node in (1, 2, 3)] == [[], [12], [11]]
