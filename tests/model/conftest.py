"""Random pairs and networks for the tests of the model."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.scoring.network import AlignmentNetwork, NetworkOptions
from model.scoring.pairs import PairInputs, Side, Similarities, similarities
from model.scoring.trees import AGREES, NODES, Trees
from model.shapes import DIM, LEVEL, OWN, SLOTS
from tests.model.arrays import in_step

KEYS, CONTEXT = 30, 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def random_inputs() -> Callable[[int, int], PairInputs]:
    """Pairs with about half of their slots filled; some with one side empty."""

    def make(pairs: int, seed: int) -> PairInputs:
        rng = np.random.default_rng(seed)

        def side() -> Side:
            vec = rng.integers(-60, 60, (pairs, SLOTS, DIM)).astype(np.int8)
            nbr = rng.integers(-60, 60, (pairs, SLOTS, DIM)).astype(np.int8)
            level0, level1 = rng.integers(-60, 60, (2, pairs, SLOTS, LEVEL)).astype(np.int8)
            for of_neighbours in (nbr, level0, level1):
                of_neighbours[:, :OWN] = 0
            key = rng.integers(1, KEYS, (pairs, SLOTS)).astype(np.int16)
            hashes = rng.integers(1, 40, (pairs, SLOTS)) * 77_777
            empty = rng.random((pairs, SLOTS)) < rng.choice([0.2, 0.6, 1.0], (pairs, 1))
            for array in (vec, nbr, level0, level1, key, hashes):
                array[empty] = 0
            return Side(vec, nbr, level0, level1, key, hashes)

        return PairInputs(side(), side(), rng.normal(size=(pairs, CONTEXT)).astype(np.float32))

    return make


@pytest.fixture(scope="session")
def make_network(random_inputs: Callable[[int, int], PairInputs]) -> Callable[..., AlignmentNetwork]:
    """Networks with every parameter away from its start, so that nothing cancels; takes NetworkOptions."""

    def make(**options: Any) -> AlignmentNetwork:
        torch.manual_seed(7)
        network = AlignmentNetwork(NetworkOptions(keys=KEYS, context=CONTEXT, **options))
        network.fit_bins(torch.from_numpy(random_inputs(500, 9).context))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return network.eval()

    return make


@pytest.fixture(scope="session")
def random_network(make_network: Callable[..., AlignmentNetwork]) -> AlignmentNetwork:
    """The network with all of its parts."""
    return make_network()


@pytest.fixture(scope="session")
def alike_inputs(random_inputs: Callable[[int, int], PairInputs]) -> Callable[[int, int], PairInputs]:
    """Half of the pairs have some of their slots' vectors in common."""

    def make(pairs: int, seed: int) -> PairInputs:
        inputs = random_inputs(pairs, seed)
        alike = np.random.default_rng(seed).random(inputs.left.key.shape) < 0.3
        alike[::2] = False
        alike &= (inputs.left.key != 0) & (inputs.right.key != 0)
        for mine, its in in_step(inputs.right, inputs.left):
            mine[alike] = its[alike]
        return inputs

    return make


def features(pairs: Similarities) -> npt.NDArray[np.float32]:
    """(P, C + SUMMARY) what trees see of pairs, all pairs at a time."""
    own, equal = pairs.own.numpy(), pairs.equal.numpy()
    left, right = pairs.left_key.numpy() != 0, pairs.right_key.numpy() != 0
    own = np.where(left[:, :, None] & right[:, None, :], own, 0)
    levels = pairs.level0.numpy(), pairs.level1.numpy()
    kinds = slice(OWN), slice(OWN, None)
    largest = [own[:, i, j].max(axis=(1, 2)) for i in kinds for j in kinds]
    largest += [level.max(axis=(1, 2)) for level in levels]
    columns: list[npt.NDArray[np.float32]] = [
        pairs.context.numpy(),
        *(np.maximum(most, 0)[:, None] for most in largest),
    ]
    for filled, axis in ((left, 2), (right, 1)):
        best = np.maximum(own.max(axis=axis), 0)
        totals = [best, equal.max(axis=axis), filled, best > AGREES]
        totals += [np.maximum(level.max(axis=axis), 0) for level in levels]
        columns += [total.sum(axis=1, dtype=np.float32)[:, None] for total in totals]
    return np.concatenate(columns, axis=1)


@pytest.fixture(scope="session")
def random_trees(alike_inputs: Callable[[int, int], PairInputs]) -> Trees:
    """One tree for each thing that trees see, cut at one of the values that it has."""
    seen = features(similarities(alike_inputs(600, 4)))
    trees = seen.shape[1]
    values = [np.unique(column) for column in seen.T]
    assert min(map(len, values)) > 1
    feature = np.zeros((trees, NODES), np.int32)
    feature[:, 0] = np.arange(trees)
    threshold = np.full((trees, NODES), np.inf, np.float32)
    threshold[:, 0] = [column[(len(column) - 1) // 2] for column in values]
    said = np.random.default_rng(6).normal(size=(trees, NODES + 1))
    return Trees(np.array([0.3]), feature, threshold, said, np.array([-0.5]))
