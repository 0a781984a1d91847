"""Relations from join tables: the graph is that of the rows that are left, in whatever order they came."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.catalogues import catalogues
from index.entity import node_of
from index.graph import GraphStore
from index.store import Store
from stream.catalogue.reading import read_events
from stream.engine.aligner import Aligner
from stream.engine.inbox import Inbox
from stream.engine.links import LinkStore
from stream.errors import InvalidInput
from stream.events import AlignmentEvent, AlignmentRecord, Cause, Message
from stream.learning.alignment import align
from stream.mapping.decoder import make_decoder
from stream.mapping.language import SourceMapping

SHOP = msgspec.convert(
    {
        "tables": {
            "film": {
                "topic": "film",
                "file": "film.jsonl",
                "id": "film/{id}",
                "type": "film",
                "attributes": ["title"],
                "relations": {"by": {"column": "by", "id": "person/{by}"}},
            },
            "person": {"topic": "person", "id": "person/{id}", "type": "person", "attributes": ["name"]},
        },
        "joins": {
            "cast": {
                "topic": "cast",
                "file": "cast.jsonl",
                "head": "film/{f}",
                "relation": "by",
                "tail": "person/{p}",
            },
            "knows": {"topic": "knows", "head": "person/{a}", "relation_column": "r", "tail": "person/{b}"},
        },
    },
    SourceMapping,
)
DECODE = make_decoder({"shop": SHOP}, "entities", "links")
NODES = [f"shop:{kind}/{number}" for kind in ("film", "person") for number in range(3)]

Row = tuple[str, str, Mapping[str, object] | None]  # topic, key, what it says; None deletes


def message(offset: int, row: Row) -> Message:
    topic, key, value = row
    return Message(
        Cause(topic, 0, offset), key.encode(), None if value is None else json.dumps(value).encode(), 0.0
    )


def graph_after(rows: Sequence[Row], cuts: Sequence[int] = ()) -> dict[str, list[int]]:
    """Each node's neighbours after the rows, in batches that end at `cuts`."""
    offsets: dict[str, int] = {}
    with TemporaryDirectory() as directory, Store(Path(directory)) as store:
        graph = GraphStore(store)
        inbox = Inbox(store, graph, LinkStore(store), DECODE)
        bounds = [0, *sorted(cuts), len(rows)]
        for start, end in pairwise(bounds):
            batch = []
            for row in rows[start:end]:
                offsets[row[0]] = offsets.get(row[0], -1) + 1
                batch.append(message(offsets[row[0]], row))
            received = inbox.receive(batch)
            assert not received.dead_letters
            store.commit()
        return {name: sorted(graph.neighbours(node_of(name))[0]) for name in NODES}


NUMBER = st.integers(0, 2)
FILM = st.builds(
    lambda n, by: ("film", f'{{"id":{n}}}', {"id": n, "title": "x", "by": by}), NUMBER, st.none() | NUMBER
)
CAST = st.builds(lambda k, f, p: ("cast", f"{k}", {"f": f, "p": p}), NUMBER, NUMBER, st.none() | NUMBER)
KNOWS = st.builds(lambda k, a, b: ("knows", f"{k}", {"a": a, "b": b, "r": "knows"}), NUMBER, NUMBER, NUMBER)
GONE = st.builds(
    lambda topic, n: (topic, f'{{"id":{n}}}' if topic == "film" else f"{n}", None),
    st.sampled_from(["film", "cast", "knows"]),
    NUMBER,
)


@given(
    st.lists(st.one_of(FILM, CAST, KNOWS, GONE), max_size=14), st.randoms(use_true_random=False), st.data()
)
@example(
    [
        ("film", '{"id":0}', {"id": 0, "title": "x", "by": 1}),
        ("cast", "0", {"f": 0, "p": 1}),
        ("cast", "0", None),
    ],
    None,
    None,
)
def test_the_graph_is_that_of_the_rows_that_are_left(
    rows: list[Row], random: Random | None, data: st.DataObject
) -> None:
    """Only rows of one key have an order."""
    keys = [row[:2] for row in rows]
    if random is not None:
        random.shuffle(keys)
    waiting = {key: iter([row for row in rows if row[:2] == key]) for key in keys}
    other_order = [next(waiting[key]) for key in keys]
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4)) if data is not None else [1]
    left = {row[:2]: row for row in rows if row[2] is not None}
    final = [row for key, row in left.items() if [r for r in rows if r[:2] == key][-1] == row]
    assert graph_after(other_order, cuts) == graph_after(final)


def test_a_row_of_a_join_that_changes_takes_back_what_it_said() -> None:
    film, person = node_of("shop:film/0"), node_of("shop:person/1")
    rows: list[Row] = [("cast", "k", {"f": 0, "p": 1})]
    assert graph_after(rows)["shop:film/0"] == [person]
    assert graph_after(rows)["shop:person/1"] == [film]
    changed = graph_after([*rows, ("cast", "k", {"f": 0, "p": 2})])
    assert changed["shop:film/0"] == [node_of("shop:person/2")] and changed["shop:person/1"] == []


def test_debezium_rows_without_a_key_can_be_added_only() -> None:
    value = json.dumps({"before": None, "after": {"f": 0, "p": 1}, "op": "c"}).encode()
    (change,) = DECODE(Message(Cause("cast", 0, 0), None, value, 0.0))
    assert DECODE(Message(Cause("cast", 0, 1), None, value, 0.0)) == [change]
    gone = json.dumps({"before": {"f": 0, "p": 1}, "after": None, "op": "d"}).encode()
    try:
        DECODE(Message(Cause("cast", 0, 2), None, gone, 0.0))
    except InvalidInput as error:
        assert error.reason == "no-key" and "primary key" in str(error)
    else:
        raise AssertionError


