"""What leads to entities that do not exist is counted exactly, in pieces of any size."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.store import Store
from stream.changes import Change, Edge, JoinChange, LinkChange
from stream.engine import dangling
from stream.engine.dangling import DanglingSearch
from stream.engine.interface import Dangling
from stream.events import Delete, Link, Message, Upsert
from tests.stream.engine.graphs import Graph

IDS = st.sampled_from("abcdef")
SOURCES = st.sampled_from(["x", "y"])
RELATIONS = st.dictionaries(st.sampled_from(["by", "in"]), st.lists(IDS, max_size=3), max_size=2)
UPSERT = st.builds(Upsert, SOURCES, IDS, st.just("t"), st.just({}), RELATIONS)
EDGE = st.builds(Edge, st.just("x"), IDS, st.sampled_from(["on", "by"]), IDS)
JOIN = st.builds(JoinChange, st.sampled_from([b"1", b"2", b"3"]), st.none() | EDGE)
LINK = st.builds(Link, IDS.map("x:{}".format), IDS.map("y:{}".format), st.just("same"))
VERDICT = st.tuples(LINK, st.booleans()).map(
    lambda said: LinkChange(said[0].left, said[0].right, said[0] if said[1] else None)
)
CHANGES = st.lists(UPSERT | st.builds(Delete, SOURCES, IDS) | JOIN | VERDICT, max_size=14)


def look(search: DanglingSearch) -> Dangling:
    """Until it is through."""
    while (found := search.look()) is None:
        pass
    return found


def expected(changes: Sequence[Change]) -> Dangling:
    """By going through all that was said last."""
    entities: dict[str, Upsert] = {}
    rows: dict[bytes, Edge | None] = {}
    verdicts: dict[tuple[str, str], Link | None] = {}
    for change in changes:
        match change:
            case Upsert():
                entities[f"{change.source}:{change.id}"] = change
            case Delete():
                entities.pop(f"{change.source}:{change.id}", None)
            case JoinChange():
                rows[change.row] = change.edge
            case LinkChange():
                verdicts[change.left, change.right] = change.link
    edges = {(edge.source, edge.relation, edge.tail) for edge in rows.values() if edge is not None}
    for entity in entities.values():
        for name, ids in entity.relations.items():
            edges |= {(entity.source, name, target) for target in ids}
    targets: dict[tuple[str, str], int] = {}
    for source, name, target in edges:
        if f"{source}:{target}" not in entities:
            targets[source, name] = targets.get((source, name), 0) + 1
    kept = [pair for pair, link in verdicts.items() if link is not None]
    return Dangling(targets, sum(not entities.keys() >= {*pair} for pair in kept))


@settings(max_examples=60)
@given(CHANGES, st.integers(1, 4))
def test_it_finds_what_the_messages_left(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Change], piece: int
) -> None:
    def decode(message: Message) -> Sequence[Change]:
        return [changes[int(message.value or b"")]]

    with pytest.MonkeyPatch.context() as patch, Store(tmp_path_factory.mktemp("s")) as store:
        patch.setattr(dangling, "PIECE", piece)
        graph = Graph(store, decode)
        graph.inbox.receive(graph.messages(*(str(number).encode() for number in range(len(changes)))))
        store.commit()
        search = DanglingSearch(store, graph.graph)
        for _ in range(2):
            assert look(search) == expected(changes)


def test_it_begins_again_with_what_has_changed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        search = DanglingSearch(store, graph.graph)
        assert look(search) == Dangling({}, 0)
        graph.apply([Upsert("x", "a", "t", {}, {"by": ["b", "c"]}), Upsert("x", "d", "t", {}, {"by": ["b"]})])
        assert look(search) == Dangling({("x", "by"): 2}, 0)
        graph.apply([Upsert("x", "b", "t")])
        assert look(search) == Dangling({("x", "by"): 1}, 0)
        graph.apply([Upsert("x", "a", "t")])
        assert look(search) == Dangling({}, 0)
