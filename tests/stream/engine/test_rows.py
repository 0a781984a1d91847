"""Rows that are known by their message's key: two with one id stay apart, and a tombstone finds its row."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.entity import Entity, node_of
from index.store import Store
from stream.engine import rows
from stream.engine.inbox import Received
from stream.engine.interface import Counts
from stream.engine.rows import Row, RowStore, Since
from stream.events import Cause, Message
from stream.mapping.decoder import make_decoder
from stream.mapping.language import SourceMapping
from tests.stream.engine.graphs import Graph

ROW = {"topic": "t", "id": "id", "attributes": ["title"]}
STRUCT, LONG, AVRO, PREFIXED = b"Struct{id=1}", (1).to_bytes(8, "big"), b"\0\0\0\0\7\2", b"film-1"
SHARDS = [json.dumps({"id": 1, "shard": name}).encode() for name in "ab"]


class Topic:
    """One topic of rows, read into a store."""

    def __init__(self, store: Store, **mapping: object) -> None:
        source = msgspec.convert(ROW | mapping, SourceMapping)
        self._graph = Graph(store, make_decoder({"s": source}, "e", "l"))
        self._offsets = [itertools.count() for _ in range(2)]

    def read(self, key: bytes | None, row: object, partition: int = 0, time: float | None = None) -> Received:
        offset = next(self._offsets[partition])
        value = None if row is None else json.dumps(row).encode()
        cause = Cause("t", partition, offset)
        return self._graph.inbox.receive([Message(cause, key, value, offset if time is None else time)])

    def causes(self, *ids: str) -> list[object]:
        """By id where the entity's state came from, None where there is no entity."""
        entities = self._graph.graph.entities([node_of(f"s:{local_id}") for local_id in ids])
        return [None if e is None or e.deleted else (e.topic, e.partition, e.offset) for e in entities]

    def titles(self, *ids: str) -> list[object]:
        """By id the title of the entity, None where there is none."""
        entities = self._graph.graph.entities([node_of(f"s:{local_id}") for local_id in ids])
        return [None if e is None or e.deleted else e.attributes["title"] for e in entities]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a store whose examples are rolled back."""
    return tmp_path_factory.mktemp("store")


def film(title: str, local_id: object = 1) -> dict[str, object]:
    return {"id": local_id, "title": title}


def refused(received: Received) -> tuple[str, str]:
    (letter,) = received.dead_letters
    headers = dict(letter.headers)
    return headers["reason"].decode(), headers["message"].decode()


@pytest.mark.parametrize(
    "key", [STRUCT, LONG, AVRO, PREFIXED, b"\xff\xfe", b'{"nr": 1}', b"[1]", SHARDS[0], b""]
)
def test_a_tombstone_deletes_the_row_that_came_under_its_key(tmp_path: Path, key: bytes) -> None:
    """Whatever wrote the key, and also if it was read before the row."""
    with Store(tmp_path) as store:
        topic = Topic(store)
        topic.read(key, film("x"))
        topic.read(b"2", film("y", 2))
        assert topic.titles("1", "2") == ["x", "y"]
        assert topic.read(key, None).topics["t"] == Counts(1, 1)
        assert topic.titles("1", "2") == [None, "y"]
        assert topic.read(key, None).topics["t"] == Counts(1, 1)
        topic.read(key, film("z"))
        assert topic.titles("1") == ["z"]
    with TemporaryDirectory() as directory, Store(Path(directory)) as store:
        topic = Topic(store)
        topic.read(key, None, partition=1, time=9.0)
        assert topic.read(key, film("x"), time=1.0).topics["t"] == Counts(1, stale=1)
        assert topic.titles("1") == [None]
        topic.read(key, film("y"), time=10.0)
        assert topic.titles("1") == ["y"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (STRUCT, r"StringConverter makes of an object; set key.converter to org.apache.*JsonConverter"),
        (LONG, "is no text; set key.converter"),
        (AVRO, "is no text; set key.converter"),
        (b"\xff", "is no text; set key.converter"),
        (b'{"nr": 1}', "has no column 'id'"),
    ],
)
def test_a_key_that_shows_no_id_and_is_unknown_is_refused(tmp_path: Path, key: bytes, said: str) -> None:
    with Store(tmp_path) as store:
        topic = Topic(store)
        topic.read(b"1", film("x"))
        reason, message = refused(topic.read(key, None))
        assert reason == "no-key" and message.endswith("; no row with this key ever came")
        assert re.search(said, message)
        assert topic.titles("1") == ["x"]


@pytest.mark.parametrize(
    ("key", "local_id"), [(b"1", 1), (b"1.0", 1), (b'"1"', "1"), (b'{"id": 1}', 1), (b'{"id": "a"}', "a")]
)
def test_a_key_that_is_just_the_id_needs_no_bookkeeping(tmp_path: Path, key: bytes, local_id: object) -> None:
    with Store(tmp_path) as store:
        topic = Topic(store)
        topic.read(key, film("x", local_id))
        assert not [*store.scan(b"b")] and not [*store.scan(b"i")]
        assert topic.read(key, None).topics["t"] == Counts(1, 1) and topic.titles(str(local_id)) == [None]


@pytest.mark.parametrize(
    "keys",
    [SHARDS, [b"a/1", b"b/1"], [b"Struct{id=1,s=a}", b"Struct{id=1,s=b}"], [SHARDS[0], b"Struct{id=1}"]],
)
def test_a_second_row_with_an_id_is_refused_and_waits(tmp_path: Path, keys: list[bytes]) -> None:
    one, other = keys
    with Store(tmp_path) as store:
        topic = Topic(store)
        topic.read(one, film("x"))
        reason, message = refused(topic.read(other, film("y")))
        assert reason == "id-clash" and message.startswith(
            "s:1 is also the row in t, partition 0, offset 0, "
        )
        assert topic.titles("1") == ["x"]
        assert refused(topic.read(one, film("z")))[0] == "id-clash" and topic.titles("1") == ["z"]
        topic.read(one, None)
        assert topic.titles("1") == ["y"]
        topic.read(one, film("x"))
        assert topic.titles("1") == ["y"]
        topic.read(one, None)
        topic.read(other, None)
        assert topic.titles("1") == [None]


def test_a_row_whose_key_changes_is_deleted_and_comes_again(tmp_path: Path) -> None:
    """In any order, as the two keys may stand in two partitions."""
    for order in itertools.permutations(range(2)):
        with TemporaryDirectory() as directory, Store(Path(directory)) as store:
            topic = Topic(store)
            topic.read(SHARDS[0], film("x"))
            changes = [(SHARDS[0], None, 0), (SHARDS[1], film("y"), 1)]
            for number in order:
                key, row, partition = changes[number]
                topic.read(key, row, partition, time=5.0)
            assert topic.titles("1") == ["y"]


def test_columns_of_the_key_tell_rows_apart(tmp_path: Path) -> None:
    wrapped = json.dumps({"schema": {"type": "struct"}, "payload": {"id": 1, "shard": "b"}}).encode()
    with Store(tmp_path) as store:
        topic = Topic(store, id="{shard}/{id}", key_columns=["shard"])
        topic.read(SHARDS[0], film("x"))
        topic.read(wrapped, film("y"))
        assert topic.titles("a/1", "b/1") == ["x", "y"] and not [*store.scan(b"b")]
        topic.read(wrapped, None)
        assert topic.titles("a/1", "b/1") == ["x", None]
        topic.read(b"c", film("z"))
        assert topic.titles("c/1") == ["z"]
        topic.read(b"c", None)
        assert topic.titles("c/1") == [None]
        for key in (None, b'{"id": 1}', STRUCT):
            reason, message = refused(topic.read(key, film("z")))
            assert reason == "no-key" and message.startswith("key_columns: ")


def test_keys_that_tell_nothing_can_be_ignored(tmp_path: Path) -> None:
    """Random ones, or those of what a row belongs to."""
    with Store(tmp_path) as store:
        topic = Topic(store, ignore_key=True)
        for key, title in ((b"k1", "x"), (b"k2", "y"), (None, "z")):
            assert topic.read(key, film(title)).topics["t"] == Counts(1, 1)
            assert topic.titles("1") == [title]
        reason, message = refused(topic.read(b"k1", None))
        assert reason == "no-key" and "`ignore_key`" in message


def test_one_key_of_several_rows_deletes_them_all(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        topic = Topic(store)
        for number in (1, 2, 3):
            topic.read(b"tenant" if number < 3 else b"3", film("x", number))
        topic.read(b"tenant", None)
        assert topic.titles("1", "2", "3") == [None, None, "x"]


def test_a_key_of_very_many_ids_tells_no_rows_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tombstone deletes them all, and costs that."""
    monkeypatch.setattr(rows, "MAX_IDS", 3)
    with Store(tmp_path) as store:
        topic = Topic(store)
        for number in (1, 2, 3):
            assert not topic.read(b"tenant", film("x", number)).dead_letters
        reason, message = refused(topic.read(b"tenant", film("x", 4)))
        assert reason == "too-many" and "3 ids" in message and "`ignore_key`" in message
        assert not topic.read(b"tenant", film("y", 2)).dead_letters
        assert topic.titles("1", "2", "3", "4") == ["x", "y", "x", None]
        topic.read(b"tenant", None)
        assert topic.titles("1", "2", "3") == [None, None, None]


