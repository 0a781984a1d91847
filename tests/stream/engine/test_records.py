"""Records follow decisions, and go out only where they change."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.catalogues import catalogues
from index import tables
from index.entity import Entity, Value, node_key, node_of
from index.store import Store
from model.checkpoint import load_model
from stream.changes import LinkChange
from stream.engine.deciding import Decision, Standing
from stream.engine.evidence import _evidence
from stream.engine.interface import EvidenceDetail, Output
from stream.engine.pairs import DIFFERENT, NONE, SAME, PairId
from stream.engine.parts import Parts
from stream.engine.recipe import Recipe
from stream.engine.records import Difference
from stream.engine.scoring import Attention, Seen
from stream.events import (
    AlignmentEvent,
    AlignmentRecord,
    Cause,
    Evidence,
    Link,
    Message,
    Upsert,
    alignment_key,
)
from stream.mapping.canonical import decode_canonical
from tests.stream.engine.graphs import Graph

EVENTS = catalogues(10)
PAIR = PairId(node_of("left:f1"), node_of("right:f1"), "left", "right")
KEY = alignment_key("left:f1", "right:f1").encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state") as store:
        Graph(store).apply(EVENTS)
        yield store


def parts_of(
    store: Store, checkpoint: Path, evidence: EvidenceDetail = "full", min_change: float = 0.0
) -> Parts:
    model_id, model = load_model(checkpoint)
    return Parts(store, model, Recipe(model_id, 0.5, True, evidence=evidence), decode_canonical, min_change)


def record_of(outputs: list[Output]) -> AlignmentRecord:
    [output] = [output for output in outputs if output.kind == "alignments"]
    assert output.key == KEY and output.value is not None
    return msgspec.json.decode(output.value, type=AlignmentRecord)


def event_of(outputs: list[Output]) -> AlignmentEvent:
    [output] = [output for output in outputs if output.kind == "alignment_events"]
    assert output.key == KEY and output.value is not None
    event = msgspec.json.decode(output.value, type=AlignmentEvent)
    assert dict(output.headers)["ce_id"] == event.event_id.encode()
    return event


def test_a_pair_is_aligned_revised_and_withdrawn(store: Store, checkpoint: Path) -> None:
    parts = parts_of(store, checkpoint)
    aligned = parts.records.outputs([Decision(PAIR, Standing(0.91234, NONE))])
    record, event = record_of(aligned), event_of(aligned)
    assert (record.subject_id, record.object_id, record.confidence) == ("left:f1", "right:f1", 0.9123)
    assert record.mapping_justification == "semapv:SemanticSimilarityThresholdMatching"
    offsets = [number for number, entity in enumerate(EVENTS) if entity.id == "f1"]
    assert record.cause == Cause("t", 0, offsets[1]) and record.revision == sum(offsets) + 2
    shown = {(each.subject_attribute, each.subject_value) for each in record.evidence.attributes}
    assert ("title", EVENTS[offsets[0]].attributes["title"]) in shown
    assert {each.object_neighbour for each in record.evidence.neighbours} <= {
        f"right:p{n}" for n in range(96)
    }
    assert event.event == "aligned"
    # a change below what a record shows is none
    assert parts.records.outputs([Decision(PAIR, Standing(0.91229, NONE))]) == []
    revised = parts.records.outputs([Decision(PAIR, Standing(0.8, NONE))])
    assert record_of(revised).confidence == 0.8 and event_of(revised).event == "revised"
    withdrawn = parts.records.outputs([Decision(PAIR, None)])
    assert withdrawn[0] == Output("alignments", KEY, None) and event_of(withdrawn).event == "withdrawn"
    # what is withdrawn may have been erased, and the log of events is kept
    assert event_of(revised).evidence.attributes and event_of(withdrawn).evidence == Evidence()
    assert parts.records.outputs([Decision(PAIR, None)]) == [] and [*parts.records.all()] == []
    # the same again is another event: it happened twice
    again = parts.records.outputs([Decision(PAIR, Standing(0.91234, NONE))])
    ids = {event_of(outputs).event_id for outputs in (aligned, revised, withdrawn, again)}
    assert len(ids) == 4


def test_evidence_is_as_detailed_as_the_settings_say(store: Store, checkpoint: Path) -> None:
    full = parts_of(store, checkpoint).records.outputs([Decision(PAIR, Standing(0.9, NONE))])
    evidence = record_of(full).evidence
    revised = [Decision(PAIR, Standing(0.8, NONE))]
    ids = record_of(parts_of(store, checkpoint, "ids").records.outputs(revised)).evidence
    assert ids.neighbours == evidence.neighbours
    assert ids.attributes == [
        msgspec.structs.replace(each, subject_value="", object_value="") for each in evidence.attributes
    ]
    assert record_of(parts_of(store, checkpoint, "none").records.outputs(revised)).evidence == Evidence()


def events_of(outputs: list[Output]) -> list[tuple[str, float]]:
    """Kind and confidence of the events beside a record, which is always there."""
    record = record_of(outputs)
    if len(outputs) == 1:
        return []
    event = event_of(outputs)
    assert event.confidence == record.confidence
    return [(event.event, event.confidence)]


def test_small_steps_are_told_once_they_are_large_together(store: Store, checkpoint: Path) -> None:
    """Also over restarts: what counts is the confidence that the last event told."""
    told = []
    for step in range(11):
        parts = parts_of(store, checkpoint, min_change=0.01)
        told += events_of(parts.records.outputs([Decision(PAIR, Standing(0.9 - 0.004 * step, NONE))]))
        store.commit()
    assert told == [("aligned", 0.9), ("revised", 0.888), ("revised", 0.876), ("revised", 0.864)]
    # to and fro is nothing, and exactly the least change is one
    records = parts_of(store, checkpoint, min_change=0.01).records
    assert [
        events_of(records.outputs([Decision(PAIR, Standing(score, NONE))]))
        for score in (0.8731, 0.86, 0.8739, 0.874)
    ] == [[], [], [], [("revised", 0.874)]]


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(
            st.integers(-1, 4),  # of the score, in .003
            st.sampled_from([*[""] * 8, "same", "withdrawn"]),
            st.sampled_from(["", "", "crash", "twice"]),
        ),
        min_size=5,
        max_size=20,
    ),
    min_change=st.sampled_from([0.02, 0.01, 0.0, 0.0001, 1.0]),
)
def test_the_log_folded_is_never_the_least_change_off(
    store: Store, checkpoint: Path, steps: list[tuple[int, str, str]], min_change: float
) -> None:
    """Whatever becomes of a pair, what was broken off and what was published twice included."""
    records = parts_of(store, checkpoint, "none", min_change).records
    current = told = None
    score = 0.5
    for step, what, fate in [(0, "withdrawn", ""), *steps]:
        score += 0.003 * step
        standing = None if what == "withdrawn" else Standing(score, SAME if what == "same" else NONE)
        outputs = records.outputs([Decision(PAIR, standing)])
        if fate == "crash":  # before anything of it was stored
            store.rollback()
            outputs = records.outputs([Decision(PAIR, standing)])
        store.commit()
        for output in outputs * (2 if fate == "twice" else 1):
            if output.kind == "alignments":
                current = output.value and msgspec.json.decode(output.value, type=AlignmentRecord)
            else:
                told = msgspec.json.decode(output.value or b"", type=AlignmentEvent)
                told = None if told.event == "withdrawn" else told
        assert (current is None) == (told is None) == (standing is None)
        if current and told:
            off = abs(round(10_000 * current.confidence) - round(10_000 * told.confidence))
            assert off < max(10_000 * min_change, 1)
            assert current.mapping_justification == told.mapping_justification


@pytest.mark.parametrize(("min_change", "count"), [(0.0, 3), (0.0001, 3), (0.07, 1), (1.0, 0)])
def test_the_least_change_that_is_an_event(
    store: Store, checkpoint: Path, min_change: float, count: int
) -> None:
    records = parts_of(store, checkpoint, min_change=min_change).records
    outputs = [
        records.outputs([Decision(PAIR, Standing(score, NONE))]) for score in (0.9, 0.8999, 0.8302, 0.83)
    ]
    assert sum(len(events_of(each)) for each in outputs[1:]) == count


def test_what_is_no_confidence_is_told_at_once(store: Store, checkpoint: Path) -> None:
    parts = parts_of(store, checkpoint, min_change=1.0)
    said = LinkChange("left:f1", "right:f1", Link("left:f1", "right:f1", "same", "ann"))
    parts.records.outputs([Decision(PAIR, Standing(0.9999, NONE))])
    parts.links.put(said.left, said.right, said.link, Message(Cause("links", 0, 7), None, None, 1e9))
    confirmed = parts.records.outputs([Decision(PAIR, Standing(0.9999, SAME))])
    taken_back = parts.records.outputs([Decision(PAIR, Standing(0.9999, NONE))])
    withdrawn = parts.records.outputs([Decision(PAIR, None)])
    again = parts.records.outputs([Decision(PAIR, Standing(0.9999, NONE))])
    assert [event_of(outputs).event for outputs in (confirmed, taken_back, withdrawn, again)] == [
        "revised",
        "revised",
        "withdrawn",
        "aligned",
    ]


def test_a_neighbour_that_never_came_has_its_id_or_is_left_out() -> None:
    left = Entity("left", "f1", "film", {}, {"starring": ["p1", "p2"]}, None, False, "t", 0, 0, 0.0)
    right = Entity("right", "f1", "film", {}, {"cast": ["p1"]}, None, False, "t", 0, 1, 0.0)
    names = {node_of("left:p1"): "", node_of("left:p2"): "left:p2", node_of("left:x"): ""}
    names |= {node_of("right:p1"): "", node_of("right:x"): ""}

    def looks(one: str, other: str) -> list[Attention]:
        return [Attention(Seen("starring", node_of(one)), Seen("", node_of(other)), 0.5)]

    for one in ("left:p1", "left:p2"):
        [near] = _evidence(left, right, looks(one, "right:p1"), names, "full").neighbours
        assert (near.subject_neighbour, near.object_neighbour) == (one, "right:p1")
    for pair in (("left:x", "right:p1"), ("left:p1", "right:x")):  # which a row of a join named
        assert _evidence(left, right, looks(*pair), names, "full").neighbours == []


def test_evidence_names_what_the_model_does_not_know(tmp_path: Path, checkpoint: Path) -> None:
    """An attribute by its value; a relation where the entity itself has it."""

    def book(source: str, label: str, extent: str, author: str) -> Upsert:
        title = "amber birch cedar" if source == "left" else "cedar, amber birch"
        attributes: dict[str, Value] = {label: title, extent: 461, "spaces": " . "}
        return Upsert(source, "b1", "book", attributes, {"directed_by": ["p9"], author: ["p3", "p4"]})

    writer = Upsert("right", "p50", "person", {"name": "jetty knoll"}, {"wrote": ["b1"]})
    books = [book("left", "heading", "pages", "by"), book("right", "label", "extent", "of"), writer]
    with Store(tmp_path / "other") as other:
        Graph(other).apply([*EVENTS, *books])
        pair = PairId(node_of("left:b1"), node_of("right:b1"), "left", "right")
        [output, _] = parts_of(other, checkpoint).records.outputs([Decision(pair, Standing(0.9, NONE))])
    evidence = msgspec.json.decode(output.value or b"", type=AlignmentRecord).evidence
    compared = {(e.subject_attribute, e.object_attribute): e for e in evidence.attributes}
    assert compared["heading", "label"].subject_value == "amber birch cedar"
    assert compared["pages", "extent"].object_value == 461
    assert compared.keys() == {("heading", "label"), ("pages", "extent")}
    relations = {(e.subject_relation, e.object_neighbour, e.object_relation) for e in evidence.neighbours}
    assert {("by", "right:p3", "of"), ("by", "right:p4", "of")} < relations
    assert {name for name, _, _ in relations} == {"by", "directed_by"}
    assert {name for _, near, name in relations if near == "right:p50"} <= {""}


def test_another_day_alone_revises_nothing(store: Store, checkpoint: Path) -> None:
    parts = parts_of(store, checkpoint)
    decision = Decision(PAIR, Standing(0.9, NONE))
    record = record_of(parts.records.outputs([decision]))
    key = tables.RECORDS + node_key(PAIR.left) + node_key(PAIR.right)
    earlier = msgspec.structs.replace(record, mapping_date="2001-01-01")
    store.put(key, msgspec.json.encode(earlier))
    assert parts.records.outputs([decision]) == []
    other = msgspec.structs.replace(earlier, confidence=0.1)
    store.put(key, msgspec.json.encode(other))
    assert event_of(parts.records.outputs([decision])).event == "revised"


def test_what_a_person_said_is_certain_and_the_cause(store: Store, checkpoint: Path) -> None:
    parts = parts_of(store, checkpoint)
    said = LinkChange("right:f1", "left:f1", Link("right:f1", "left:f1", "same", "ann"))
    cause = Cause("links", 0, 7)
    parts.links.put(said.left, said.right, said.link, Message(cause, None, None, 1e9))
    record = record_of(parts.records.outputs([Decision(PAIR, Standing(0.2, SAME))]))
    assert record.confidence == 1.0 and record.cause == cause
    other = said.left.replace("f1", "p1"), said.right.replace("f1", "p1")
    parts.links.put(*other, Link(*other, "same", "ann"), Message(cause, None, None, 1e9))
    people = PairId(node_of("left:p1"), node_of("right:p1"), "left", "right")
    for standing, calibrated in ((Standing(0.9, NONE), False), (Standing(0.9, SAME), True)):
        [output, _] = parts.records.outputs([Decision(people, standing)])
        assert msgspec.json.decode(output.value or b"", type=AlignmentRecord).calibrated == calibrated
    assert record.mapping_justification == "semapv:ManualMappingCuration"
    assert not Standing(0.9, DIFFERENT).acceptable


def test_entities_of_two_types_have_no_evidence(store: Store, checkpoint: Path) -> None:
    """Only a person can align them."""
    parts = parts_of(store, checkpoint)
    pair = PairId(node_of("left:f1"), node_of("right:p1"), "left", "right")
    [output, _] = parts.records.outputs([Decision(pair, Standing(0.0, SAME))])
    record = msgspec.json.decode(output.value or b"", type=AlignmentRecord)
    assert (record.subject_category, record.object_category) == ("film", "person")
    assert not record.evidence.attributes and not record.evidence.neighbours


def test_only_what_differs_takes_the_place_of_former_records(
    store: Store, tmp_path: Path, checkpoint: Path
) -> None:
    pairs = [PairId(node_of(f"left:f{n}"), node_of(f"right:f{n}"), "left", "right") for n in range(4)]
    former = parts_of(store, checkpoint)
    with Store(tmp_path / "other") as other:
        Graph(other).apply(EVENTS)
        present = parts_of(other, checkpoint)
        former.records.outputs([Decision(pair, Standing(0.9, NONE)) for pair in pairs[:3]])
        scores = {pairs[1]: 0.9, pairs[2]: 0.7, pairs[3]: 0.9}
        present.records.outputs([Decision(pair, Standing(score, NONE)) for pair, score in scores.items()])
        found = {}
        for record, event in present.records.supersede(former.records, "generation-2", Difference()):
            decoded = msgspec.json.decode(event.value or b"", type=AlignmentEvent)
            assert (record.value is None) == (decoded.event == "withdrawn")
            found[decoded.subject_id] = decoded.event
        assert found == {"left:f0": "withdrawn", "left:f2": "revised", "left:f3": "aligned"}


def test_records_that_take_the_place_of_others_go_on_from_what_those_have_told(
    store: Store, tmp_path: Path, checkpoint: Path
) -> None:
    """With the same model, as where only the threshold is another: nothing that they told has gone out."""
    former = parts_of(store, checkpoint, min_change=0.01)
    former.records.outputs([Decision(PAIR, Standing(0.9, NONE))])
    former.records.outputs([Decision(PAIR, Standing(0.895, NONE))])  # not told
    with Store(tmp_path / "other") as other:
        Graph(other).apply(EVENTS)
        present = parts_of(other, checkpoint, min_change=0.01)
        present.records.outputs([Decision(PAIR, Standing(0.895, NONE))])
        difference = Difference()
        assert [*present.records.supersede(former.records, "generation-2", difference)] == []
        assert difference == Difference(former=1)
        [output] = present.records.outputs([Decision(PAIR, Standing(0.891, NONE))])
        assert output.kind == "alignments"
        [[output]] = present.records.supersede(former.records, "generation-3", difference)
        assert output.kind == "alignments" and difference.changed == 1
        revised = present.records.outputs([Decision(PAIR, Standing(0.89, NONE))])
        assert event_of(revised).confidence == 0.89
