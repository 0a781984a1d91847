"""Training learns what separates links from others, repeatably, and refuses what it cannot learn from."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel

from model.errors import ModelError
from model.evaluation import evaluate
from model.scoring.comparing import seen_by_trees, slots_of
from model.scoring.network import NetworkOptions
from model.scoring.pairs import PairInputs
from model.scoring.trees import say_all
from model.training import (
    FOLDS,
    Epoch,
    LabelledPairs,
    TrainingOptions,
    _averaging,
    _folds,
    fit_platt,
    score,
    train,
)
from tests.model.arrays import in_step

Make = Callable[[int, int], PairInputs]


def learnable(make: Make, lefts: int, seed: int) -> LabelledPairs:
    """One of five candidates of each left entity shares its values; its context hints at it."""
    inputs = make(5 * lefts, seed)
    label = np.arange(5 * lefts) % 5 == 0
    right = inputs.right
    for mine, its in in_step(right, inputs.left):
        mine[label] = its[label]
    inputs.context[:, 0] = label + np.random.default_rng(seed).normal(0, 0.5, len(label))

    def rows(which: npt.NDArray[np.int64]) -> PairInputs:
        return inputs.take(which)

    return LabelledPairs(rows, label, np.arange(5 * lefts) // 5, np.arange(5 * lefts), lefts)


OPTIONS = TrainingOptions(epochs=(5, 5), batch=64)
NETWORK = NetworkOptions(keys=30, context=5)


def test_it_learns_and_repeats_itself(random_inputs: Make) -> None:
    training, valid = learnable(random_inputs, 80, 1), learnable(random_inputs, 40, 2)
    seen: list[Epoch] = []
    trained = train(training, valid, NETWORK, OPTIONS, seen.append)
    quality = evaluate(score(trained.scorer(), learnable(random_inputs, 40, 3)), trained.threshold)
    assert quality.prauc > 0.9
    assert len(seen) == trained.report["epochs"]
    again = train(training, valid, NETWORK, OPTIONS)
    assert again.threshold == trained.threshold
    assert (again.calibration, again.alone) == (trained.calibration, trained.alone)


def test_trees_leave_links_and_what_looks_like_them_to_the_network(random_inputs: Make) -> None:
    training, valid = learnable(random_inputs, 80, 1), learnable(random_inputs, 40, 2)
    trees = train(training, valid, NETWORK, OPTIONS).trees
    inputs, every = training.inputs(np.arange(400)), np.arange(400)
    seen = seen_by_trees(slots_of(inputs.left), slots_of(inputs.right), every, every, inputs.context)
    survives = say_all(trees, seen) >= trees.least[0]
    assert survives[training.label].mean() > 0.95
    assert 20 < survives[~training.label].sum() < 200


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1), st.integers(0, 9))
def test_a_left_entity_is_in_one_fold_and_each_fold_has_links(
    pairs: list[tuple[int, bool]], seed: int
) -> None:
    left, label = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    fold = _folds(left, label, np.random.default_rng(seed))
    assert len(set(zip(left.tolist(), fold.tolist(), strict=True))) == len(set(left.tolist()))
    linked = [len(set(left[label & (fold == number)].tolist())) for number in range(FOLDS)]
    assert max(linked) - min(linked) <= 1


@pytest.mark.parametrize("lefts", [2, 3])
def test_few_links_are_enough(random_inputs: Make, lefts: int) -> None:
    training = learnable(random_inputs, lefts, 1)
    trained = train(training, training, NETWORK, OPTIONS)
    assert np.isfinite(score(trained.scorer(), training).score).all()


def test_the_guard_counts_work_and_not_pauses(random_inputs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    training, valid = learnable(random_inputs, 80, 1), learnable(random_inputs, 40, 2)
    assert train(training, valid, NETWORK, replace(OPTIONS, seconds=0)).report["epochs"] == 1
    paused = itertools.count(step=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(paused))
    assert train(training, valid, NETWORK, replace(OPTIONS, patience=9)).report["epochs"] == 5


def test_averages_are_a_third_of_the_steps_behind_and_then_their_memory() -> None:
    average = AveragedModel(torch.nn.Linear(1, 1, bias=False), avg_fn=_averaging(50))
    weight, ages = torch.nn.Linear(1, 1, bias=False), []
    for step in range(2000):
        torch.nn.init.constant_(weight.weight, step)
        average.update_parameters(weight)
        ages.append(step - next(average.parameters()).item())
    assert ages[0] == 0 and ages[60] == pytest.approx(20, abs=1)
    assert ages[-1] == pytest.approx(49, abs=0.1)


def test_nothing_to_learn_from_is_refused(random_inputs: Make) -> None:
    good = learnable(random_inputs, 5, 1)
    bad = good._replace(label=np.zeros(25, bool))
    with pytest.raises(ModelError, match="training: none of the links is among the 25 candidate pairs"):
        train(bad, good, NETWORK, OPTIONS)
    with pytest.raises(ModelError, match="validation"):
        train(good, bad, NETWORK, OPTIONS)


def test_platt_finds_the_sigmoid_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 20_000)
    label = rng.random(20_000) < 1 / (1 + np.exp(-(0.7 * logits - 1)))
    slope, offset = fit_platt(logits, label)
    assert abs(slope - 0.7) < 0.05 and abs(offset + 1) < 0.08


def test_platt_keeps_the_order_of_useless_or_perfect_logits() -> None:
    label = np.array([True, False] * 50)
    assert fit_platt(np.where(label, -1.0, 1.0), label)[0] > 0
    slope, _ = fit_platt(np.where(label, 1.0, -1.0), label)
    assert 0 < slope < 100
    assert fit_platt(np.zeros(100), label)[0] > 0


@pytest.mark.parametrize("far", [-40.0, 0.0, 20.0])
def test_logits_that_are_alike_and_far_from_zero_are_calibrated(far: float) -> None:
    logits = far + np.array([0.23, 0.28, 0.17, 0.19, 0.29, -0.2, 0.14, 0.15])
    label = logits > far
    slope, offset = fit_platt(logits, label)
    assert slope == pytest.approx(fit_platt(logits - far, label)[0])
    assert ((1 / (1 + np.exp(-(slope * logits + offset))) > 0.5) == label).all()
