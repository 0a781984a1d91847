"""What a fetch brings goes into the worker's queue in order, as far as there is room, or it comes again."""

import asyncio
from collections.abc import Coroutine, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.transport.drivers.aiokafka import Consumer
from faust.types import TP
from mode.utils.queues import FlowControlEvent, ThrowableQueue

from stream.worker import transport

ROOM = 3
REACHED = transport.Reached({TP("topic", 0): 7})


class Reading:
    """The loop over these fetches, with Faust's own queue and flow control."""

    def __init__(self, *fetches: list[int]) -> None:
        self.fetches = list(fetches)
        self.flow = FlowControlEvent(initially_suspended=False)
        self.records: Any = ThrowableQueue(ROOM, flow_control=self.flow, clear_on_resume=True)
        self.consumer = SimpleNamespace(  # all that the loop uses of one
            should_stop=False,
            consumer_stopped_errors=(),
            transport=SimpleNamespace(records=self.records, app=SimpleNamespace(should_stop=True)),
            app=SimpleNamespace(flow_control=self.flow),
            _wait_next_records=self._next,
            _seeks=0,
            _interrupted=False,
            _positioned=False,
            _thread=SimpleNamespace(reached={}),
        )
        self._fetcher = SimpleNamespace(should_stop=False)
        drain: Coroutine[Any, Any, None] = transport._PositionedConsumer._drain_messages(
            self.consumer,  # type: ignore[arg-type]
            self._fetcher,
        )
        self.loop = asyncio.ensure_future(drain)

    async def _next(self, timeout: float) -> tuple[dict[str, list[int]], None]:
        await asyncio.sleep(0)
        if not self.fetches:
            self._fetcher.should_stop = True
            return {}, None
        return {"a partition": self.fetches.pop(0)}, None

    def taken(self) -> list[int]:
        return [self.records.get_nowait() for _ in range(self.records.qsize())]


async def turns() -> None:
    """Of the event loop, far more than anything here takes."""
    for _ in range(100):
        await asyncio.sleep(0)


def test_nothing_is_fetched_while_the_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FULL_SECONDS", 0)

    async def run() -> None:
        reading = Reading([1, 2], [3, 4], [5])
        await turns()
        assert reading.fetches == [[5]]
        assert reading.taken() == [1, 2, 3, 4]
        await reading.loop
        assert reading.taken() == [5]

    asyncio.run(run())


@pytest.mark.parametrize("seeks", [0, 1])
def test_what_waits_for_a_rebalance_is_delivered_unless_it_comes_again(seeks: int) -> None:
    async def run() -> None:
        reading = Reading([1, 2])
        reading.flow.suspend()
        await turns()
        assert reading.records.empty()
        reading.consumer._seeks += seeks
        reading.flow.resume()
        await reading.loop
        assert reading.taken() == ([] if seeks else [1, 2])

    asyncio.run(run())


@pytest.mark.parametrize("seeks", [0, 1])
def test_where_a_fetch_ended_follows_its_messages_unless_they_come_again(seeks: int) -> None:
    async def run() -> None:
        reading = Reading([1])
        reading.consumer._positioned = True
        reading.consumer._thread.reached = REACHED.offsets
        reading.flow.suspend()
        await turns()
        assert reading.records.empty()
        reading.consumer._seeks += seeks
        reading.flow.resume()
        await reading.loop
        assert reading.taken() == ([REACHED] if seeks else [1, REACHED])  # once

    asyncio.run(run())


def test_where_a_fetch_ended_does_not_count_before_the_worker_has_said_where_to_begin() -> None:
    async def run() -> None:
        reading = Reading([1])
        reading.consumer._thread.reached = REACHED.offsets
        await reading.loop
        assert reading.taken() == [1]

    asyncio.run(run())


def test_a_seek_forgets_where_the_last_fetch_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def done(*_: object) -> None:
        pass

    async def start(assigned: set[TP]) -> Mapping[TP, int]:
        return {TP("topic", 0): 3}

    monkeypatch.setattr(Consumer, "perform_seek", done)
    consumer: Any = object.__new__(transport._PositionedConsumer)
    consumer._assigned = lambda: {TP("topic", 0)}
    consumer.transport = SimpleNamespace(positions=start)
    consumer.seek_wait, consumer._committed_offset = done, {}
    consumer._thread = SimpleNamespace(reached=REACHED.offsets)
    asyncio.run(consumer.perform_seek())
    assert consumer._thread.reached == {} and consumer._seeks == 1


def test_what_was_fetched_when_the_loop_ended_is_read_again() -> None:
    async def run() -> None:
        reading = Reading([1, 2])
        reading.flow.suspend()
        await turns()
        reading.loop.cancel()
        await asyncio.wait([reading.loop])
        assert reading.consumer._interrupted

    asyncio.run(run())
