"""Another writer to the alignment topic is not forgotten before its records are made good."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stream.config import Settings, StateSettings
from stream.engine.interface import Batch, Counts, Dangling, Output
from stream.errors import BrokerError
from stream.events import Cause, Message
from stream.worker.alignment_topic import Published
from stream.worker.metrics import Metrics
from stream.worker.pipeline import Pipeline
from stream.worker.publisher import Placed
from tests.stream.fake_worker import FakeAligner


class Topic:
    """The one partition of the alignment topic."""

    def __init__(self) -> None:
        self.end = 0

    async def send(self, outputs: Sequence[Output]) -> list[Placed]:
        placed = []
        for output in outputs:
            if output.kind == "alignments":
                placed.append(Placed(Settings().topics.alignments, 0, self.end, 1))
                self.end += 1
        return placed


def session(directory: Path, topic: Topic, what: Callable[[Pipeline], Coroutine[Any, Any, None]]) -> None:
    """As a worker that is killed at the end."""

    async def ends() -> dict[int, int]:
        return {0: topic.end}

    async def run() -> None:
        with ThreadPoolExecutor(1) as thread:
            settings = Settings(state=StateSettings(dir=directory))
            pipeline = Pipeline(FakeAligner(settings), thread, settings.topics, Metrics())
            await pipeline.publish_pending(topic.send)
            await pipeline.own(ends)
            await what(pipeline)

    asyncio.run(run())
    (directory / "fake.lock").unlink()


def upsert(number: int) -> Message:
    event = {"op": "upsert", "source": "left", "id": f"f{number}", "type": "film", "attributes": {}}
    return Message(Cause("t", 0, number), None, msgspec.json.encode(event), 0.0)


def test_a_dispute_outlives_a_crash(tmp_path: Path) -> None:
    topic = Topic()

    async def publish(pipeline: Pipeline) -> None:
        assert not pipeline.claim.is_disputed
        await (await pipeline.step([upsert(1)], topic.send, bulk=False))

    async def publish_disputed(pipeline: Pipeline) -> None:
        assert pipeline.claim.is_disputed
        await (await pipeline.step([upsert(2)], topic.send, bulk=False))

    async def look(pipeline: Pipeline) -> None:
        assert pipeline.claim.is_disputed

    session(tmp_path, topic, publish)
    topic.end += 1  # another process
    session(tmp_path, topic, publish_disputed)
    session(tmp_path, topic, look)


def test_another_process_is_noticed_while_nothing_is_published(tmp_path: Path) -> None:
    topic = Topic()

    async def look(pipeline: Pipeline) -> None:
        async def ends() -> dict[int, int]:
            return {0: topic.end}

        async def ends_while_publishing() -> dict[int, int]:
            await (await pipeline.step([upsert(2)], topic.send, bulk=False))
            return await ends()

        await (await pipeline.step([upsert(1)], topic.send, bulk=False))
        await pipeline.watch(ends)
        assert topic.end and not pipeline.claim.is_disputed
        await pipeline.watch(ends_while_publishing)
        assert not pipeline.claim.is_disputed
        topic.end += 1  # another process
        await pipeline.watch(ends)
        assert pipeline.claim.is_disputed

    session(tmp_path, topic, look)


def test_a_dispute_lasts_until_the_differences_are_published(tmp_path: Path) -> None:
    topic = Topic()

    class Read:
        def __init__(self, end: int) -> None:
            self.ends = {0: end}
            self.strays: list[object] = []

        def read(self) -> None:
            pass

        def differences(self, records: object) -> list[Output]:
            return [Output("alignments", b"a|b", None)]

    async def refuse(outputs: Sequence[Output]) -> list[Placed]:
        raise BrokerError("refused")

    async def reconcile(pipeline: Pipeline) -> None:
        topic.end += 1  # another process
        await (await pipeline.step([upsert(1)], topic.send, bulk=False))
        assert pipeline.claim.is_disputed
        read = cast(Published, Read(topic.end))
        with pytest.raises(BrokerError):
            await pipeline.reconcile(read, refuse)
        assert pipeline.claim.is_disputed
        await pipeline.reconcile(read, topic.send)
        assert not pipeline.claim.is_disputed

    session(tmp_path, topic, reconcile)


def test_the_first_deletion_of_what_never_came_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = FakeAligner.process
    names = ["", "left:f1\x1b", "left:f2"]

    def miss(self: FakeAligner, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        counts = Counts()
        for message in messages:
            name = names[message.cause.offset]
            counts += Counts(1, stale=1, absent=bool(name), first_absent=name)
        return msgspec.structs.replace(process(self, messages, bulk=bulk), topics={"t": counts})

    monkeypatch.setattr(FakeAligner, "process", miss)

    async def publish(pipeline: Pipeline) -> None:
        for number in range(3):
            await (await pipeline.step([upsert(number)], Topic().send, bulk=False))
        assert (pipeline.totals.stale, pipeline.totals.absent) == (3, 2)

    session(tmp_path, Topic(), publish)
    (told,) = caplog.messages
    assert told.startswith("a deletion of what never came: left:f1\ufffd; ")


@pytest.mark.parametrize(
    ("first", "begin"),
    [
        (Counts(unread=1, first_unread="at: ?\x1b"), "a filled cell is not read: at: ?\ufffd; "),
        (
            Counts(replaced=1, first_replaced="?\x1b"),
            "the row of one table takes the place of another's: ?\ufffd; ",
        ),
    ],
)
def test_the_first_of_what_is_counted_is_told(
    first: Counts,
    begin: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process = FakeAligner.process

    def overlook(self: FakeAligner, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        found = Counts(len(messages), len(messages)) + (first if messages else Counts())
        return msgspec.structs.replace(process(self, messages, bulk=bulk), topics={"t": found})

    monkeypatch.setattr(FakeAligner, "process", overlook)

    async def publish(pipeline: Pipeline) -> None:
        for number in range(2):
            await (await pipeline.step([upsert(number)], Topic().send, bulk=False))
        assert pipeline.totals.unread + pipeline.totals.replaced == 2

    session(tmp_path, Topic(), publish)
    (told,) = caplog.messages
    assert told.startswith(begin)


def test_what_leads_nowhere_is_told_when_it_is_found_and_when_it_has_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    by, other = ("s", "by"), ("s", "in")
    found = [({}, 0), ({by: 1, other: 2}, 1), ({by: 7}, 0), ({by: 8}, 0)]
    looks = [look for targets, verdicts in found for look in (None, Dangling(targets, verdicts))]
    remaining = iter(looks)
    monkeypatch.setattr(FakeAligner, "dangling", lambda self: next(remaining))

    async def look(pipeline: Pipeline) -> None:
        assert [await pipeline.look_for_dangling() for _ in looks] == [look is not None for look in looks]

    session(tmp_path, Topic(), look)
    assert caplog.messages == [
        f"{targets}; {verdicts} verdicts name entities that do not exist"
        for targets, verdicts in (
            ("3 targets of relations do not exist (in of s: 2, by of s: 1)", 1),
            ("8 targets of relations do not exist (by of s: 8)", 0),
        )
    ]


def test_types_that_no_other_source_has_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one, both = {("a", "film"): 2, ("a", "maker"): 1}, {("b", "film"): 2}
    lone = {**one, **both, ("b", "mak\x1bers"): 4}
    looks = [one, {**one, **both}, lone, lone, {**lone, ("b", "maker"): 1, ("a", "mak\x1bers"): 1}]
    remaining = iter(Dangling({}, 0, entities) for entities in looks)
    monkeypatch.setattr(FakeAligner, "dangling", lambda self: next(remaining))

    async def look(pipeline: Pipeline) -> None:
        for _ in looks:
            assert await pipeline.look_for_dangling()

    session(tmp_path, Topic(), look)
    assert caplog.messages == [
        f"types which no other source has ({types}); only entities of one type are aligned"
        for types in ("maker of a: 1", "maker of a: 1, mak\ufffders of b: 4")
    ]
