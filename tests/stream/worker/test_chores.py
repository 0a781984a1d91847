"""What a worker says of its progress and of what it waits for."""

import asyncio
import logging
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream import console
from stream.engine.interface import Counts
from stream.worker import chores
from stream.worker.chores import drain_backlog, look_for_dangling, report_progress, report_waiting
from stream.worker.standing import WAITS_FOR_GROUP

GONE = "the broker at here:9092 does not answer"


class Watch:
    """A loop that is run look by look, its clock, and what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.time = 1000.0
        self._looks: asyncio.Queue[None] = asyncio.Queue()
        clock = SimpleNamespace(monotonic=lambda: self.time)
        monkeypatch.setattr(chores, "time", clock)
        monkeypatch.setattr(console, "time", clock)
        monkeypatch.setattr(chores, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def _sleep(self, seconds: float) -> None:
        self.time += seconds
        await self._looks.get()

    async def look(self, times: int = 1) -> list[str]:
        """What it says in so many looks."""
        self._caplog.clear()
        for _ in range(times):
            self._looks.put_nowait(None)
            while not self._looks.empty():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Watch:
    return Watch(monkeypatch, caplog)


async def beside(loop: Coroutine[Any, Any, None], test: Coroutine[Any, Any, object]) -> None:
    task = asyncio.create_task(loop)
    await asyncio.sleep(0)
    await test
    assert not task.done()
    task.cancel()


def test_pieces_of_the_backlog_that_cost_a_reload_leave_time_to_messages(watch: Watch) -> None:
    reloads, begun, free = [0, 2, 0], list[float](), SimpleNamespace(locked=lambda: False)

    async def step(messages: object, send: object, *, bulk: bool) -> asyncio.Future[None]:
        begun.append(watch.time)
        watch.time += 2.0
        pipeline.reloads += reloads[len(begun) - 1]
        if len(begun) == len(reloads):
            pipeline.backlog = 0
        return asyncio.get_running_loop().create_future()

    pipeline = cast(Any, SimpleNamespace(lock=free, backlog=9, reloads=0, step=step))
    standing = cast(Any, SimpleNamespace(is_active=True, is_quiet=True, has_caught_up=True))

    async def test() -> None:
        pipeline.has_backlog = asyncio.Event()
        loop = drain_backlog(pipeline, standing, cast(Any, None), lambda: False, lambda _: None)
        await beside(loop, watch.look())

    asyncio.run(test())
    assert begun == [1000.0, 1002.0, 1010.0]  # the second took 2 s


def test_the_last_line_says_what_everything_came_to(watch: Watch) -> None:
    pipeline = cast(Any, SimpleNamespace(totals=Counts(), backlog=0, aligned=0, withdrawn=0))
    lag = [0]

    async def test() -> None:
        assert await watch.look(3) == []
        pipeline.totals, pipeline.backlog, pipeline.aligned, lag[0] = Counts(4000, 4000), 700, 783, 544
        assert await watch.look() == [
            "800 events/s, lag 544, backlog 700; so far 4,000 events, 783 alignments written, 0 withdrawn, "
            "0 dead-lettered"
        ]
        pipeline.totals, lag[0] = Counts(4544, 4544), 0
        await watch.look()
        pipeline.backlog, pipeline.aligned = 0, 2210
        assert await watch.look(9) == [
            "0 events/s, lag 0, backlog 0; so far 4,544 events, 2,210 alignments written, 0 withdrawn, "
            "0 dead-lettered"
        ]

    asyncio.run(beside(report_progress(pipeline, lambda: lag[0]), test()))


def test_a_broker_that_goes_and_comes_back_is_said_once_and_now_and_then(watch: Watch) -> None:
    contact = cast(Any, SimpleNamespace(lost=None))
    standing = cast(Any, SimpleNamespace(waits_for_group=False))

    async def test() -> None:
        assert await watch.look(10) == []
        contact.lost = 1.2
        assert await watch.look(3) == [GONE]
        standing.waits_for_group = True  # it waits for the broker, for that matter
        contact.lost = 3603.4
        said = await watch.look(3600)
        assert said[0] == f"{GONE} (6 s)" and len(said) < 20
        contact.lost = None
        assert await watch.look() == ["the broker at here:9092 answers again, after 3,603 s"]
        assert await watch.look(3) == [WAITS_FOR_GROUP]
        standing.waits_for_group = False
        assert await watch.look(100) == []

    asyncio.run(beside(report_waiting(standing, contact, "here:9092"), test()))


def test_the_graph_is_looked_through_after_every_change_and_beside_the_work(watch: Watch) -> None:
    pieces = 0

    async def look() -> bool:
        nonlocal pieces
        pieces += 1
        return pieces % 3 == 0

    lock = asyncio.Lock()
    pipeline = cast(Any, SimpleNamespace(totals=Counts(), lock=lock, look_for_dangling=look))
    standing = cast(Any, SimpleNamespace(is_active=True, has_caught_up=False))

    async def test() -> None:
        await watch.look(5)
        assert pieces == 0  # entities that come still are not missing
        standing.has_caught_up = True
        await watch.look(5)
        assert pieces == 3
        pipeline.totals = Counts(1, 1)
        await watch.look()
        pipeline.totals = Counts(2, 2)  # while it looks: it has to look again
        async with lock:
            await watch.look(5)
        assert pieces == 4
        await watch.look(9)
        assert pieces == 9

    asyncio.run(beside(look_for_dangling(pipeline, standing), test()))
