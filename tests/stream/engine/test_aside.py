"""What cannot be evaluated is set aside and stops nothing, wherever it fails and whatever else happens."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.catalogues import catalogues, film
from index.entity import node_of
from index.search.arrays import Pairs
from stream.changes import LinkChange
from stream.engine import recovery as module
from stream.engine.aligner import Aligner
from stream.engine.blame import cut, failing
from stream.engine.embedding import Embedding
from stream.engine.pairs import FoundPairs, SourcePair
from stream.engine.records import Records
from stream.engine.retrieval import Retrieval
from stream.engine.scoring import Scoring
from stream.errors import InvalidInput
from stream.events import Delete, EntityEvent, Link, Message, Upsert
from stream.mapping.canonical import decode_canonical
from tests.stream.engine.test_aligner import (
    EVENT,
    STEPS,
    Step,
    Topic,
    batch_run,
    live,
    messages,
    run,
)

Stage = Literal["rows", "lists", "scores", "records"]
STAGES: Final[list[Stage]] = ["rows", "lists", "scores", "records"]


class Poison:
    """Entities whose evaluation fails at one stage, as long as they exist and `works` is not set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stage: Stage, *names: str) -> None:
        self.nodes = {node_of(name) for name in names}
        self.works = False
        self.failed = 0

        def patch(part: type, method: str, named: Callable[..., Iterable[int]]) -> None:
            as_before = getattr(part, method)

            def fail(one: Any, *what: Any) -> Any:
                if not self.works and self.nodes.intersection(named(one, *what)):
                    self.failed += 1
                    raise ArithmeticError("as \x1b if")
                return as_before(one, *what)

            monkeypatch.setattr(part, method, fail)

        def refreshed(embedding: Embedding, nodes: Sequence[int], changed: Any = None) -> Iterator[int]:
            dead = set() if changed is None else {*changed.dead}
            alive = set() if changed is None else {*changed.alive}
            exists = embedding.table.rows["exists"][embedding.table.slots(nodes)].tolist()
            for node, is_there in zip(nodes, exists, strict=True):
                if node in alive or (is_there and node not in dead):
                    yield node

        def listed(retrieval: Retrieval, slots: Any, _: Any) -> Iterator[int]:
            rows = retrieval.embedding.table.rows
            yield from rows["node"][slots[rows["exists"][slots]]].tolist()

        def scored(scoring: Scoring, found: Sequence[FoundPairs]) -> Iterator[int]:
            rows = scoring._embedding.table.rows
            for _, pairs in found:
                for slots in pairs:
                    yield from rows["node"][slots[rows["exists"][slots]]].tolist()

        if stage == "rows":
            patch(Embedding, "refresh", refreshed)
        elif stage == "lists":
            patch(Retrieval, "_retrieve", listed)
        elif stage == "scores":
            patch(Scoring, "score", scored)
        else:
            patch(
                Records,
                "outputs",
                lambda _, decisions: [
                    node for each in decisions if each.standing is not None for node in each.pair[:2]
                ],
            )