def test_joins_of_files_become_relations_of_the_entities(tmp_path: Path) -> None:
    (tmp_path / "film.jsonl").write_text(
        '{"id": 0, "title": "x", "by": 2}\n{"id": 1, "title": "y", "by": null}\n'
    )
    (tmp_path / "cast.jsonl").write_text('{"f": 0, "p": 1}\n{"f": 0, "p": 2}\n{"f": 9, "p": 2}\n{"f": 1}\n')
    found = [event for _, event in read_events("shop", SHOP, tmp_path)]
    assert [event.reason for event in found if isinstance(event, InvalidInput)] == ["missing-column"]
    entities = [event for event in found if not isinstance(event, InvalidInput)]
    assert [(e.id, getattr(e, "relations", None)) for e in entities] == [
        ("film/0", {"by": ["person/2", "person/1"]}),
        ("film/1", {}),
    ]


def joined_catalogues() -> dict[str, SourceMapping]:
    """Both sources of `catalogues`, with all relations in a join."""
    return {
        name: msgspec.convert(
            {
                "topic": name,
                "joins": {
                    "cast": {"topic": f"{name}.cast", "head": "h", "relation_column": "r", "tail": "t"}
                },
                "id": "id",
                "type_column": "type",
                "attributes": ["name", "title", "year"],
                "optional": ["name", "title", "year"],
            },
            SourceMapping,
        )
        for name in ("left", "right")
    }


def test_what_happens_twice_has_two_ids(checkpoint: Path, tmp_path: Path) -> None:
    """Whoever drops events that were seen must not drop a relation's second end with the first."""
    decode = make_decoder(joined_catalogues(), "entities", "links")
    aligner = Aligner(tmp_path / "state", checkpoint, decode)
    offsets: Counter[str] = Counter()
    events: list[AlignmentEvent] = []

    def send(*rows: Row) -> None:
        batch = []
        for row in rows:
            batch.append(message(offsets[row[0]], row))
            offsets[row[0]] += 1
        outputs = list(aligner.process(batch).outputs)
        while aligner.backlog:
            outputs += aligner.process([]).outputs
        values = [output.value for output in outputs if output.kind == "alignment_events"]
        events.extend(msgspec.json.decode(value or b"", type=AlignmentEvent) for value in values)

    films = catalogues(40)
    send(*((e.source, e.id, {"id": e.id, "type": e.type, **e.attributes}) for e in films))
    edges: list[Row] = [
        (f"{e.source}.cast", f"{e.id} {tail}", {"h": e.id, "r": name, "t": tail})
        for e in films
        for name, tails in e.relations.items()
        for tail in tails
    ]
    send(*edges)
    before = len(events)
    some = [edge for edge in edges if edge[0] == "left.cast"][:12]
    for _ in range(3):
        send(*((topic, key, None) for topic, key, _ in some))
        send(*some)
    aligner.close()
    assert len(events) - before >= 6
    assert len({event.event_id for event in events}) == len(events)


@pytest.mark.parametrize("snapshot", [False, True])
def test_scores_do_not_care_where_relations_stand(checkpoint: Path, tmp_path: Path, snapshot: bool) -> None:
    """In the entities' own events, or in rows of a join before and after them: the same alignments.

    Rows of a snapshot wait for each other, so that nothing is aligned that the next row takes apart.
    """
    films = catalogues(40)
    whole = align(films, checkpoint)
    rows: list[Row] = []
    gone: list[Row] = []
    for film in films:
        rows.append((film.source, film.id, {"id": film.id, "type": film.type, **film.attributes}))
        for name, tails in film.relations.items():
            for tail in dict.fromkeys(tails):
                edge: dict[str, object] = {"h": film.id, "r": name, "t": tail}
                rows.append((f"{film.source}.cast", f"{film.id} {name} {tail}", edge))
                if tail.endswith("7"):  # a row that says something else first, and one that goes again
                    rows.insert(0, (*rows[-1][:2], {**edge, "t": "p1"}))
                    rows.insert(0, (f"{film.source}.cast", f"{film.id} gone", edge))
                    gone.append((f"{film.source}.cast", f"{film.id} gone", None))
    aligner = Aligner(tmp_path / "state", checkpoint, make_decoder(joined_catalogues(), "entities", "links"))
    offsets: Counter[str] = Counter()
    messages = []
    for row in [*rows, *gone]:
        if snapshot and row[2] is not None:
            row = (*row[:2], {"op": "r", "before": None, "after": row[2]})
        messages.append(message(offsets[row[0]], row))
        offsets[row[0]] += 1
    outputs = []
    for start in range(0, len(messages), 100):
        batch = aligner.process(messages[start : start + 100])
        assert batch.counts.dead_lettered == 0
        outputs += batch.outputs
        if start + 100 <= len(rows):
            assert not (snapshot and outputs)
    while aligner.backlog:
        outputs += aligner.process([]).outputs
    found = [msgspec.json.decode(value, type=AlignmentRecord) for _, value in aligner.records()]
    aligner.close()

    def truth(records: Iterable[AlignmentRecord]) -> set[tuple[object, ...]]:
        return {(r.subject_id, r.object_id, r.confidence, repr(r.evidence)) for r in records}

    assert truth(found) == truth(whole) and len(found) > 40
