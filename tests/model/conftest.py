"""Random pairs and networks for the tests of the model."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from model.scoring.network import AlignmentNetwork, NetworkOptions
from model.scoring.pairs import PairInputs, Side, similarities
from model.scoring.trees import NODES, Trees, features
from model.shapes import DIM, OWN, SLOTS
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
            nbr[:, :OWN] = 0
            key = rng.integers(1, KEYS, (pairs, SLOTS)).astype(np.int16)
            hashes = rng.integers(1, 40, (pairs, SLOTS)) * 77_777
            empty = rng.random((pairs, SLOTS)) < rng.choice([0.2, 0.6, 1.0], (pairs, 1))
            for array in (vec, nbr, key, hashes):
                array[empty] = 0
            return Side(vec, nbr, key, hashes)

        return PairInputs(side(), side(), rng.normal(size=(pairs, CONTEXT)).astype(np.float32))

    return make


@pytest.fixture(scope="session")
def make_network(random_inputs: Callable[[int, int], PairInputs]) -> Callable[..., AlignmentNetwork]:
    """Networks with every parameter away from its start, so that nothing cancels; takes NetworkOptions."""

    def make(**options: bool) -> AlignmentNetwork:
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
    return Trees(np.array([0.3]), feature, threshold, said)
