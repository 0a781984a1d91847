"""Nothing is published but by the worker that the group knows as the owner of the partitions."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stream.worker import ownership
from stream.worker.ownership import NotOwner, Ownership, Tenure

FIRST, SECOND = Tenure(1, "a"), Tenure(2, "b")
SESSION_SECONDS = 10.0


class Group:
    """A group's coordinator, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.present: Tenure | None = FIRST
        self.asked = 0
        self.time = 1000.0
        self.each: Callable[[], None] = lambda: None  # called while the group is asked
        monkeypatch.setattr(ownership, "_now", lambda: self.time)
        monkeypatch.setattr(ownership, "RETRY_SECONDS", 0)

    async def ask(self, tenure: Tenure) -> bool:
        self.asked += 1
        answer = tenure == self.present
        self.each()
        return answer


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    return Group(monkeypatch)


def run(group: Group, what: Callable[[Ownership], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        owner = Ownership(group.ask, SESSION_SECONDS)
        owner.tenure = FIRST
        await what(owner)

    asyncio.run(go())


async def is_waiting(task: "asyncio.Task[None]") -> bool:
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


def test_an_answer_counts_for_a_part_of_the_session(group: Group) -> None:
    async def look(owner: Ownership) -> None:
        await owner.confirm()
        group.time += SESSION_SECONDS * ownership.ANSWER_SHARE / 2
        await owner.confirm(FIRST)
        assert group.asked == 1
        group.time += SESSION_SECONDS * ownership.ANSWER_SHARE
        await owner.confirm()
        assert group.asked == 2

    run(group, look)


def test_a_process_that_stood_still_while_it_asked_asks_again(group: Group) -> None:
    async def look(owner: Ownership) -> None:
        def pause() -> None:
            if group.asked == 1:
                group.time += 2 * SESSION_SECONDS
                group.present = SECOND

        group.each = pause
        task = asyncio.ensure_future(owner.confirm())
        assert await is_waiting(task)
        owner.tenure = SECOND
        await task

    run(group, look)


def test_nothing_goes_out_until_the_partitions_are_assigned_again(group: Group) -> None:
    async def look(owner: Ownership) -> None:
        await owner.confirm()
        group.present, group.time = None, group.time + SESSION_SECONDS
        task = asyncio.ensure_future(owner.confirm())
        assert await is_waiting(task)
        owner.tenure = None  # the revocation comes later
        assert await is_waiting(task)
        owner.tenure = group.present = SECOND
        await task

    run(group, look)


def test_what_was_decided_in_one_tenure_does_not_go_out_in_the_next(group: Group) -> None:
    async def look(owner: Ownership) -> None:
        await owner.confirm(FIRST)
        owner.tenure = group.present = SECOND
        with pytest.raises(NotOwner):
            await owner.confirm(FIRST)
        await owner.confirm(SECOND)

    run(group, look)
