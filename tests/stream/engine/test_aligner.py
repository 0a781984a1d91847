"""The aligner on real parts: order, updates, deletes, links, crashes."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.catalogues import catalogues, film
from index.entity import node_of
from index.errors import StateError
from index.search.arrays import Int8s
from index.search.vectors import VectorIndex
from model.encoding.encoder import Encoded, Encoder
from model.encoding.rarest import OwnCells
from model.errors import ModelError
from stream.changes import LinkChange
from stream.engine import aligner as aligner_module
from stream.engine import embedding, recovery, scoring, turn
from stream.engine.aligner import Aligner
from stream.engine.embedding import CHECKED, Embedding
from stream.engine.interface import Batch, Counts, Search
from stream.engine.node_table import FIELDS
from stream.engine.retrieval import Retrieval
from stream.engine.scoring import Scoring
from stream.events import (
    AlignmentEvent,
    AlignmentRecord,
    Cause,
    Delete,
    EntityEvent,
    Link,
    Message,
    Trigger,
    Upsert,
)
from stream.mapping.canonical import decode_canonical

Record = tuple[str, str, float, bytes]


def messages(events: Iterable[EntityEvent], first: int = 0) -> list[Message]:
    return [
        Message(Cause("t", 0, number), None, msgspec.json.encode(event), float(number))
        for number, event in enumerate(events, start=first)
    ]


class Topic:
    """The compacted alignment topic, and the log beside it."""

    def __init__(self) -> None:
        self.records: dict[bytes, AlignmentRecord] = {}
        self.events: list[AlignmentEvent] = []
        self.told: dict[bytes, AlignmentEvent] = {}  # the log folded: the last event of each pair
        self.dead: list[bytes | None] = []

    def take(self, batch: Batch) -> None:
        for output in batch.outputs:
            if output.kind == "dead_letters":
                self.dead.append(output.value)
            elif output.kind == "alignment_events":
                event = msgspec.json.decode(output.value or b"", type=AlignmentEvent)
                self.events.append(event)
                self.told[output.key or b""] = event
                if event.event == "withdrawn":
                    del self.told[output.key or b""]
            elif output.value is None:
                self.records.pop(output.key or b"", None)
            else:
                self.records[output.key or b""] = msgspec.json.decode(output.value, type=AlignmentRecord)

    def check(self, min_change: float) -> None:
        """The two say the same, but for changes of confidence below the least that is an event."""
        assert self.told.keys() == self.records.keys()
        for key, record in self.records.items():
            event = self.told[key]
            off = abs(round(10_000 * record.confidence) - round(10_000 * event.confidence))
            assert off < max(10_000 * min_change, 1), (event, record)
            assert event.model == record.model and event.mapping_justification == record.mapping_justification

    def truth(self) -> set[Record]:
        return {
            (r.subject_id, r.object_id, r.confidence, msgspec.json.encode(r.evidence))
            for r in self.records.values()
        }

    def pairs(self) -> set[tuple[str, str]]:
        return {(r.subject_id, r.object_id) for r in self.records.values()}


def run(aligner: Aligner, topic: Topic, inputs: Sequence[Message], cuts: Sequence[int] = ()) -> None:
    """Processes everything in batches that end at `cuts`, and drains."""
    bounds = [0, *sorted(cuts), len(inputs)]
    for start, end in pairwise(bounds):
        batch = aligner.process(inputs[start:end])
        topic.take(batch)
        aligner.published(batch.sequence)
    while aligner.backlog:
        topic.take(aligner.process([]))


class Step(NamedTuple):
    """A batch of so many messages, so many looks at the backlog, and how the worker ends then, if it does."""

    messages: int
    bulk: bool
    idle: int
    end: Literal["", "stop", "kill"]


STEPS = st.lists(
    st.builds(
        Step, st.integers(1, 9), st.booleans(), st.integers(0, 2), st.sampled_from(["", "", "stop", "kill"])
    ),
    max_size=8,
)


def live(
    checkpoint: Path,
    state: Path,
    inputs: Sequence[Message],
    steps: Iterable[Step],
    search: Search = "exact",
    min_change: float = 0.0,
) -> Topic:
    """Processes the messages as the steps say, then the others at once, and drains."""
    topic = Topic()
    opened = partial(Aligner, state, checkpoint, decode_canonical, search=search, min_change=min_change)
    aligner = opened()
    position = 0
    for step in steps:
        batch = aligner.process(inputs[position : position + step.messages], bulk=step.bulk)
        position += step.messages
        topic.take(batch)
        aligner.published(batch.sequence)
        # whatever waits: nothing stays aligned with an entity that is gone
        ends = {node_of(name) for pair in topic.pairs() for name in pair}
        assert all(
            entity is not None and not entity.deleted for entity in aligner._parts.graph.entities(ends)
        )
        topic.check(min_change)
        for _ in range(step.idle):
            topic.take(aligner.process([], bulk=step.bulk))
            topic.check(min_change)
        if step.end:
            if step.end == "stop":
                aligner.close()
            else:
                aligner._store.close()
            aligner = opened()
            for batch in aligner.pending():  # perhaps for the second time
                topic.take(batch)
            topic.check(min_change)
    run(aligner, topic, inputs[position:])
    topic.check(min_change)
    aligner.close()
    return topic


def batch_run(
    checkpoint: Path, state: Path, events: Iterable[EntityEvent], search: Search = "exact"
) -> Topic:
    topic = Topic()
    aligner = Aligner(state, checkpoint, decode_canonical, search=search)
    run(aligner, topic, messages(events))
    aligner.close()
    return topic


def test_films_and_people_are_aligned_with_evidence(checkpoint: Path, tmp_path: Path) -> None:
    topic = batch_run(checkpoint, tmp_path, catalogues())
    right = {(f"left:f{n}", f"right:f{n}") for n in range(60, 120)}
    found = {pair for pair in topic.pairs() if pair[0].startswith("left:f")}
    assert len(right & found) >= 48
    record = next(r for r in topic.records.values() if (r.subject_id, r.object_id) in right)
    assert record.evidence.attributes or record.evidence.neighbours
    assert 0 < record.confidence <= 1
    of_films = {r.subject_category == "film": r.calibrated for r in topic.records.values()}
    assert of_films == {True: True, False: False}  # training had links of films alone
    assert {event.event for event in topic.events} == {"aligned"}


@pytest.mark.parametrize("search", ["exact", "cells"])
def test_what_was_seen_of_a_change_that_is_taken_back_is_forgotten(
    checkpoint: Path, tmp_path: Path, search: Search
) -> None:
    """A bulk puts people's new names off; films that are evaluated meanwhile see them. Then the names are as
    before: the films have to be evaluated again, although nothing has become of the people in the end."""
    first = catalogues()
    people = [event for event in first if event.type == "person"]
    renamed = [msgspec.structs.replace(each, attributes={"name": f"Q {each.id} X"}) for each in people]
    films = [
        msgspec.structs.replace(each, attributes={**each.attributes, "note": 1})
        for each in first
        if each.type == "film"
    ]
    bulks = [*first, *renamed, *films, *people]
    ends = [*accumulate(map(len, (first, renamed, films, people)))]
    inputs, topic = messages(bulks), Topic()
    aligner = Aligner(tmp_path / "state", checkpoint, decode_canonical, search=search)
    run(aligner, topic, inputs[: ends[0]])
    for begin, end, bulk in ((ends[0], ends[1], True), (ends[1], ends[2], False), (ends[2], ends[3], True)):
        topic.take(aligner.process(inputs[begin:end], bulk=bulk))
    run(aligner, topic, [])
    aligner.close()
    assert topic.truth() == batch_run(checkpoint, tmp_path / "batch", [*people, *films], search).truth()


def test_cells_hide_nothing_that_matters_in_small_catalogues(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner_module, "RECALL_SAMPLE", 1000)  # all, whichever chance would draw
    exact = batch_run(checkpoint, tmp_path / "exact", catalogues())
    cells = batch_run(checkpoint, tmp_path / "cells", catalogues(), "cells")
    assert cells.truth() != exact.truth()  # or cells would not be tried here
    assert len(cells.pairs() & exact.pairs()) > 0.9 * len(exact.pairs())
    with pytest.raises(StateError, match="search cells"):
        Aligner(tmp_path / "cells", checkpoint, decode_canonical)
    aligner = Aligner(tmp_path / "cells", checkpoint, decode_canonical, search="cells")
    measured = aligner.recall()
    assert measured.keys() == {"name", "values", "levels", "level1"}
    assert all(0 < share <= 1 for share in measured.values()) and measured["name"] < 1
    aligner.close()
    aligner = Aligner(tmp_path / "exact", checkpoint, decode_canonical)
    assert set(aligner.recall().values()) == {1.0}
    aligner.close()


def test_entities_are_counted_by_source_and_type(checkpoint: Path, tmp_path: Path) -> None:
    """Those that exist: not what was deleted, nor what only relations name."""
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    events = [*catalogues(3), Upsert("left", "new", "series", {"name": "x"}, {"by": ["nothing"]})]
    gone, *kept = events
    aligner.process(messages([*events, Delete(gone.source, gone.id)]))
    while (found := aligner.dangling()) is None:
        pass
    assert found.entities == Counter((event.source, event.type) for event in kept)
    assert found.lone_types == [("left", "series")]
    aligner.close()


EVENT = st.one_of(
    st.builds(lambda s, n: film(s, n), st.sampled_from(["left", "right"]), st.integers(0, 7)),
    st.builds(
        lambda e, other: msgspec.structs.replace(e, attributes=other.attributes),
        st.builds(film, st.sampled_from(["left", "right"]), st.integers(0, 7)),
        st.builds(film, st.sampled_from(["left", "right"]), st.integers(0, 7)),
    ),
    st.builds(
        lambda e, other: msgspec.structs.replace(e, relations=other.relations),
        st.builds(film, st.sampled_from(["left", "right"]), st.integers(0, 7)),
        st.builds(film, st.sampled_from(["left", "right"]), st.integers(0, 7)),
    ),
    st.builds(
        lambda s, n, t: Upsert(s, f"f{n}", t, {"name": "anna berg"}, {"knows": [f"f{n}", "p3"]}),
        st.sampled_from(["left", "right"]),
        st.integers(0, 7),
        st.sampled_from(["film", "person"]),
    ),
    st.builds(Delete, st.sampled_from(["left", "right"]), st.integers(0, 7).map("f{}".format)),
)


@pytest.fixture(params=["roomy", "cramped"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Cramped: everything that is done a piece at a time takes many pieces."""
    if request.param == "cramped":
        monkeypatch.setattr(embedding, "HUB_DEGREE", 2)
        monkeypatch.setattr(scoring, "SCORE_CHUNK", 2)
        for name in ("EVALUATIONS", "PAIRS", "HUB"):
            monkeypatch.setattr(turn, f"IDLE_{name}", 2)
        for name in ("BULK_EVALUATIONS", "BULK_PAIRS", "HUB_SHARE"):
            monkeypatch.setattr(turn, name, 2)
        monkeypatch.setattr(aligner_module, "EVALUATION_CHUNK", 2)
    return str(request.param)


