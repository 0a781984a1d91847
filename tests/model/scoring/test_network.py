"""The network: the two paths agree, and a score depends on the pair and nothing else."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.scoring.comparing import I64, slots_of
from model.scoring.network import AlignmentNetwork, pair_graph
from model.scoring.pairs import PairInputs, Side, canonical, similarities
from model.scoring.scorer import Calibration, DenseScorer
from model.scoring.trees import NO_TREES, Trees
from model.shapes import LEVEL, NEIGHBOURS, OWN, SLOTS

Make = Callable[[int, int], PairInputs]


PARTS = ("self_attention", "features")
ATTENTIONS = ("mutual", "one way", "uniform")


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("missing", [(), *combinations(PARTS, 1), PARTS])
def test_the_dense_path_agrees_with_dgl(
    random_inputs: Make,
    make_network: Callable[..., AlignmentNetwork],
    attention: str,
    missing: tuple[str, ...],
) -> None:
    inputs = random_inputs(700, 1)
    network = make_network(attention=attention, **dict.fromkeys(missing, False))
    with torch.no_grad():
        ragged = network(pair_graph(similarities(inputs)), alone=True).numpy()
    dense = DenseScorer(network).logits(inputs)
    assert np.abs(ragged - dense).max() < 1e-5
    assert dense.std() > 0.02


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_network_matters(
    random_inputs: Make, make_network: Callable[..., AlignmentNetwork], part: str
) -> None:
    inputs = random_inputs(50, 1)
    whole, without = (DenseScorer(make_network(**{part: on})).logits(inputs) for on in (True, False))
    assert np.abs(whole - without).max() > 0.01


@pytest.mark.parametrize(("one", "other"), [*combinations(ATTENTIONS, 2)])
def test_the_attentions_differ(
    random_inputs: Make, make_network: Callable[..., AlignmentNetwork], one: str, other: str
) -> None:
    inputs = random_inputs(50, 1)
    some, others = (DenseScorer(make_network(attention=kind)).logits(inputs) for kind in (one, other))
    assert np.abs(some - others).max() > 0.01


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 300))
def test_a_score_has_the_same_bits_in_any_batch(
    random_inputs: Make, random_network: AlignmentNetwork, random_trees: Trees, seed: int, size: int
) -> None:
    inputs = random_inputs(300, 2)
    scorer = DenseScorer(random_network, random_trees, Calibration(1.3, -0.4))
    everything = scorer.logits(inputs)
    rows = np.random.default_rng(seed).permutation(len(everything))[:size]
    assert scorer.logits(inputs.take(rows)).tobytes() == everything[rows].tobytes()
    sides = slots_of(inputs.left), slots_of(inputs.right)
    scores = scorer.score(*sides, (rows, rows), inputs.context[rows])
    assert scores.tobytes() == scorer.probabilities(everything[rows]).tobytes()
    partner, weight = attention(scorer, inputs)
    some = attention(scorer, inputs.take(rows))
    assert (some[0] == partner[rows]).all()
    assert some[1].tobytes() == weight[rows].tobytes()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_neighbours_does_not_count(
    random_inputs: Make, random_network: AlignmentNetwork, random_trees: Trees, seed: int
) -> None:
    inputs = random_inputs(50, 3)
    scorer = DenseScorer(random_network, random_trees)
    straight = PairInputs(canonical(inputs.left), canonical(inputs.right), inputs.context)
    shuffled = PairInputs(
        canonical(permuted_neighbours(inputs.left, seed)),
        canonical(permuted_neighbours(inputs.right, seed + 1)),
        inputs.context,
    )
    assert scorer.logits(straight).tobytes() == scorer.logits(shuffled).tobytes()


def test_canonical_order_puts_empty_slots_last(random_inputs: Make) -> None:
    filled = canonical(random_inputs(50, 4).left).key[:, OWN:] != 0
    assert (np.diff(filled.astype(int), axis=1) <= 0).all()


def test_an_empty_slot_has_no_influence(
    random_inputs: Make, random_network: AlignmentNetwork, random_trees: Trees
) -> None:
    inputs = random_inputs(50, 5)
    vec = inputs.left.vec.copy()
    vec[inputs.left.key == 0] = 77
    spoiled = inputs._replace(left=inputs.left._replace(vec=vec))
    scorer = DenseScorer(random_network, random_trees)
    assert scorer.logits(spoiled).tobytes() == scorer.logits(inputs).tobytes()


def test_attention_names_the_equal_partner(random_network: AlignmentNetwork) -> None:
    rng = np.random.default_rng(0)
    vec = np.zeros((1, SLOTS, 128), np.int8)
    vec[0, :3] = rng.integers(-40, 40, (3, 128))
    key, hashes = np.zeros((1, SLOTS), np.int16), np.zeros((1, SLOTS), np.int64)
    key[0, :3], hashes[0, :3] = 2, [256, 512, 768]
    level = np.zeros((1, SLOTS, LEVEL), np.int8)
    left = Side(vec, np.zeros_like(vec), level, level, key, hashes)
    turned = left._replace(
        vec=vec[:, [2, 0, 1, *range(3, SLOTS)]], hash=hashes[:, [2, 0, 1, *range(3, SLOTS)]]
    )
    scorer = DenseScorer(random_network)
    partner, weight = attention(scorer, PairInputs(left, turned, np.zeros((1, 5), np.float32)))
    assert partner[0, :4].tolist() == [1, 2, 0, -1]
    assert (weight[0, :3] > 0).all() and (weight[0, 3:] == 0).all()


def test_whatever_has_something_of_its_kind_on_the_other_side_has_a_partner(
    random_inputs: Make, random_network: AlignmentNetwork, random_trees: Trees
) -> None:
    inputs = random_inputs(300, 7)
    left, right = inputs.left.key != 0, inputs.right.key != 0
    expected = np.zeros_like(left)
    for kind in (slice(OWN), slice(OWN, None)):
        expected[:, kind] = left[:, kind] & right[:, kind].any(axis=1, keepdims=True)
    for trees in (NO_TREES, random_trees):
        partner, weight = attention(DenseScorer(random_network, trees), inputs)
        assert ((partner >= 0) == expected).all()
        pair, slot = np.nonzero(expected)
        assert ((partner[expected] < OWN) == (slot < OWN)).all()
        assert right[pair, partner[expected]].all()
    assert 0 < weight[expected].mean() < weight.max() <= 1


def test_scores_are_probabilities_in_millionths(
    random_inputs: Make, random_network: AlignmentNetwork
) -> None:
    scorer = DenseScorer(random_network, NO_TREES, Calibration(50.0, -3.0))
    scores = scorer.probabilities(scorer.logits(random_inputs(300, 6)))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores == np.round(scores * 1e6) / 1e6).all()
    assert len(scorer.logits(random_inputs(0, 0))) == 0


def test_calibration_keeps_the_order(random_network: AlignmentNetwork) -> None:
    scores = DenseScorer(random_network, NO_TREES, Calibration(2.0, 1.0)).probabilities(
        np.array([-1e6, -3, 0, 3, 1e6], np.float32)
    )
    assert scores.tolist() == sorted(scores.tolist())
    with pytest.raises(ValueError, match="order"):
        DenseScorer(random_network, NO_TREES, Calibration(slope=0.0))


def test_wrong_shapes_and_contexts_are_refused(random_inputs: Make) -> None:
    inputs = random_inputs(3, 0)
    with pytest.raises(ValueError, match="finite"):
        similarities(inputs._replace(context=np.full((3, 5), np.nan, np.float32)))
    with pytest.raises(ValueError, match="expected"):
        similarities(inputs._replace(left=inputs.left._replace(key=inputs.left.key[:, 1:])))


def attention(scorer: DenseScorer, inputs: PairInputs) -> tuple[I64, npt.NDArray[np.float64]]:
    """What the scorer attends to in these pairs."""
    every = np.arange(len(inputs.context))
    return scorer.attention(slots_of(inputs.left), slots_of(inputs.right), (every, every), inputs.context)


def permuted_neighbours(side: Side, seed: int) -> Side:
    """The same entities with their neighbours in another order, each pair's its own."""
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(NEIGHBOURS) for _ in side.key]) + OWN
    every = np.concatenate([np.broadcast_to(np.arange(OWN), (len(order), OWN)), order], axis=1)
    rows = np.arange(len(order))[:, None]
    return side.take((rows, every))
