"""The compiled trees say what scikit-learn's do, of what training showed them."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from model.scoring.comparing import seen_by_trees, slots_of
from model.scoring.network import AlignmentNetwork
from model.scoring.pairs import PairInputs, similarities
from model.scoring.scorer import DenseScorer
from model.scoring.trees import SUMMARY, Trees, fit_trees, say, say_all
from tests.model.arrays import in_step
from tests.model.conftest import features

Make = Callable[[int, int], PairInputs]


def test_they_say_what_scikit_learn_says() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(3000, 6)).astype(np.float32)
    seen[:, 5] = np.round(seen[:, 5])  # values that are thresholds
    label = seen[:, 0] * seen[:, 1] + seen[:, 5] > 0.5
    models = []

    def kept(self: HistGradientBoostingClassifier, *args: object) -> HistGradientBoostingClassifier:
        models.append(fit(self, *args))
        return models[-1]

    fit = HistGradientBoostingClassifier.fit
    with patch.object(HistGradientBoostingClassifier, "fit", kept):
        trees = fit_trees(seen, label, 80, 0)
    expected = models[0].decision_function(seen)
    assert np.abs(say_all(trees, seen) - expected).max() < 1e-9
    assert expected.std() > 0.5


def test_serving_sees_what_training_saw(
    alike_inputs: Make, make_network: Callable[..., AlignmentNetwork], random_trees: Trees
) -> None:
    inputs = alike_inputs(600, 4)
    every = np.arange(600)
    seen = seen_by_trees(slots_of(inputs.left), slots_of(inputs.right), every, every, inputs.context)
    assert seen.tobytes() == features(similarities(inputs)).tobytes()
    said = say_all(random_trees, seen)
    network = make_network()
    with torch.no_grad():
        network.alone.zero_()
    alone = DenseScorer(network).logits(inputs)
    both = DenseScorer(network, random_trees).logits(inputs)
    survives = said >= random_trees.least[0]
    assert 100 < survives.sum() < 500
    assert np.abs(said + survives * alone - both).max() < 1e-5
    assert seen.shape == (600, inputs.context.shape[1] + SUMMARY)


def test_the_same_pairs_and_seed_give_the_same_trees(random_inputs: Make) -> None:
    seen = features(similarities(random_inputs(600, 4)))
    label = seen[:, 0] + seen[:, 6] > 0.5
    first, second = (fit_trees(seen, label, 20, 1) for _ in range(2))
    for one, other in in_step(first, second):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("pairs", [3, 30])
def test_too_few_pairs_make_trees_that_say_what_all_pairs_have_in_common(pairs: int) -> None:
    trees = fit_trees(np.zeros((pairs, 4), np.float32), np.arange(pairs) % 3 == 0, 10, 0)
    assert say(trees, np.ones(4, np.float32)) == pytest.approx(np.log(0.5), abs=1e-6)