SINCE = st.tuples(
    st.sampled_from([-1.5, -0.001, 0.0, 1e-300, 1.7e9, 1.7e9 + 0.001]),
    st.sampled_from(["t", "t-1", "ta"]),
    st.integers(0, 2),
    st.integers(0, 1 << 40),
)


@given(
    st.lists(st.tuples(SINCE, SINCE, st.booleans()), max_size=8, unique_by=(lambda r: r[0], lambda r: r[1]))
)
def test_rows_of_one_id_are_kept_in_their_order(
    directory: Path, found: list[tuple[Since, Since, bool]]
) -> None:
    """First those that are there, the oldest first; then those that are gone, the last to go first."""
    with Store(directory) as store:
        kept, node = RowStore(store), 1
        for number, (came, last, gone) in enumerate(found):
            time, topic, partition, offset = last
            entity = Entity("s", "1", "film", {}, {}, None, gone, topic, partition, offset, time)
            for is_gone in (not gone, gone):  # what it was before leaves nothing
                row = Row(msgspec.structs.replace(entity, deleted=is_gone), came)
                kept.put(node, number.to_bytes(16, "big"), row)
        there = sorted((came, number) for number, (came, _, gone) in enumerate(found) if not gone)
        away = sorted(((last, number) for number, (_, last, gone) in enumerate(found) if gone), reverse=True)
        order = [number for _, number in [*there, *away]]
        assert [int.from_bytes(name, "big") for name in kept.first(node, 99)] == order
        store.rollback()