def aside(aligner: Aligner) -> set[int]:
    return {*aligner._parts.backlog.aside}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are tried alone however often that costs a reload, or these tests depended on the time."""
    monkeypatch.setattr(module, "RELOADS_SECONDS", 0.0)


@pytest.mark.parametrize("stage", STAGES)
def test_an_entity_that_cannot_be_evaluated_is_set_aside_alone_and_comes_back(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stage: Stage,
) -> None:
    """Whether it comes alone or in a bulk; then the alignments are those of all others."""
    inputs, expected = messages(catalogues()), batch_run(checkpoint, tmp_path / "all", catalogues())
    poison = Poison(monkeypatch, stage, "left:f70")
    topics = []
    for bulk in (False, True):
        topic, aligner = Topic(), Aligner(tmp_path / str(bulk), checkpoint, decode_canonical)
        reloads = received = 0
        for start in range(0, len(inputs), 40):
            batch = aligner.process(inputs[start : start + 40], bulk=bulk)
            reloads, received = reloads + batch.reloads, received + batch.counts.applied
            topic.take(batch)
        while aligner.backlog:
            batch = aligner.process([], bulk=bulk)
            reloads += batch.reloads
            topic.take(batch)
        assert received == len(inputs) and not topic.dead and batch.aside == 1
        assert aside(aligner) == poison.nodes and 2 <= reloads < 20
        with pytest.raises(InvalidInput, match="left:f70 cannot be evaluated"):
            aligner.explain("left:f70")
        assert all("left:f70" not in pair for pair in topic.pairs())
        aligner.close()
        topics.append(topic)
    assert topics[0].truth() == topics[1].truth()
    assert len(topics[0].pairs() & expected.pairs()) > 0.95 * len(expected.pairs())
    [line] = {text for text in caplog.messages if "left:f70" in text}
    offset = next(each.cause.offset for each in inputs if b'"left","id":"f70"' in (each.value or b""))
    assert f"(t, partition 0, offset {offset})" in line and "\x1b" not in line and "ArithmeticError" in line
    poison.works = True
    aligner = Aligner(tmp_path / "True", checkpoint, decode_canonical)
    run(aligner, topics[1], [])
    assert not aside(aligner) and topics[1].truth() == expected.truth()
    aligner.close()


def decode_with_links(message: Message) -> Sequence[Any]:
    if message.cause.topic == "links":
        link = msgspec.json.decode(message.value or b"", type=Link)
        return [LinkChange(link.left, link.right, link)]
    return decode_canonical(message)


def test_a_verdict_on_what_is_set_aside_waits_and_an_update_is_tried_at_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = Poison(monkeypatch, "rows", "left:f70")
    topic, aligner = Topic(), Aligner(tmp_path, checkpoint, decode_with_links)
    link = msgspec.json.encode(Link("left:f70", "right:f3", "same", "ann"))
    run(aligner, topic, messages(catalogues()))
    verdict = msgspec.structs.replace(messages(catalogues()[:1])[0], value=link)
    verdict = msgspec.structs.replace(verdict, cause=msgspec.structs.replace(verdict.cause, topic="links"))
    run(aligner, topic, [verdict])
    assert aside(aligner) and not any("left:f70" in pair for pair in topic.pairs())
    poison.works = True
    run(aligner, topic, messages([msgspec.structs.replace(film("left", 70), version=2)], 1000))
    assert not aside(aligner) and ("left:f70", "right:f3") in topic.pairs()
    poison.works = False
    run(aligner, topic, messages([msgspec.structs.replace(film("left", 71), version=2)], 1001))
    assert not aside(aligner)
    run(aligner, topic, messages([Delete("left", "f70")], 1002))
    assert not aside(aligner) and not any("left:f70" in pair for pair in topic.pairs())
    aligner.close()


def test_a_neighbour_s_change_is_a_reason_to_try_again(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = catalogues(6)
    poison = Poison(monkeypatch, "lists", "left:f3")
    topic, aligner = Topic(), Aligner(tmp_path, checkpoint, decode_canonical)
    run(aligner, topic, messages(events))
    failures = poison.failed
    run(aligner, topic, messages([Upsert("left", "far", "film", {"title": "far away"})], 1000))
    assert aside(aligner) and poison.failed == failures
    about = Upsert("left", "near", "note", {"text": "near"}, {"of": ["f3"]})
    run(aligner, topic, messages([about], 1001))
    assert aside(aligner) and poison.failed == failures + 1  # once, and not again and again
    poison.works = True
    run(aligner, topic, messages([msgspec.structs.replace(about, relations={})], 1002))
    assert not aside(aligner)
    aligner.close()


def test_after_some_reloads_messages_are_only_stored_and_tried_later(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them fail: the intake goes on, and each of them costs its turn."""
    monkeypatch.setattr(module, "RELOADS_SECONDS", 1e9)
    names = [f"left:f{number}" for number in range(20, 30)]
    poison = Poison(monkeypatch, "rows", *names)
    topic, aligner = Topic(), Aligner(tmp_path / "one", checkpoint, decode_canonical)
    inputs = messages(catalogues(40))
    batches = [aligner.process(inputs[start : start + 40]) for start in range(0, len(inputs), 40)]
    assert sum(batch.reloads for batch in batches) == module.MAX_RELOADS
    for batch in batches:
        topic.take(batch)
    run(aligner, topic, [])
    assert aside(aligner) == poison.nodes and not topic.dead
    aligner.close()
    monkeypatch.setattr(module, "RELOADS_SECONDS", 0.0)
    in_bulk = live(checkpoint, tmp_path / "two", inputs, [Step(len(inputs), bulk=True, idle=0, end="")])
    assert topic.truth() == in_bulk.truth()


@pytest.mark.parametrize("stage", ["rows", "lists"])
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(
    events=st.lists(EVENT, min_size=1, max_size=25),
    bad=st.lists(st.sampled_from([f"{s}:f{n}" for s in ("left", "right") for n in range(8)]), max_size=3),
    steps=STEPS,
    chance=st.randoms(use_true_random=False),
)
def test_any_order_and_any_crash_end_with_the_same_set_aside(
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    stage: Stage,
    events: list[EntityEvent],
    bad: list[str],
    steps: list[Step],
    chance: Any,
) -> None:
    people: list[EntityEvent] = [event for event in catalogues(6) if event.type == "person"]
    versioned = [
        msgspec.structs.replace(event, version=number) for number, event in enumerate([*people, *events])
    ]
    final = {(event.source, event.id): event for event in versioned}
    kept = [event for event in final.values() if isinstance(event, Upsert)]
    shuffled = chance.sample(versioned, len(versioned))
    with pytest.MonkeyPatch.context() as monkeypatch:
        Poison(monkeypatch, stage, *bad)
        expected = batch_run(checkpoint, tmp_path_factory.mktemp("final"), kept)
        topic = live(checkpoint, tmp_path_factory.mktemp("stream"), messages(shuffled), steps)
    assert not topic.dead and topic.truth() == expected.truth()


@given(st.lists(st.booleans(), max_size=40))
def test_blame_finds_one_that_fails_alone(bad: list[bool]) -> None:
    def work(first: int, end: int) -> None:
        if any(bad[first:end]):
            raise ValueError

    place = failing(work, len(bad))
    assert (place is None) == (not any(bad)) and (place is None or bad[place])


def test_what_fails_only_together_is_nobody_s_fault() -> None:
    def work(first: int, end: int) -> None:
        if end - first > 2:
            raise MemoryError

    assert failing(work, 9) is None


@given(st.lists(st.integers(0, 4), max_size=5), st.integers(0, 12), st.integers(0, 12))
def test_pairs_are_cut_as_if_they_were_one_list(sizes: list[int], first: int, end: int) -> None:
    numbers, found = itertools.count(), []
    for size in sizes:
        left = np.array([next(numbers) for _ in range(size)], np.int32)
        found.append(FoundPairs(SourcePair("film", "a", "b"), Pairs(left, -left)))
    parts = [*cut(found, first, end)]
    assert [n for part in parts for n in part.pairs.left.tolist()] == [*range(sum(sizes))][first:end]
    assert all((part.pairs.right == -part.pairs.left).all() and len(part.pairs.left) for part in parts)
