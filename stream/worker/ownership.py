"""Which worker of a group may publish: the one that owns the partitions now.

A process can stand still at any point (a suspended machine, a stopped container) and go on without noticing.
Meanwhile the group has given its partitions to another worker, and what it says is out of date. Kafka fences
the commits of such a process, not its records. So the group is asked right before records go out, with the
generation in which the partitions were assigned: it knows that generation only while it is the present one.

An answer counts for a part of the session timeout, during which the group gives the partitions to no other
worker, on a clock that goes on while the machine is suspended. A process that stands still between the
answer and its records is not held up; the worker that owns the partitions notices those records and
makes them good (`stream/worker/alignment_topic.py`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from stream.console import tell
from stream.errors import BrokerError

ANSWER_SHARE = 1 / 20  # of the session timeout, for which an answer counts
RETRY_SECONDS = 0.1  # between two questions while this worker does not own the partitions


class Tenure(NamedTuple):
    """An assignment of the partitions to this worker."""

    generation: int  # of the group
    member: str  # as the group's coordinator calls this worker


class NotOwner(BrokerError):
    """The tenure has ended: another worker may own the partitions."""


class Ownership:
    """This worker's tenure, if it has one.

    Args:
        ask: whether the group's coordinator knows this tenure as the present one.
        session_timeout: of the group, in seconds.
    """

    def __init__(self, ask: Callable[[Tenure], Awaitable[bool]], session_timeout: float) -> None:
        self._ask = ask
        self._valid_seconds = session_timeout * ANSWER_SHARE
        self._answered: tuple[Tenure, float] | None = None  # for which tenure, and when it was asked
        self._is_waiting = False
        self.tenure: Tenure | None = None  # from the assignment of partitions until they are revoked

    async def confirm(self, tenure: Tenure | None = None) -> None:
        """Returns when this worker owns the partitions.

        Args:
            tenure: the one in which it must be, if any will not do.

        Raises:
            NotOwner: that tenure has ended.
        """
        while True:
            if tenure is not None and tenure != self.tenure:
                raise NotOwner("the group has given the partitions anew")
            if self._is_answered():
                self._is_waiting = False
                return
            asked, current = _now(), self.tenure
            if current is not None and await self._ask(current):
                self._answered = current, asked  # it may have stood still since, so look again
                continue
            if current is not None and not self._is_waiting:
                self._is_waiting = True
                tell("publishing waits until the group has decided which worker has the partitions")
            await asyncio.sleep(RETRY_SECONDS)

    def _is_answered(self) -> bool:
        if self._answered is None:
            return False
        tenure, asked = self._answered
        return tenure == self.tenure and _now() - asked < self._valid_seconds


def _now() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)
