"""The broker counts as gone when it is asked and does not answer, not while other workers are waited for."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest

from stream.worker import contact
from stream.worker.contact import FAILING_SECONDS, Contact

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
        return self.answer if isinstance(self.answer, str) else await self.answer

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
        fetch, join = await broker.hang(), await broker.hang(JOIN)
        fetch.cancel()
        await asyncio.wait([fetch])
        broker.time += 10 * PATIENCE
        assert broker.contact.lost is None
        join.cancel()

    run(look)