@pytest.mark.parametrize("search", ["exact", "cells"])
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    events=st.lists(EVENT, min_size=1, max_size=30),
    people=st.booleans(),
    steps=STEPS,
    min_change=st.sampled_from([0.0, 0.01, 0.2]),
    chance=st.randoms(use_true_random=False),
)
def test_any_order_batching_and_crashes_end_like_one_batch_over_the_final_graph(
    bounds: str,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    search: Search,
    events: list[EntityEvent],
    people: bool,
    steps: list[Step],
    min_change: float,
    chance: random.Random,
) -> None:
    base: list[EntityEvent] = [e for e in catalogues(6) if e.type == "person"] if people else []
    versioned = [
        msgspec.structs.replace(event, version=number) for number, event in enumerate([*base, *events])
    ]
    shuffled = list(versioned) + chance.sample(versioned, len(versioned) // 3)  # some come twice
    chance.shuffle(shuffled)
    final = {(event.source, event.id): event for event in versioned}
    expected = batch_run(
        checkpoint,
        tmp_path_factory.mktemp("final"),
        [event for event in final.values() if isinstance(event, Upsert)],
        search,
    )
    state = tmp_path_factory.mktemp("stream")
    topic = live(checkpoint, state, messages(shuffled), steps, search, min_change)
    assert topic.truth() == expected.truth()


def test_a_pair_that_was_scored_while_its_neighbour_was_different_is_scored_again(
    checkpoint: Path, tmp_path: Path
) -> None:
    people = [e for e in catalogues(0) if e.type == "person"]
    films = [film(source, number) for source in ("left", "right") for number in range(9)]
    there = films[4]
    away = msgspec.structs.replace(there, attributes={"title": "something else", "year": 1900})
    director = next(e for e in people if (e.source, e.id) == ("right", there.relations["directed_by"][0]))
    dated = msgspec.structs.replace(director, attributes={**director.attributes, "year": 1950})
    # the film changes and changes back before its director is evaluated again; its right one is scored
    # in between
    topic = live(
        checkpoint,
        tmp_path / "one",
        messages([*people, *films, away, dated, there]),
        [Step(len(people) + len(films), False, 99, ""), *[Step(1, False, 0, "")] * 3],
    )
    assert topic.truth() == batch_run(checkpoint, tmp_path / "two", [*people, *films, dated]).truth()


def test_updates_and_deletes_revise_and_withdraw(checkpoint: Path, tmp_path: Path) -> None:
    topic = Topic()
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    run(aligner, topic, messages(catalogues()))
    pair = ("left:f70", "right:f70")
    assert pair in topic.pairs()
    year_off = msgspec.structs.replace(
        film("right", 70), attributes={"title": film("right", 70).attributes["title"]}
    )
    run(aligner, topic, messages([year_off], 1000))
    revised = [event for event in topic.events if event.event == "revised" and event.cause.offset == 1000]
    assert [(event.subject_id, event.object_id) for event in revised] == [pair]
    run(aligner, topic, messages([Delete("left", "f70")], 1001))
    assert pair not in topic.pairs()
    last = next(event for event in topic.events if event.event == "withdrawn")
    assert last.cause.offset == 1001 and (last.subject_id, last.object_id) == pair
    run(aligner, topic, messages([film("left", 70)], 1002))
    assert pair in topic.pairs()
    aligner.close()


def test_an_event_names_what_made_the_alignment_change(checkpoint: Path, tmp_path: Path) -> None:
    """The record's cause is the newest input of the pair itself, whatever changed it."""
    topic = Topic()
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    everything = catalogues()
    run(aligner, topic, messages(everything), [100])
    for event in topic.events:
        assert event.trigger is not None and event.trigger.kind in ("input", "neighbour", "candidate")

    def caused(*events: EntityEvent, restart: bool = False) -> dict[tuple[str, str, str], AlignmentEvent]:
        nonlocal aligner
        before = len(topic.events)
        topic.take(aligner.process(messages(events, 1000 + before)))
        if restart:
            aligner._store.close()  # killed while neighbours wait
            aligner = Aligner(tmp_path, checkpoint, decode_canonical)
            for batch in aligner.pending():
                aligner.published(batch.sequence)
        run(aligner, topic, [])
        return {(each.event, each.subject_id, each.object_id): each for each in topic.events[before:]}

    def triggers(found: dict[tuple[str, str, str], AlignmentEvent]) -> dict[str, Trigger | None]:
        return {subject: event.trigger for (_, subject, _), event in found.items()}

    person = next(e for e in everything if (e.source, e.id) == ("right", "p5"))
    films = {
        f"right:{each.id}"
        for each in everything
        if each.source == "right" and any("p5" in targets for targets in each.relations.values())
    }
    for restart, name in ((False, "Q X"), (True, person.attributes["name"])):
        offset = 1000 + len(topic.events)
        renamed = caused(msgspec.structs.replace(person, attributes={"name": name}), restart=restart)
        here = Cause("t", 0, offset)
        around = [each for (_, _, film), each in renamed.items() if film in films]
        assert around and all(each.cause != here for each in around)
        assert {each.trigger for each in around} == {Trigger("neighbour", here)}
        assert triggers(renamed).get("left:p5", Trigger("input", here)) == Trigger("input", here)

    offset = 1000 + len(topic.events)
    crowd_of = [msgspec.structs.replace(film("right", 70), id=f"g{n}", relations={}) for n in range(9)]
    found = caused(*crowd_of)
    crowd = [each.trigger for each in found.values() if each.trigger is not None]
    assert "candidate" in {trigger.kind for trigger in crowd}
    assert all(offset <= each.cause.offset < offset + 9 for each in crowd if each.cause is not None)
    aligner.close()


def decode_or_link(message: Message) -> Sequence[EntityEvent | LinkChange]:
    if message.cause.topic == "links":
        link = msgspec.json.decode(message.value, type=Link) if message.value else None
        return [LinkChange("left:f70", "right:f71", link)]
    return decode_canonical(message)


def verdict(link: Link | None, offset: int) -> Message:
    return Message(Cause("links", 0, offset), None, msgspec.json.encode(link) if link else None, 1.0)


def test_a_verdict_overrides_the_model_and_can_be_taken_back(checkpoint: Path, tmp_path: Path) -> None:
    topic = Topic()
    aligner = Aligner(tmp_path, checkpoint, decode_or_link)
    run(aligner, topic, [verdict(Link("left:f70", "right:f71"), 0), *messages(catalogues())])
    assert ("left:f70", "right:f71") in topic.pairs() and ("left:f70", "right:f70") not in topic.pairs()
    manual = next(r for r in topic.records.values() if r.object_id == "right:f71")
    assert manual.mapping_justification == "semapv:ManualMappingCuration" and manual.confidence == 1.0
    run(aligner, topic, [verdict(None, 1)])
    assert ("left:f70", "right:f70") in topic.pairs() and ("left:f71", "right:f71") in topic.pairs()
    aligner.close()


def test_a_restart_in_the_middle_ends_like_an_undisturbed_run(checkpoint: Path, tmp_path: Path) -> None:
    events = messages(catalogues())
    undisturbed = batch_run(checkpoint, tmp_path / "one", catalogues())
    topic = Topic()
    state = tmp_path / "two"
    # stopped without draining; the last batch was stored, and it is not known whether it was published
    for start in range(0, len(events), 100):
        aligner = Aligner(state, checkpoint, decode_canonical)
        for batch in aligner.pending():
            topic.take(batch)
        assert aligner.origin.next_offset("t", 0) == (start or None)
        topic.take(aligner.process(events[max(0, start - 30) : start + 100]))
        aligner.close()
    aligner = Aligner(state, checkpoint, decode_canonical)
    for batch in aligner.pending():
        topic.take(batch)
    run(aligner, topic, [])
    aligner.close()
    assert topic.records == undisturbed.records


def test_what_was_stored_and_not_published_is_pending_after_a_crash(checkpoint: Path, tmp_path: Path) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    one = aligner.process(messages(catalogues()))
    two = aligner.process(messages([Delete("left", "f70")], 1000))
    aligner.published(one.sequence)
    aligner._store.close()
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    assert one.outputs and two.outputs
    # that the first one was published is not stored either: it goes out a second time
    assert [batch.outputs for batch in aligner.pending()] == [one.outputs, two.outputs]
    for batch in list(aligner.pending()):
        aligner.published(batch.sequence)
    aligner.process([])
    assert not list(aligner.pending())
    aligner.close()


@pytest.mark.parametrize("idle", [0, 1])
def test_a_crash_while_changes_of_entities_wait_changes_nothing(
    bounds: str, checkpoint: Path, tmp_path: Path, idle: int
) -> None:
    films = [entity for entity in catalogues() if entity.type == "film" and entity.source == "right"]
    renamed = [
        msgspec.structs.replace(entity, attributes=films[(number + 7) % len(films)].attributes)
        for number, entity in enumerate(films)
        if number % 5 == 0
    ]
    topic = live(
        checkpoint,
        tmp_path / "one",
        messages([*catalogues(), *renamed]),
        [Step(len(catalogues()), True, 10_000, ""), Step(len(renamed), True, idle, "kill")],
    )
    assert topic.truth() == batch_run(checkpoint, tmp_path / "two", [*catalogues(), *renamed]).truth()


def test_a_verdict_on_entities_that_still_wait_is_in_force_at_once(checkpoint: Path, tmp_path: Path) -> None:
    films = messages([film("left", 70), film("right", 71)])
    aligner = Aligner(tmp_path, checkpoint, decode_or_link)
    batch = aligner.process([*films, verdict(Link("left:f70", "right:f71"), 0)], bulk=True)
    assert [output.key for output in batch.outputs if output.kind == "alignments"] == [b"left:f70|right:f71"]
    aligner.close()


def test_a_change_that_the_model_does_not_see_reaches_the_record_in_bulk(
    checkpoint: Path, tmp_path: Path
) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    topic = Topic()
    run(aligner, topic, messages(catalogues()))
    old = film("right", 70)
    loud = msgspec.structs.replace(
        old, attributes={**old.attributes, "title": str(old.attributes["title"]).upper()}
    )
    batch = aligner.process(messages([loud], 1000), bulk=True)
    assert batch.is_gathered
    while aligner.backlog:
        batch = aligner.process([], bulk=True)
        assert batch.is_gathered == (batch.backlog > 0)
        topic.take(batch)
    assert topic.records[b"left:f70|right:f70"].cause.offset == 1000
    aligner.close()


@pytest.mark.parametrize(
    ("bulk", "calls"),
    [
        pytest.param(False, 1, id="little by little"),
        pytest.param(True, 1, id="after rows"),
        pytest.param(True, 2, id="after lists"),
    ],
)
def test_a_crash_while_entities_and_hubs_wait_changes_nothing(
    bounds: str, checkpoint: Path, tmp_path: Path, bulk: bool, calls: int
) -> None:
    people = [entity for entity in catalogues(0) if entity.type == "person"]
    renamed = [
        msgspec.structs.replace(entity, attributes=people[(number + 7) % len(people)].attributes)
        for number, entity in enumerate(people)
        if number % 5 == 0
    ]
    topic = Topic()
    aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    run(aligner, topic, messages(catalogues()))
    topic.take(aligner.process(messages(renamed, 1000)))
    for _ in range(2):
        for _ in range(calls):
            topic.take(aligner.process([], bulk=bulk))
        assert aligner.backlog
        aligner._store.close()
        aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
        for batch in aligner.pending():
            topic.take(batch)
    while aligner.backlog:
        topic.take(aligner.process([], bulk=bulk))
    aligner.close()
    assert topic.truth() == batch_run(checkpoint, tmp_path / "two", [*catalogues(), *renamed]).truth()


def test_after_a_kill_rows_are_what_lists_and_scores_rest_on(checkpoint: Path, tmp_path: Path) -> None:
    """Also of those that do not wait, although one of their neighbours does."""
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    run(aligner, Topic(), messages(catalogues()))
    recast = [
        msgspec.structs.replace(film(source, number), relations=film(source, number + 1).relations)
        for source in ("left", "right")
        for number in range(0, 100, 9)
    ]
    for batch in (messages(recast, 1000), []):
        aligner.process(batch)
        assert aligner.backlog
        before = aligner._parts.embedding.table.rows
        aligner._store.close()
        aligner = Aligner(tmp_path, checkpoint, decode_canonical)
        after = aligner._parts.embedding.table
        slots = after.slots(before["node"].tolist())
        for field in (*embedding.AROUND, "degree", "shown"):
            assert (after.rows[field][slots] == before[field]).all(), field


def test_a_restart_knows_entities_that_are_only_pointed_at(checkpoint: Path, tmp_path: Path) -> None:
    events = messages([film(source, number) for source in ("left", "right") for number in range(5)])
    topic, undisturbed = Topic(), batch_run(checkpoint, tmp_path / "one", catalogues(5))
    aligner = Aligner(tmp_path / "two", checkpoint, decode_canonical)
    run(aligner, topic, events)
    aligner.close()
    aligner = Aligner(tmp_path / "two", checkpoint, decode_canonical)
    people = [entity for entity in catalogues(0) if entity.type == "person"]
    run(aligner, topic, messages(people, len(events)))
    aligner.close()
    assert topic.truth() == undisturbed.truth()


@pytest.mark.parametrize("damage", ["none", "old", "flipped", "missing"])
def test_a_snapshot_is_caught_up_with_or_made_anew(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    events = messages([*catalogues(), film("right", 3), Delete("left", "f5")])
    undisturbed = Topic()
    aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    run(aligner, undisturbed, events)
    aligner.close()
    state, topic = tmp_path / "two", Topic()
    aligner = Aligner(state, checkpoint, decode_canonical)
    topic.take(aligner.process(events[:200]))
    aligner.close()  # leaves a snapshot
    aligner = Aligner(state, checkpoint, decode_canonical)
    topic.take(aligner.process(events[200:330]))
    topic.take(aligner.process([]))
    if damage == "old":
        shutil.copytree(state / "snapshot", tmp_path / "old")
    aligner.close()
    saved = state / "snapshot"
    if damage == "old":
        shutil.rmtree(saved)
        (tmp_path / "old").rename(saved)
    elif damage == "flipped":
        file = next(saved.rglob("0-0.npz"))
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    elif damage == "missing":
        next(saved.rglob("0-1.faiss")).unlink()
    aligner = Aligner(state, checkpoint, decode_canonical)
    run(aligner, topic, events)
    aligner.close()
    assert topic.records == undisturbed.records


def test_a_snapshot_is_saved_in_quiet_so_that_a_crash_does_not_cost_a_search(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    aligner.process(messages(catalogues()), bulk=True)
    while aligner.backlog:
        aligner.process([], bulk=True)
    changed = msgspec.structs.replace(film("left", 3), attributes={"title": "Another"})
    aligner.process(messages([changed], 1000))
    aligner._store.close()  # killed
    searched: list[int] = []
    encoded: list[int] = []
    search, encode = VectorIndex.search, Encoder.encode

    def counted(index: VectorIndex, queries: Int8s, *rest: Any) -> Any:
        searched.append(len(queries))
        return search(index, queries, *rest)

    def counted_encode(encoder: Encoder, entities: Sequence[Upsert]) -> Encoded:
        encoded.append(len(entities))
        return encode(encoder, entities)

    monkeypatch.setattr(VectorIndex, "search", counted)
    monkeypatch.setattr(Encoder, "encode", counted_encode)
    Aligner(tmp_path, checkpoint, decode_canonical).close()
    assert 0 < sum(searched) < 20
    assert sum(encoded) < 1 + 2 * CHECKED  # of 432


@pytest.mark.parametrize(("search", "other_encoder"), [("exact", False), ("cells", False), ("cells", True)])
def test_rows_of_a_snapshot_are_what_the_store_says(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    search: Search,
    other_encoder: bool,
) -> None:
    """Whatever was changed, deleted, brought back or new since it was saved; also after an upgrade."""

    def opened() -> dict[str, np.ndarray[Any, Any]]:
        """Every field of every entity, in the order of nodes."""
        aligner = Aligner(tmp_path, checkpoint, decode_canonical, search=search)
        table = aligner._parts.embedding.table
        order = np.argsort(table.rows["node"])
        order = order[table.rows["exists"][order]]
        by_process = ("space", "sample", "content")  # they name slots and numbers of spaces
        found = {field: table.rows[field][order] for field in FIELDS if field not in by_process}
        found["types"] = np.array(aligner._parts.embedding.types(found["node"].tolist()))
        used = (found["item_keys"].T != 0)[:, :, None]
        found["items"] = np.where(used, table.items[:, order], 0)
        aligner._store.close()  # killed
        return found

    aligner = Aligner(tmp_path, checkpoint, decode_canonical, search=search)
    aligner.process(messages([*catalogues(), Delete("left", "f7")]))
    aligner.close()
    aligner = Aligner(tmp_path, checkpoint, decode_canonical, search=search)
    changed = msgspec.structs.replace(film("left", 3), attributes={"title": "Another"})
    aligner.process(messages([changed, Delete("right", "f5"), film("left", 7), film("left", 900)], 1000))
    aligner._store.close()  # killed
    with_snapshot = opened()
    if other_encoder:

        def encode(encoder: Encoder, entities: Sequence[Upsert]) -> tuple[Encoded, OwnCells]:
            encoded, cells = as_before(encoder, entities)
            return encoded._replace(values=-encoded.values), cells

        as_before = Encoder.encode_with_cells
        monkeypatch.setattr(Encoder, "encode_with_cells", encode)
        with_snapshot = opened()
    shutil.rmtree(tmp_path / "snapshot")
    without = opened()
    assert len(without["node"]) > 100
    for field, column in without.items():
        np.testing.assert_array_equal(with_snapshot[field], column, err_msg=field)


def test_nothing_of_a_batch_that_was_broken_off_is_stored(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a second Ctrl-C, after which a command still closes what it has opened."""
    events, undisturbed, topic = messages([*catalogues(), film("right", 3)]), Topic(), Topic()
    aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    run(aligner, undisturbed, events)
    aligner.close()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    aligner = Aligner(tmp_path / "two", checkpoint, decode_canonical)
    topic.take(aligner.process(events[:200]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Scoring, "score", interrupted)
        aligner.process(events[200:])
    aligner.close()
    aligner = Aligner(tmp_path / "two", checkpoint, decode_canonical)
    assert aligner.origin.next_offset(events[0].cause.topic, 0) == events[200].cause.offset
    run(aligner, topic, events)
    aligner.close()
    assert topic.records == undisturbed.records


def test_everything_received_is_accounted_for(checkpoint: Path, tmp_path: Path) -> None:
    old, new = (msgspec.structs.replace(film("left", 1), version=v) for v in (1, 2))
    inputs = messages([new, old])
    bad = [
        Message(Cause("t", 0, 2), b"left:f9", b"{not json", 0.0),
        Message(Cause("t", 0, 3), b"left:f9", b'{"op":"upsert","source":"a b","id":"x","type":"t"}', 0.0),
        Message(Cause("other", 0, 4), b"no curie", None, 0.0),
        Message(Cause("t", 0, 5), None, b"x" * 2_000_000, 0.0),
    ]
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    topic = Topic()
    batch = aligner.process([*inputs, *bad])
    topic.take(batch)
    counts = batch.counts
    assert (counts.received, counts.applied, counts.stale, counts.dead_lettered) == (6, 1, 1, 4)
    assert batch.topics == {"t": Counts(5, 1, 1, 3), "other": Counts(1, 0, 0, 1)}
    assert next(iter(aligner.pending())).topics == batch.topics  # so they are counted after a crash
    assert topic.dead == [message.value for message in bad]
    again = aligner.process([*inputs, *bad]).counts
    assert (again.received, again.stale) == (6, 6)
    aligner.close()


@pytest.mark.parametrize("bulk", [False, True])
def test_a_deleted_entity_of_a_type_without_a_name_is_withdrawn_at_once(
    checkpoint: Path, tmp_path: Path, bulk: bool
) -> None:
    topic, aligner = Topic(), Aligner(tmp_path, checkpoint, decode_canonical, threshold=0.02)
    films = [film(source, n) for source in ("left", "right") for n in range(60, 90)]
    gone = [Delete("right", f"f{n}") for n in range(60, 90)]
    run(aligner, topic, messages(msgspec.structs.replace(one, type="") for one in films))
    assert topic.pairs()
    topic.take(aligner.process(messages(gone, 60), bulk=bulk))
    assert not topic.pairs()
    aligner.close()


def test_vectors_are_those_in_the_lists_and_go_with_their_entities(checkpoint: Path, tmp_path: Path) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    events: list[EntityEvent] = [film("left", 60), film("right", 60)]
    events += [Delete("left", "f60"), Delete("right", "f60")]
    found = [aligner.process([message]).vectors for message in messages(events)]
    # none to compare with, both, one of two, none
    assert found[0] == 0 and found[1] == 2 * found[2] > 0 and found[3] == 0
    aligner.close()


@pytest.mark.parametrize(("value", "other"), [(1, True), (0, False), (1, 1.0), ([1], [True])])
def test_a_value_of_another_type_is_another_value(
    checkpoint: Path, tmp_path: Path, value: Any, other: Any
) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    for number, year in enumerate([value, other, value]):
        aligner.process(messages([Upsert("left", "f1", "film", {"title": "a", "year": year})], number))
        entity = aligner._parts.graph.entities([node_of("left:f1")])[0]
        assert entity is not None and repr(entity.attributes["year"]) == repr(year)
    aligner.close()


def test_the_tombstone_of_a_delete_takes_no_version_away(checkpoint: Path, tmp_path: Path) -> None:
    aligner = Aligner(tmp_path, checkpoint, decode_canonical)
    late = Upsert("left", "f1", "film", {"title": "a"}, version=3)
    events: list[EntityEvent] = [Delete("left", "f1", version=17), Delete("left", "f1"), late]
    assert aligner.process(messages(events)).counts.stale == 1
    assert aligner.exist(["left:f1"]) == [False]
    aligner.close()


def test_two_large_entities_make_no_large_record(checkpoint: Path, tmp_path: Path) -> None:
    topic, aligner = Topic(), Aligner(tmp_path, checkpoint, decode_or_link)
    large: dict[str, Any] = {"year": 1999, "tags": ["tag " * 1000] * 50}
    films = [
        Upsert(source, number, "film", {"title": "the same long title " * 10_000, **large})
        for source, number in (("left", "f70"), ("right", "f71"))
    ]
    batch = aligner.process([*messages(films), verdict(Link("left:f70", "right:f71"), 0)])
    topic.take(batch)
    assert batch.counts.applied == 3
    assert topic.records[b"left:f70|right:f71"].evidence.attributes
    assert all(len(output.value or b"") < 200_000 for output in batch.outputs)
    aligner.close()


@pytest.mark.parametrize("stage", ["applying", "encoding", "retrieval"])
@pytest.mark.parametrize("bulk", [False, True])
def test_messages_that_kill_processing_are_dead_letters_and_the_others_go_on(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, bulk: bool
) -> None:
    class Killer(str):
        """A string that cannot be stored."""

    entities = catalogues()
    inputs, killers = messages(entities), [206, 210, 213]  # films, to which no relation leads
    monkeypatch.setattr(recovery, "RELOADS_SECONDS", 0.0)  # however often that costs a reload
    nodes = {node_of(f"left:{entities[offset].id}") for offset in killers}

    def decode(message: Message) -> Sequence[EntityEvent]:
        events = list(decode_canonical(message))
        if message.cause.offset in killers and stage == "applying":
            return [msgspec.structs.replace(events[0], attributes={"title": Killer("ü")})]
        return events

    def failing(stages: str, method: Callable[..., Any], named: Callable[[Any], Iterable[int]]) -> Any:
        def fail(part: Any, what: Any, *more: Any) -> Any:
            if stage == stages and nodes.intersection(named(what)):
                raise MemoryError("as if")
            return method(part, what, *more)

        return fail

    undisturbed = Topic()
    aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    run(aligner, undisturbed, [message for message in inputs if message.cause.offset not in killers])
    aligner.close()
    for named, part, method in (
        ("encoding", Embedding, "read"),
        ("retrieval", Embedding, "put_off"),
        ("retrieval", Retrieval, "evaluate"),
    ):
        as_before = getattr(part, method)
        monkeypatch.setattr(
            part, method, failing(named, as_before, lambda what: getattr(what, "alive", what))
        )
    topic = Topic()
    aligner = Aligner(tmp_path / "two", checkpoint, decode)
    batch = aligner.process(inputs[:200])
    topic.take(batch)
    former = aligner.process([Message(Cause("other", 0, 0), None, b"{", 0.0)])
    assert former.outputs
    aligner.published(former.sequence)
    parts = aligner._parts
    batch = aligner.process(inputs[200:220], bulk=bulk)
    topic.take(batch)
    assert all(waiting.sequence > former.sequence for waiting in aligner.pending())  # nothing comes again
    assert batch.topics == {"t": Counts(20, 17, 0, 3)} and bool(batch.vectors) != bulk
    assert batch.reloads == (7 if stage == "retrieval" else 0)  # each is to be set aside, and fails again
    assert (aligner._parts is parts) == (batch.reloads == 0)
    assert topic.dead == [inputs[offset].value for offset in killers]
    letter = next(output for output in batch.outputs if output.kind == "dead_letters")
    assert dict(letter.headers)["reason"] == b"failed" and dict(letter.headers)["stage"] == b"process"
    run(aligner, topic, inputs[220:])
    aligner.close()
    assert topic.truth() == undisturbed.truth()


def test_a_hub_does_not_stall_the_stream(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "HUB_DEGREE", 16)
    monkeypatch.setattr(turn, "IDLE_HUB", 64)

    def films(studio: str) -> list[EntityEvent]:
        base = [
            msgspec.structs.replace(film(side, n), relations={"studio": ["s1"]})
            for side in ("left", "right")
            for n in range(300)
        ]
        return [*base, *(Upsert(side, "s1", "studio", {"name": studio}) for side in ("left", "right"))]

    topic = Topic()
    aligner = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    run(aligner, topic, messages(films("amber pictures")))
    before = aligner.evaluations
    topic.take(aligner.process(messages(films("birch and sons")[-2:], 1000)))
    assert aligner.evaluations - before < 50 and aligner.backlog
    run(aligner, topic, [])
    assert aligner.evaluations - before >= 600
    aligner.close()
    assert topic.truth() == batch_run(checkpoint, tmp_path / "two", films("birch and sons")).truth()


def test_a_state_in_use_or_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    aligner = Aligner(tmp_path / "state", checkpoint, decode_canonical)
    with pytest.raises(StateError, match="in use by process"):
        Aligner(tmp_path / "state", checkpoint, decode_canonical)
    aligner.close()
    with pytest.raises(StateError, match="threshold"):
        Aligner(tmp_path / "state", checkpoint, decode_canonical, threshold=0.99)
    with pytest.raises(ModelError, match="sameas train"):
        Aligner(tmp_path / "state", tmp_path / "nothing", decode_canonical)
