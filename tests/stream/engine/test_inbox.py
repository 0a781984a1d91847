"""What messages mean, which of them count, and the graph after them."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import msgspec
import pytest

from index.entity import node_of
from index.store import Store
from stream.changes import Change, Edge, JoinChange, LinkChange, SnapshotRow, UnreadCell
from stream.engine.interface import Counts
from stream.engine.origin import trace
from stream.errors import InvalidInput
from stream.events import Cause, Delete, Link, Message, Upsert
from stream.mapping.canonical import decode_canonical
from stream.mapping.decoder import make_decoder
from stream.mapping.language import Relation, SourceMapping
from tests.stream.engine.graphs import Graph

FILM, PERSON, OTHER = (node_of(name) for name in ("a:f", "a:p", "a:q"))


def film(title: str, *directors: str, version: float | None = None, kind: str = "film") -> Upsert:
    return Upsert("a", "f", kind, {"title": title}, {"by": list(directors)} if directors else {}, version)


def test_an_entity_touches_those_that_it_names_and_those_that_it_no_longer_names(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        first = graph.apply([film("x", "p")])
        assert [*first.changed] == [FILM] and {*first.touched} == {FILM, PERSON}
        assert graph.graph.neighbours(FILM)[0] == [PERSON] and graph.graph.neighbours(PERSON)[0] == [FILM]
        second = graph.apply([film("x", "q")])
        assert {*second.touched} == {FILM, PERSON, OTHER} and not second.gone
        assert graph.graph.neighbours(PERSON)[0] == [] and graph.graph.neighbours(OTHER)[0] == [FILM]


def test_what_ceases_to_be_or_changes_its_type_is_gone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        assert not graph.apply([film("x", "p")]).gone
        assert [*graph.apply([film("x", "p", kind="series")]).gone] == [FILM]
        assert [*graph.apply([Delete("a", "f")]).gone] == [FILM]
        assert graph.graph.neighbours(PERSON)[0] == []
        [entity] = graph.graph.entities([FILM])
        assert entity is not None and entity.deleted and not entity.attributes


def test_what_comes_again_and_what_is_older_is_stale(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        messages = graph.messages(film("new", version=2), film("old", version=1))
        received = graph.inbox.receive(messages)
        assert received.topics == {"t": Counts(received=2, applied=1, stale=1)}
        store.commit()
        again = graph.inbox.receive(messages)
        assert again.topics == {"t": Counts(received=2, stale=2)} and not again.touched
        [entity] = graph.graph.entities([FILM])
        assert entity is not None and entity.attributes == {"title": "new"}
        assert graph.inbox.origin.next_offset("t", 0) == 2 and graph.inbox.origin.offsets() == {("t", 0): 2}
        assert graph.inbox.origin.next_offset("t", 1) is None


def test_versions_with_a_fraction_and_without_are_in_one_order(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        versions = [1706832000.25, 1706832001, 1706832000.75, 1706832001.5, 1706832001]
        titles = [film(str(n), version=version) for n, version in enumerate(versions)]
        assert graph.apply(titles).topics["t"].stale == 2
    with Store(tmp_path) as store:
        [entity] = Graph(store).graph.entities([FILM])
        assert entity is not None and (entity.version, entity.attributes) == (1706832001.5, {"title": "3"})


def test_the_same_state_again_keeps_its_cause(tmp_path: Path) -> None:
    """In Python 1 and 1.0 are equal; as values of an entity they are not."""
    with Store(tmp_path) as store:
        graph = Graph(store)
        graph.apply(
            [Upsert("a", "f", "film", {"year": 1}, {}, 1), Upsert("a", "f", "film", {"year": 1}, {}, 5)]
        )
        [entity] = graph.graph.entities([FILM])
        assert entity is not None and (entity.offset, entity.version) == (0, 5)
        graph.apply([Upsert("a", "f", "film", {"year": 1.0}, {}, 5)])
        [entity] = graph.graph.entities([FILM])
        assert entity is not None and entity.offset == 2


def test_a_bad_message_is_a_dead_letter_and_the_others_count(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        messages = graph.messages(b"{", film("x"), film("y"))
        poison = {messages[2].cause: InvalidInput("failed", "it did")}
        received = graph.inbox.receive(messages, poison)
        assert received.topics == {"t": Counts(received=3, applied=1, dead_lettered=2)}
        letters = [(letter.key, letter.value, dict(letter.headers)) for letter in received.dead_letters]
        assert [letter[:2] for letter in letters] == [(b"a key", b"{"), (b"a key", messages[2].value)]
        assert [(headers["stage"], headers["reason"]) for *_, headers in letters] == [
            (b"decode", b"malformed"),
            (b"process", b"failed"),
        ]
        assert letters[0][2]["offset"] == b"0"
        [entity] = graph.graph.entities([FILM])
        assert entity is not None and entity.attributes == {"title": "x"}
        assert graph.inbox.origin.next_offset("t", 0) == 3


def test_a_message_that_makes_decoding_fail_is_a_dead_letter_and_the_others_count(tmp_path: Path) -> None:
    """Whatever goes wrong: nothing of it has touched the state, which need not be read anew."""

    def decode(message: Message) -> Sequence[Change]:
        if message.value == b"greedy":
            raise MemoryError
        if message.value == b"deep":
            raise RecursionError("too deep " * 1000)
        return decode_canonical(message)

    with Store(tmp_path) as store:
        graph = Graph(store, decode)
        received = graph.inbox.receive(graph.messages(film("x"), b"greedy", b"deep", film("y")))
        assert received.topics == {"t": Counts(received=4, applied=2, dead_lettered=2)}
        headers = [dict(letter.headers) for letter in received.dead_letters]
        assert [(each["stage"], each["reason"]) for each in headers] == [(b"decode", b"failed")] * 2
        assert headers[0]["message"] == b"MemoryError: " and len(headers[1]["message"]) < 1100


def test_a_deletion_of_what_never_came_is_counted_and_not_forgotten(tmp_path: Path) -> None:
    """It may come before what it deletes, and again after it."""
    with Store(tmp_path) as store:
        graph = Graph(store)
        early, late = Delete("a", "f", 7), Delete("a", "g")
        received = graph.apply([early, late, late])
        first = "a:f in t, partition 0, offset 0"
        assert received.topics == {"t": Counts(received=3, applied=1, stale=2, absent=3, first_absent=first)}
        counts = graph.apply([film("x", version=6), Upsert("a", "g", "film"), late, late]).topics["t"]
        assert counts == Counts(received=4, applied=3, stale=1)
        assert graph.graph.exist([node_of("a:f"), node_of("a:g")]) == [False, False]
    assert Counts(stale=1, absent=1, first_absent="x") + Counts(absent=2, first_absent="y") == Counts(
        stale=1, absent=3, first_absent="x"
    )
    assert Counts(absent=2, first_absent="x\x1b").remark.endswith(
        "2 deletions of what never came, first x\ufffd"
    )
    assert not Counts(stale=1).remark


def test_cells_that_were_not_read_are_counted_and_change_nothing(tmp_path: Path) -> None:
    changes: list[list[Change]] = [
        [UnreadCell("at: ?\x1b"), UnreadCell("by: ?"), film("x")],
        [UnreadCell("at: ?"), film("x")],
    ]
    with Store(tmp_path) as store:
        graph = Graph(store, lambda message: changes[message.cause.offset])
        received = graph.inbox.receive(graph.messages(b"", b""))
    first = "at: ?\x1b in t, partition 0, offset 0"
    assert received.topics == {"t": Counts(received=2, applied=2, unread=3, first_unread=first)}
    total = Counts(unread=1, first_unread=first) + Counts(
        absent=1, first_absent="x", unread=2, first_unread="y"
    )
    assert total == Counts(absent=1, first_absent="x", unread=3, first_unread=first)
    assert total.remark == (
        "; 1 deletion of what never came, first x; 3 filled cells not read, first at: ?\ufffd in t, "
        "partition 0, offset 0"
    )


def test_a_row_and_a_verdict_that_never_came(tmp_path: Path) -> None:
    edge = Edge("a", "f", "by", "p")
    link = Link("a:f", "b:f")
    changes: list[Change] = [
        JoinChange(b"1", None),
        JoinChange(b"2", edge),
        JoinChange(b"2", None),
        JoinChange(b"2", None),
        LinkChange("b:f", "a:f", None),
        LinkChange("a:g", "b:f", link),
        LinkChange("b:f", "a:g", None),
        LinkChange("b:f", "a:g", None),
    ]
    with Store(tmp_path) as store:
        graph = Graph(store, lambda message: [changes[message.cause.offset]])
        counts = graph.inbox.receive(graph.messages(*[b""] * len(changes))).topics["t"]
    first = "a row with the key b'a key' in t, partition 0, offset 0"
    assert counts == Counts(received=8, applied=6, stale=2, absent=2, first_absent=first)


def test_a_state_knows_the_topics_that_it_was_made_of(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        origin = Graph(store).inbox.origin
        assert origin.topic_ids() == {}
        origin.adopt({"t": "1", "u": "2"})
        origin.adopt({"t": "3"})
    with Store(tmp_path) as store:
        assert Graph(store).inbox.origin.topic_ids() == {"t": "3", "u": "2"}


def test_a_state_knows_the_last_messages_of_a_partition(tmp_path: Path) -> None:
    """Stored with the offsets, and of messages that came again none twice."""
    with Store(tmp_path) as store:
        graph = Graph(store)
        messages = graph.messages(*(film(str(number)) for number in range(12)))
        for first, last in ((0, 3), (2, 6), (6, 12)):
            graph.inbox.receive(messages[first:last])
            store.commit()
        graph.inbox.receive(graph.messages(film("rolled back")))
        store.rollback()
    with Store(tmp_path) as store:
        applied = Graph(store).inbox.origin.applied([("t", 0), ("t", 1)])
        assert applied == {("t", 0): (12, [*map(trace, messages[4:])]), ("t", 1): (0, [])}
        assert trace(messages[0]) != trace(msgspec.structs.replace(messages[0], timestamp=0.5))


def test_what_is_lost_is_passed_over_and_added_up(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        graph.apply([film("x")])
        graph.inbox.origin.lose("t", 0, 11)
        graph.inbox.origin.lose("t", 0, 13)
        assert graph.inbox.origin.next_offset("t", 0) == 13
    with Store(tmp_path) as store:
        assert Graph(store).inbox.origin.lost() == {("t", 0): 12}


@pytest.mark.parametrize("of_snapshot", [False, True])
def test_rows_of_a_snapshot_are_not_prompt(tmp_path: Path, of_snapshot: bool) -> None:
    def decode(message: Message) -> Sequence[Change]:
        changes = decode_canonical(message)
        return SnapshotRow(changes) if of_snapshot else changes

    with Store(tmp_path) as store:
        received = Graph(store, decode).apply([film("x", "p")])
        assert [*received.changed] == [FILM]
        assert received.prompt == (set() if of_snapshot else {FILM})


def test_nothing_is_stored_before_the_commit(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        graph.inbox.receive(graph.messages(film("x", "p")))
        store.rollback()
        assert graph.graph.entities([FILM]) == [None] and graph.inbox.origin.next_offset("t", 0) is None


def test_rows_of_two_tables_under_one_key_are_counted(tmp_path: Path) -> None:
    """Also those of one batch, and after a restart; not what is made of their cells, nor after a deletion."""
    relations = {"genre": Relation("genre", type="genre")}
    mapping = SourceMapping(topic="t", id="id", attributes=["name"], relations=relations)
    decode = make_decoder({"s": mapping}, "entities", "links")
    numbers = count()

    def row(table: str | None, number: int, op: str = "c") -> Message:
        after = {"id": number, "name": f"{table} {number}", "genre": "drama"}
        about = {"db": "shop", "schema": "public", "table": table}
        event = {"op": op, "before": None, "after": after if op != "d" else None, "source": about}
        value = None if table is None else json.dumps(event).encode()
        offset = next(numbers)
        return Message(Cause("t", 0, offset), json.dumps({"id": number}).encode(), value, float(offset))

    def counts(*messages: Message) -> tuple[int, str]:
        with Store(tmp_path) as store:
            found = Graph(store, decode).inbox.receive(messages).topics["t"]
            store.commit()
            assert found.received == len(messages) == found.applied + found.stale
            return found.replaced, found.first_replaced

    assert counts(row("film", 1), row("film", 2), row("film", 1, "u")) == (0, "")
    first = "s:1 of shop.public.film, by shop.public.person in t, partition 0, offset 4"
    assert counts(row("person", 3), row("person", 1)) == (1, first)
    assert counts(row("person", 1, "u"), row("film", 3, "u"))[0] == 1
    assert counts(row("film", 1), row("person", 1), row("film", 1))[0] == 3
    assert counts(row("film", 1, "d"), row(None, 1), row("person", 1)) == (0, "")
    with Store(tmp_path) as store:
        [entity] = Graph(store, decode).graph.entities([node_of("s:1")])
        assert entity is not None and entity.attributes == {"name": "person 1"}
    both = Counts(absent=1, first_absent="x", replaced=2, first_replaced="y\x1b")
    assert both.remark == (
        "; 1 deletion of what never came, first x; 2 rows replaced by a row of another table, first y\ufffd"
    )
