"""Adjacency: heads hold the first of the race and true counts, whatever was added and removed before."""

import random
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import TempPathFactory

from index.entity import relation_of
from index.graph import HEAD_EDGES, EdgeChange, GraphStore, edge_hash
from index.store import Store

HUB = 1
EDGE = st.builds(EdgeChange, st.just(HUB), st.integers(1, 2), st.integers(10, 45), st.booleans())


def expected_head(edges: set[tuple[int, int]], node: int = HUB) -> dict[int, tuple[int, list[int]]]:
    head: dict[int, tuple[int, list[int]]] = {}
    for relation in {r for r, _ in edges}:
        neighbours = [n for r, n in edges if r == relation]
        places = edge_hash(
            np.full(len(neighbours), node, np.uint64),
            np.full(len(neighbours), relation, np.uint64),
            np.array(neighbours, np.uint64),
        ).tolist()
        drawn = [n for _, n in sorted(zip(places, neighbours, strict=True))]
        head[relation] = (len(neighbours), drawn[:HEAD_EDGES])
    return head


def stored_head(graph: GraphStore, node: int = HUB) -> dict[int, tuple[int, list[int]]]:
    edges, _ = graph.heads([node])
    head: dict[int, tuple[int, list[int]]] = {}
    for relation, neighbour, count in edges.tolist():
        head.setdefault(relation, (count, []))[1].append(neighbour)
    return head


def all_neighbours(graph: GraphStore, most: int = 7) -> list[int]:
    found, start = graph.neighbours(HUB, most=most)
    while start:
        more, start = graph.neighbours(HUB, start, most)
        found += more
    return found


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(10, 30)), max_size=40),
        max_size=6,
    ),
    st.integers(0, 4),
)
def test_nodes_that_grow_together_have_heads_of_their_own(
    tmp_path_factory: TempPathFactory, batches: list[list[tuple[int, int, int]]], removed: int
) -> None:
    """Those that lose an edge or overflow among them."""
    with Store(tmp_path_factory.mktemp("state")) as store:
        graph = GraphStore(store)
        edges: set[tuple[int, int, int]] = set()
        for batch in batches:
            gone = sorted(edges)[:removed]
            graph.connect(
                [
                    *(EdgeChange(*edge, added=False) for edge in gone),
                    *(EdgeChange(*edge, added=True) for edge in batch),
                ]
            )
            store.commit()
            edges = edges.difference(gone).union(batch)
            for node in range(1, 5):
                expected = {(relation, neighbour) for at, relation, neighbour in edges if at == node}
                assert stored_head(graph, node) == expected_head(expected, node)


@settings(max_examples=60)
@given(st.lists(st.lists(EDGE, max_size=60), max_size=6))
def test_heads_are_those_of_the_final_edges(
    tmp_path_factory: TempPathFactory, batches: list[list[EdgeChange]]
) -> None:
    with Store(tmp_path_factory.mktemp("state")) as store:
        graph = GraphStore(store)
        edges: set[tuple[int, int]] = set()
        for batch in batches:
            graph.connect(batch)
            store.commit()
            for change in batch:
                (edges.add if change.added else edges.discard)((change.relation, change.neighbour))
            assert stored_head(graph) == expected_head(edges)
            assert sorted(all_neighbours(graph)) == sorted(n for _, n in edges)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_heads_of_hubs_are_those_of_the_final_edges(tmp_path_factory: TempPathFactory, seed: int) -> None:
    """Of hubs that gain and lose as many edges at once as heads hold, and more, some edges twice."""
    chance = random.Random(seed)
    with Store(tmp_path_factory.mktemp("state")) as store:
        graph = GraphStore(store)
        edges: set[tuple[int, int]] = set()
        for share in (1.0, 0.3, 0.7, 0.1):
            batch = [
                EdgeChange(HUB, chance.randint(1, 2), chance.randint(10, 50), chance.random() < share)
                for _ in range(60)
            ]
            graph.connect(batch)
            store.commit()
            for change in batch:
                (edges.add if change.added else edges.discard)((change.relation, change.neighbour))
            assert stored_head(graph) == expected_head(edges)
            assert sorted(all_neighbours(graph)) == sorted(n for _, n in edges)


def test_a_hub_costs_little_to_change(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = GraphStore(store)
        graph.connect([EdgeChange(HUB, 1, n, True) for n in range(10, 20_010)])
        store.commit()
        edges, lengths = graph.heads([HUB, 2])
        assert lengths.tolist() == [HEAD_EDGES, 0]
        assert set(edges["count"].tolist()) == {20_000}
        assert len(set(all_neighbours(graph))) == 20_000
        assert len(graph.neighbours(HUB, most=100)[0]) == 100


def test_relations_of_two_sources_differ() -> None:
    assert relation_of("a", "knows") != relation_of("b", "knows")
    assert relation_of("a", "knows") != relation_of("a", "~knows")
