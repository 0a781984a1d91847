"""Rows of the node table are a function of the graph, however they came about."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from benchmarks.catalogues import catalogues, film, person
from index.entity import node_of
from index.store import Store
from model.encoding.encoder import Encoder
from model.shapes import UNIT
from stream.engine import embedding as module
from stream.engine.embedding import Embedding
from stream.engine.node_table import FIELDS
from stream.engine.views import NAMES, OFF
from stream.events import Delete, EntityEvent, Upsert
from tests.stream.engine.graphs import Graph

EVENTS = catalogues(40)
ENCODER = Encoder.fit(EVENTS)
WITHOUT_WORDS = tuple(OFF if name.endswith("words") else 1 for name in NAMES)
# Slots rest on the order of arrival, and a row's content is unknown until it is asked for.
COMPARED = [field for field in FIELDS if field not in ("node", "sample", "space", "content")]


def follow(embedding: Embedding, graph: Graph, events: Sequence[EntityEvent]) -> int:
    """Refreshes what events touch, and in turn what that makes stale; how many rows were made anew."""
    received = graph.apply(events)
    nodes, changed, count = [*received.touched], received.after, 0
    while nodes:
        count += len(nodes)
        here = {node: changed[node] for node in nodes if node in changed}
        stale, hubs = embedding.refresh(nodes, embedding.read(here))
        for hub in hubs:
            start = b""
            while True:
                some, start = embedding.expand(hub, start, 4)
                stale += some
                if not start:
                    break
        nodes, changed = [*dict.fromkeys(stale)], {}
    return count


def rows_of(embedding: Embedding) -> dict[int, dict[str, bytes]]:
    """Every row by its node, the sample as nodes."""
    rows = embedding.table.rows
    found = {}
    for slot, node in enumerate(rows["node"].tolist()):
        row = {field: rows[field][slot].tobytes() for field in COMPARED}
        sample = rows["sample"][slot]
        row["sample"] = np.where(sample < 0, 0, rows["node"][sample]).tobytes()
        found[node] = row
    return found


@pytest.mark.parametrize("floors", [(), WITHOUT_WORDS], ids=["all views", "without words"])
@pytest.mark.parametrize("hub_degree", [2, 4096])
def test_rows_kept_up_to_date_are_those_made_from_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_degree: int, floors: Sequence[int]
) -> None:
    """Also where neighbours are looked through a piece at a time."""
    monkeypatch.setattr(module, "HUB_DEGREE", hub_degree)
    chance = Random(3)
    renamed = [
        msgspec.structs.replace(person("left", number), attributes={"name": f"somebody else {number}"})
        for number in range(8)
    ]
    renamed += [  # the most telling text, whose hash a row has, stays
        msgspec.structs.replace(one, attributes={**one.attributes, "note": f"quite a stranger {number}"})
        for number, one in enumerate([person("right", number) for number in range(8)])
    ]
    moved = [msgspec.structs.replace(film("right", 3), relations={"starring": ["p1", "p2"]})]
    events: list[EntityEvent] = [*EVENTS, *renamed, *moved, Delete("left", "f5"), Delete("left", "p9")]
    with Store(tmp_path) as store:
        graph = Graph(store)
        kept = Embedding(graph.graph, ENCODER, floors)
        while events:
            size = chance.randint(1, 40)
            follow(kept, graph, events[:size])
            events = events[size:]
        made = Embedding(graph.graph, ENCODER, floors)
        made.fill({})
        assert rows_of(kept) == rows_of(made) and len(made.table) > 200


def test_what_looks_the_same_makes_nothing_stale(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        embedding = Embedding(graph.graph, ENCODER, ())
        follow(embedding, graph, EVENTS)
        someone = EVENTS[0]
        assert someone.type == "person" and graph.graph.neighbours(node_of("left:p0"))[0]
        assert follow(embedding, graph, [msgspec.structs.replace(someone, version=7)]) == 1
        embedding.moved([node_of("left:p0")])
        assert not embedding.moved([node_of("left:p0")]).any()
        renamed = msgspec.structs.replace(someone, attributes={"name": "quite another name"})
        assert follow(embedding, graph, [renamed]) > 1
        assert embedding.moved([node_of("left:p0")]).all()


def test_similarity_is_that_of_the_rows(tmp_path: Path) -> None:
    twins = [
        Upsert(source, "x", "film", {"title": "amber birch", "year": 1999}) for source in ("left", "right")
    ]
    with Store(tmp_path) as store:
        graph = Graph(store)
        embedding = Embedding(graph.graph, ENCODER, ())
        follow(embedding, graph, [*EVENTS, *twins])
        left, right, other = (node_of(name) for name in ("left:x", "right:x", "right:f3"))
        [same], [different] = embedding.similarities([left], [right]), embedding.similarities([left], [other])
        assert abs(int(same[0]) - UNIT) < UNIT // 50 and same[0] > different[0]
        assert same[NAMES.index("level1")] == 0  # neither has a neighbour
        assert embedding.types([left, right]) == ["film", "film"]
        follow(embedding, graph, [Delete("right", "x")])
        assert not embedding.similarities([left], [right]).any()


def test_a_view_that_is_off_has_no_vectors(tmp_path: Path) -> None:
    floors = [OFF if name == "far_words" else 1 for name in NAMES]
    with Store(tmp_path) as store:
        graph = Graph(store)
        graph.apply(EVENTS)
        embedding = Embedding(graph.graph, ENCODER, floors)
        embedding.fill({})
        rows = embedding.table.rows
        assert rows["near_words"].any() and not rows["far_words"].any()


def test_a_waiting_row_is_what_was_in_force_until_it_is_refreshed(tmp_path: Path) -> None:
    """After a restart: lists and scores in the store rest on what was in force."""
    with Store(tmp_path) as store:
        graph = Graph(store)
        before = Embedding(graph.graph, ENCODER, ())
        follow(before, graph, EVENTS)
        waiting = node_of("left:f1")
        [in_force] = before.in_force([waiting])
        cast = EVENTS[[event.id for event in EVENTS].index("f1")].relations["starring"]
        graph.apply([Upsert("left", cast[0], "person", {"name": "quite another name"})])
        after = Embedding(graph.graph, ENCODER, ())
        after.fill({waiting: in_force})
        assert after.in_force([waiting]) == [in_force]
        after.refresh([waiting])
        assert after.in_force([waiting]) != [in_force]
