"""What two partitions say of the same thing ends the same, in whatever order they are read."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.entity import node_of
from index.store import Store
from stream.changes import Change, Edge, JoinChange
from stream.engine.links import LinkStore
from stream.engine.pairs import PairId
from stream.engine.words import LastWords, Word
from stream.events import Cause, Delete, EntityEvent, Link, Message, Upsert
from tests.stream.engine.graphs import Graph

FILM = node_of("a:f")
PAIR = PairId(node_of("a:1"), node_of("b:1"), "a", "b")

# a title, or None for a tombstone; a version; a time
SAID = st.tuples(st.sampled_from(["x", "y", None]), st.integers(1, 3), st.integers(0, 5))


def entity_message(said: tuple[str | None, int, int], where: Cause, *, versions: bool) -> Message:
    title, version, time = said
    known = version if versions else None
    event: EntityEvent = Delete("a", "f", known)
    if title is not None:
        event = Upsert("a", "f", "film", {"title": title}, {}, known)
    return Message(where, b"a:f", msgspec.json.encode(event), float(time))


def interleaved(first: Sequence[Any], second: Sequence[Any]) -> Iterator[list[Any]]:
    """Every order in which two partitions can be read."""
    length = len(first) + len(second)
    for places in itertools.combinations(range(length), len(first)):
        left, right = iter(first), iter(second)
        yield [next(left) if number in places else next(right) for number in range(length)]


def at_the_end(store: Store, messages: Sequence[Message], batch: int) -> Any:
    store.rollback()
    graph = Graph(store)
    for start in range(0, len(messages), batch):
        graph.inbox.receive(messages[start : start + batch])
    [entity] = graph.graph.entities([FILM])
    if entity is None or entity.deleted:
        return None
    return entity.attributes, entity.version, (entity.partition, entity.offset, entity.timestamp)


@pytest.mark.parametrize("versions", [False, True])
@given(st.data())
def test_an_entity_is_the_same_after_any_interleaving(versions: bool, data: st.DataObject) -> None:
    said = [data.draw(st.lists(SAID, max_size=3)) for _ in range(2)]
    partitions = [
        [
            entity_message(one, Cause("t", number, offset), versions=versions)
            for offset, one in enumerate(each)
        ]
        for number, each in enumerate(said)
    ]
    batch = data.draw(st.sampled_from([1, 2, 6]))
    with TemporaryDirectory() as directory, Store(Path(directory)) as store:
        found = [at_the_end(store, messages, batch) for messages in interleaved(*partitions)]
    assert all(one == found[0] for one in found)


@given(st.lists(SAID, max_size=3), st.lists(SAID, max_size=3))
def test_a_verdict_is_the_same_after_any_interleaving(
    first: list[tuple[str | None, int, int]], second: list[tuple[str | None, int, int]]
) -> None:
    with TemporaryDirectory() as directory, Store(Path(directory)) as store:
        found = []
        partitions = [[(number, *one) for one in each] for number, each in enumerate((first, second))]
        for order in interleaved(*partitions):
            store.rollback()
            links = LinkStore(store)
            for offset, (partition, author, _, time) in enumerate(order):
                link = None if author is None else Link("a:1", "b:1", "same", author)
                message = Message(Cause("t", partition, offset), None, None, float(time))
                links.put("a:1", "b:1", link, message)
            kept = links.get(PAIR)
            found.append(kept and (kept.author, kept.cause.partition))
        assert all(one == found[0] for one in found)


def decode_change(message: Message) -> Sequence[Change]:
    tail = (message.value or b"").decode()
    return [JoinChange(b"row", Edge("a", "f", "by", tail) if tail else None)]


def test_a_row_of_a_join_counts_as_the_newer_partition_says(tmp_path: Path) -> None:
    def row(partition: int, offset: int, tail: bytes, time: float) -> Message:
        return Message(Cause("t", partition, offset), None, tail, time)

    old, gone, new = row(0, 0, b"p", 1.0), row(0, 1, b"", 2.0), row(1, 0, b"q", 3.0)
    for number, order in enumerate(interleaved([old, gone], [new])):
        with Store(tmp_path / str(number)) as store:
            graph = Graph(store, decode_change)
            graph.inbox.receive(order)
            assert graph.graph.neighbours(FILM)[0] == [node_of("a:q")]


def test_an_older_record_of_another_partition_is_counted_as_stale(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        graph = Graph(store)
        new = entity_message(("new", 1, 5), Cause("t", 1, 0), versions=False)
        old = entity_message(("old", 1, 4), Cause("t", 0, 0), versions=False)
        assert graph.inbox.receive([new, old]).topics["t"].stale == 1


def test_a_word_is_kept(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        LastWords(store).keep(b"key", Word(1.5, "tøpic", 3))
        store.commit()
    with Store(tmp_path) as store:
        words = LastWords(store)
        assert words.get(b"key") == Word(1.5, "tøpic", 3) and words.get(b"other") is None
        words.forget(b"key")
        assert words.get(b"key") is None
