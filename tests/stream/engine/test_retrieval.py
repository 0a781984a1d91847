"""Candidates are a function of the rows, and what an update reports is what changed."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest

from benchmarks.catalogues import catalogues, film
from index.candidates import CandidateOptions
from index.entity import Entity, Value, node_of
from index.search.arrays import Pairs
from index.store import Store
from model.encoding.encoder import Encoder
from stream.engine.embedding import Embedding
from stream.engine.pairs import FoundPairs, SourcePair
from stream.engine.retrieval import Retrieval
from stream.engine.views import NAMES, OFF, VIEWS
from stream.events import Delete, EntityEvent, Upsert, curie
from tests.stream.engine.graphs import Graph

EVENTS = catalogues(40)
ENCODER = Encoder.fit(EVENTS)
OPTIONS = CandidateOptions(3, tuple(view.least_floor for view in VIEWS))
FILMS, PEOPLE = SourcePair("film", "left", "right"), SourcePair("person", "left", "right")

Named = set[tuple[SourcePair, int, int]]


class Engine:
    """A graph, its rows and its lists."""

    def __init__(self, store: Store, *, cells: bool = False, options: CandidateOptions = OPTIONS) -> None:
        self.graph = Graph(store)
        self.embedding = Embedding(self.graph.graph, ENCODER, options.floors, cells=cells)
        self.retrieval = Retrieval(self.embedding, options)

    def apply(self, *events: EntityEvent) -> Named:
        """Follows events up; the pairs that were reported."""
        received = self.graph.apply(events)
        reported, nodes = set(), [*received.touched]
        changed: Mapping[int, Entity] = received.after
        while nodes:
            here = {node: changed[node] for node in nodes if node in changed}
            found, stale, hubs = self.retrieval.evaluate(nodes, self.embedding.read(here), received.changed)
            assert not hubs
            reported |= self.named(found)
            nodes, changed = stale, {}
        return reported

    def named(self, found: list[FoundPairs]) -> Named:
        node = self.embedding.table.rows["node"]
        return {
            (sources, *pair)
            for sources, pairs in found
            for pair in zip(node[pairs.left].tolist(), node[pairs.right].tolist(), strict=True)
        }

    def candidates(self) -> Named:
        """All there are now."""
        return self.named(self.retrieval.candidates(self.embedding.table.rows["node"].tolist()))


@pytest.mark.parametrize("cells", [False, True], ids=["exact", "cells"])
def test_lists_kept_up_to_date_are_those_made_from_the_rows(tmp_path: Path, cells: bool) -> None:
    chance = Random(5)
    events: list[EntityEvent] = [
        *EVENTS,
        *(msgspec.structs.replace(film("left", n), attributes={"title": f"delta {n}"}) for n in range(6)),
        *(Delete("right", f"f{n}") for n in range(4, 9)),
        msgspec.structs.replace(film("right", 20), type="person", relations={}),
    ]
    with Store(tmp_path) as store:
        kept = Engine(store, cells=cells)
        while events:
            size = chance.randint(1, 12)
            before = kept.candidates()
            reported = kept.apply(*events[:size])
            after = kept.candidates()
            # pairs that began or ceased to be candidates, and all of those whose entities changed
            assert before ^ after <= reported
            changed = {node_of(curie(event.source, event.id)) for event in events[:size]}
            assert {pair for pair in after if changed & {*pair[1:]}} <= reported
            events = events[size:]
        made = Engine(store, cells=cells)
        made.embedding.fill({})
        made.retrieval.fill()
        assert kept.candidates() == made.candidates() and len(made.candidates()) > 100
        assert {pair.type for pair, _, _ in made.candidates()} == {"film", "person"}
        for pair, left, right in sorted(made.candidates())[::50]:
            assert kept.retrieval.ranks(pair, left, right) == made.retrieval.ranks(pair, left, right)


def test_each_is_first_among_the_nearest_of_its_twin(tmp_path: Path) -> None:
    said: dict[str, Value] = {"title": "unlike all others", "year": 1888}
    twins = [Upsert(source, "x", "film", said) for source in ("left", "right")]
    with Store(tmp_path) as store:
        engine = Engine(store)
        engine.apply(*EVENTS)
        left, right = node_of("left:x"), node_of("right:x")
        assert (FILMS, left, right) in engine.apply(*twins)
        similarity, *ranks = engine.retrieval.ranks(FILMS, left, right)["name"]
        assert similarity > 0.98 and ranks == [1, 1]
        slots = engine.embedding.table.slots([left]), engine.embedding.table.slots([right])
        context, is_candidate = engine.retrieval.context(FILMS, Pairs(*slots))
        assert is_candidate.all() and context[0, 0] > 0.98 and (context[0, 1:3] == 0).all()
        assert not engine.retrieval.ranks(FILMS, left, node_of("right:f1"))["name"][1]
        # a pair of which one is gone is reported, to be scored as none
        assert (FILMS, left, right) in engine.apply(Delete("right", "x"))
        assert (FILMS, left, right) not in engine.candidates()


def test_an_entity_of_another_type_leaves_its_lists(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        engine = Engine(store)
        engine.apply(*EVENTS)
        node = node_of("left:f1")
        before = {pair for pair in engine.candidates() if node in pair}
        assert before and {pair[0] for pair in before} == {FILMS}
        reported = engine.apply(msgspec.structs.replace(film("left", 1), type="person", relations={}))
        assert before <= reported
        after = {pair for pair in engine.candidates() if node in pair}
        assert {pair[0] for pair in after} <= {PEOPLE}
        # what was reported of it as a film has no type in common now
        slots = engine.embedding.table.slots
        pairs = Pairs(slots([left for _, left, _ in before]), slots([right for *_, right in before]))
        assert [*engine.retrieval.by_type(FoundPairs(FILMS, pairs))] == []


def test_found_pairs_are_split_by_whom_they_are_about(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        engine = Engine(store)
        engine.apply(*EVENTS)
        for found in engine.retrieval.candidates(engine.embedding.table.rows["node"].tolist()):
            about, others = engine.retrieval.split(found, [node_of("left:f1"), node_of("left:unheard-of")])
            here, there = engine.named([about]), engine.named([others])
            assert here | there == engine.named([found]) and not here & there
            assert {pair for pair in here | there if node_of("left:f1") in pair} == here


def test_exact_search_finds_all_of_the_nearest_and_says_how_large_it_is(tmp_path: Path) -> None:
    off = tuple(OFF if name == "values" else floor for name, floor in zip(NAMES, OPTIONS.floors, strict=True))
    with Store(tmp_path) as store:
        engine = Engine(store, options=CandidateOptions(3, off))
        engine.apply(*EVENTS)
        assert engine.retrieval.recall(1000) == {"name": 1.0, "levels": 1.0, "level1": 1.0}
        assert engine.retrieval.searched == 96 and engine.retrieval.vectors > 4 * 96
        assert set(engine.retrieval.ranks(FILMS, node_of("left:f1"), node_of("right:f1"))) == {*NAMES} - {
            "values"
        }


def test_saved_lists_are_brought_up_to_date(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        former = Engine(store)
        former.apply(*EVENTS)
        saved = dict(former.retrieval.lists)
        former.graph.apply([film("left", 50), Delete("right", "f2")])
        rows, slots = former.embedding.saved(), np.arange(len(former.embedding.table))
        later = Engine(store)
        later.embedding.fill({}, rows._replace(stored=np.zeros(len(slots), np.uint64)))
        later.retrieval.fill(saved)
        fresh = Engine(store)
        fresh.embedding.fill({})
        fresh.retrieval.fill()
        assert later.candidates() == fresh.candidates()
