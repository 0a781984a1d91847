"""The broker counts as gone when it is asked and does not answer, not while other workers are waited for."""

import asyncio
import struct
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faust.types import TP

from stream.worker import contact
from stream.worker.contact import FAILING_SECONDS, Contact, Logs

PATIENCE = 10.0
HEARTBEAT = HeartbeatRequest("group", 1, "member")
JOIN = JoinGroupRequest("group", 1, 1, "member", "", "consumer", [])


class Broker:
    """What a client of aiokafka's has of one, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 100.0
        self.answer: asyncio.Future[str] | str | Exception = "an answer"
        self.contact = Contact(PATIENCE)
        self.client: Any = SimpleNamespace(send=self._send)
        self.contact.listen(self.client)
        monkeypatch.setattr(contact, "time", SimpleNamespace(monotonic=lambda: self.time))

    async def _send(self, node_id: int, request: object, *, group: int = 0) -> str:
        if isinstance(self.answer, Exception):
            raise self.answer
        return await self.answer if isinstance(self.answer, asyncio.Future) else self.answer

    async def ask(self, request: object = HEARTBEAT) -> str:
        answer: str = await self.client.send(1, request, group=1)
        return answer

    async def hang(self, request: object = HEARTBEAT) -> "asyncio.Task[str]":
        """A question that is under way."""
        self.answer = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.ask(request))
        await asyncio.sleep(0)
        return task


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(monkeypatch)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_a_broker_that_answers_or_is_not_asked_is_there(broker: Broker) -> None:
    async def look() -> None:
        assert broker.contact.lost is None
        assert await broker.ask() == "an answer"
        broker.time += 100 * PATIENCE
        assert broker.contact.lost is None

    run(look)


def test_one_that_refuses_is_gone_when_nothing_else_comes_of_it_for_a_while(broker: Broker) -> None:
    async def look() -> None:
        broker.answer = NodeNotReadyError("refused")
        for seconds in (0.0, FAILING_SECONDS / 2, FAILING_SECONDS):
            broker.time = 100.0 + seconds
            with pytest.raises(NodeNotReadyError):
                await broker.ask()
            assert broker.contact.lost is None
        broker.time += PATIENCE
        assert broker.contact.lost == PATIENCE + FAILING_SECONDS
        broker.answer = "an answer"
        await broker.ask()
        assert broker.contact.lost is None

    run(look)


def test_of_several_one_that_answers_is_enough(broker: Broker) -> None:
    async def look() -> None:
        for second in range(20):
            broker.time = 100.0 + second
            broker.answer = NodeNotReadyError("refused")
            with pytest.raises(NodeNotReadyError):
                await broker.ask()
            assert broker.contact.lost is None
            broker.answer = "an answer"
            await broker.ask()

    run(look)


def test_one_that_hangs_is_gone_after_the_session(broker: Broker) -> None:
    async def look() -> None:
        task = await broker.hang()
        broker.time += PATIENCE
        assert broker.contact.lost is None
        broker.time += 1
        assert broker.contact.lost == PATIENCE + 1
        task.cancel()

    run(look)


def test_a_group_that_waits_for_other_workers_is_no_broker_that_hangs(broker: Broker) -> None:
    """And what was asked before, and is not awaited any more, is no question."""

    async def look() -> None:
        fetch = await broker.hang()
        fetch.cancel()
        await asyncio.wait([fetch])
        join = await broker.hang(JOIN)
        broker.time += 10 * PATIENCE
        assert broker.contact.lost is None
        join.cancel()

    run(look)


ONE = TP("topic", 0)


def batches(*epochs: int) -> bytes:
    """As a broker stores them: one of three records for each epoch."""
    written = bytearray()
    for number, epoch in enumerate(epochs):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
        for offset in range(3):
            builder.append(offset, timestamp=1000, key=b"key", value=b"value" * number, headers=[])
        batch = builder.build()
        struct.pack_into(">i", batch, 12, epoch)
        written += batch
    return bytes(written)


def answer(data: bytes | None, error: int = 0) -> list[tuple[str, list[tuple[object, ...]]]]:
    """To a fetch of `ONE`: error, end, stable end, start, aborted transactions, replica, batches."""
    return [(ONE.topic, [(ONE.partition, error, 9, 9, 0, [], -1, data)])]


def test_logs_are_doubtful_when_another_leader_has_written() -> None:
    logs = Logs()
    logs.compare({ONE: 3})
    for data in (b"", batches(1, 3), batches(3)[:20], batches(3, 3) + batches(4)[:15]):
        logs.fetched(answer(data))
        assert not logs.are_doubtful
    logs.fetched(answer(batches(3, 3, 4)))
    assert logs.are_doubtful
    logs.compare({ONE: 3})  # its metadata may be old
    logs.fetched(answer(batches(3, 4)))
    assert not logs.are_doubtful


def test_where_no_epoch_is_known_the_first_one_is_no_news() -> None:
    logs = Logs()
    logs.compare({})
    logs.fetched(answer(batches(2)))
    assert not logs.are_doubtful
    logs.fetched(answer(batches(5)))
    assert logs.are_doubtful


def test_logs_are_doubtful_when_the_broker_was_away_or_another_one_leads(broker: Broker) -> None:
    """At the first fetch that it answers, which may bring nothing."""
    logs, fetch = broker.contact.logs, FetchRequest(10, 1, 1, 0, [])

    async def look() -> None:
        for _ in range(2):
            logs.compare({})
            broker.answer = NodeNotReadyError("refused")
            with pytest.raises(NodeNotReadyError):
                await broker.ask(fetch)
            assert not logs.are_doubtful
            broker.answer = cast(str, SimpleNamespace(topics=answer(b"")))
            await broker.ask(fetch)
            assert logs.are_doubtful
        logs.compare({})
        logs.fetched(answer(None, error=6))
        assert not logs.are_doubtful
        logs.fetched(answer(b""))
        assert logs.are_doubtful

    run(look)
