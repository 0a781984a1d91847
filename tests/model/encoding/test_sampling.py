"""The draw: a function of the graph, weighted by how few share a relation, stable under growth."""

import numpy as np

from index.graph import EDGE, edge_hash
from model.encoding.neighbourhood import HUB_COUNT, neighbourhood
from model.encoding.sampling import draw, power_of_two
from model.shapes import SAMPLE


def edges_of(node: int, relations: dict[int, list[int]]) -> np.ndarray:
    rows = []
    for relation, neighbours in relations.items():
        places = edge_hash(
            np.full(len(neighbours), node, np.uint64),
            np.full(len(neighbours), relation, np.uint64),
            np.array(neighbours, np.uint64),
        ).tolist()
        drawn = [n for _, n in sorted(zip(places, neighbours, strict=True))][:SAMPLE]
        rows += [(relation, n, len(neighbours)) for n in drawn]
    return np.array(rows, EDGE)


def sample(node: int, relations: dict[int, list[int]]) -> list[int]:
    edges = edges_of(node, relations)
    drawn = draw(np.array([node], np.uint64), edges, np.array([len(edges)]))
    neighbours: list[int] = drawn.neighbours[0, : drawn.drawn[0]].tolist()
    return neighbours


def test_a_lone_neighbour_is_drawn_before_one_of_many() -> None:
    first = [sample(node, {1: [5], 2: list(range(100, 200))})[0] for node in range(1000, 1400)]
    # 1 : 1/128 a piece, a hundred of them: the one director comes first in about 128/228 of all films
    assert 0.48 < first.count(5) / len(first) < 0.64


def test_everyone_of_many_is_drawn_equally_often() -> None:
    drawn = [n for node in range(2000) for n in sample(node + 1000, {1: list(range(100, 148))})]
    counts = np.bincount(np.array(drawn) - 100, minlength=48)
    expected = 2000 * SAMPLE / 48
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_growth_changes_a_sample_only_by_the_newcomer() -> None:
    changed = 0
    for node in range(1000, 1400):
        before, after = sample(node, {1: list(range(100, 200))}), sample(node, {1: list(range(100, 201))})
        assert set(after) - set(before) <= {200}
        changed += before != after
    assert changed / 400 < 2.5 * SAMPLE / 101


def test_the_batch_does_not_matter() -> None:
    graphs = {node: edges_of(node, {1: list(range(node, node + 20)), 2: [3, 4]}) for node in range(50, 60)}
    nodes = np.array(list(graphs), np.uint64)
    together = draw(nodes, np.concatenate(list(graphs.values())), np.array([len(e) for e in graphs.values()]))
    for row, (node, edges) in enumerate(graphs.items()):
        alone = draw(np.array([node], np.uint64), edges, np.array([len(edges)]))
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], many[row])


def test_oneself_is_no_neighbour_and_no_edges_are_fine() -> None:
    assert sample(7, {1: [7, 8]}) == [8]
    nothing = draw(np.array([1, 2], np.uint64), np.zeros(0, EDGE), np.array([0, 0]))
    assert nothing.drawn.tolist() == [0, 0] and nothing.degrees.tolist() == [1, 1]


def test_powers_of_two() -> None:
    assert power_of_two(np.array([0, 1, 2, 3, 4, 5, 1000])).tolist() == [1, 1, 2, 4, 4, 8, 1024]


def test_a_neighbourhood_does_not_depend_on_order_and_leaves_hubs_out() -> None:
    rng = np.random.default_rng(0)
    names = rng.integers(-127, 128, (1, SAMPLE, 128)).astype(np.int8)
    counts = 2 ** rng.integers(0, 5, (1, SAMPLE))
    degrees = 2 ** rng.integers(0, 5, (1, SAMPLE))
    order = rng.permutation(SAMPLE)
    np.testing.assert_array_equal(
        neighbourhood(names, counts, degrees),
        neighbourhood(names[:, order], counts[:, order], degrees[:, order]),
    )
    assert not neighbourhood(names, np.full_like(counts, 2 * HUB_COUNT), degrees).any()