def test_one_more_row_costs_the_same_however_many_have_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, scan = [], Store.scan

    def counting(store: Store, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for key, value in scan(store, prefix, start):
            seen.append(key)
            yield key, value

    monkeypatch.setattr(Store, "scan", counting)
    with Store(tmp_path) as store:
        topic, costs = Topic(store), []
        for number in range(50):
            seen.clear()
            topic.read(b"a/%d" % number, film("x"))
            costs.append(len(seen))
        for number in range(49):
            seen.clear()
            topic.read(b"a/%d" % number, None)
            costs.append(len(seen))
        assert max(costs) < 5 and topic.titles("1") == ["x"]
        topic.read(b"a/49", None)
        assert topic.titles("1") == [None]


# a title, or None for a tombstone; a time
SAID = st.tuples(st.sampled_from(["x", "y", None]), st.integers(0, 5))


def interleaved(parts: Sequence[Sequence[object]]) -> Iterator[list[int]]:
    """Every order in which two partitions can be read, by the numbers of the partitions."""
    numbers = [number for number, part in enumerate(parts) for _ in part]
    yield from map(list, dict.fromkeys(itertools.permutations(numbers)))


@given(st.data())
def test_which_of_two_rows_counts_does_not_depend_on_the_order_of_reading(data: st.DataObject) -> None:
    keys = data.draw(st.sampled_from([SHARDS, [STRUCT, LONG], [b"a/1", b'{"id": 1, "n": 2}']]))
    parts = [sorted(data.draw(st.lists(SAID, max_size=3)), key=lambda said: said[1]) for _ in range(2)]
    found = []
    with TemporaryDirectory() as directory, Store(Path(directory)) as store:
        for order in interleaved(parts):
            store.rollback()
            topic, rest = Topic(store), [iter(part) for part in parts]
            for number in order:
                title, time = next(rest[number])
                topic.read(keys[number], title and film(title), number, float(time))
            found.append(topic.titles("1") + topic.causes("1"))
    assert all(one == found[0] for one in found)
