"""A Faust transport that reads from where the local state stands, not from where the group committed.

The graph is on this machine's disk, so this machine's disk knows which messages are in it; the group's
offsets may be ahead of it (an emptied state directory, a standby with older state) or behind (a crash before
the commit). Reading from the state's own offsets loses nothing in either case, and makes Faust's habit of
committing past a gap harmless. The group's offsets are still committed: they show the lag to Kafka's tools.

What must never happen is that a message is delivered before one that precedes it: the state would drop the
earlier one as applied. So nothing is fetched between an assignment and its seek, and what a fetch brings that
was under way during a seek is thrown away and read again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import IllegalStateError
from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from stream.console import tell
from stream.errors import StateError

Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]

IDLE_SECONDS = 0.05
FETCH_WAIT_MS = 20  # how long the broker may wait for more before it answers


class _PromptThread(AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust fixes 1.5 s, by which a broker that answers a fetch only at its end delays every message."""
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _PositionedConsumer(Consumer):  # type: ignore[misc]
    _positioned = False  # since the last assignment
    _seeks = 0

    def _new_consumer_thread(self) -> Any:
        return _PromptThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._positioned = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Faust calls this after every assignment, and when a fetch met a rebalance."""
        await super().perform_seek()
        assigned = self._assigned()
        positions = await self.transport.positions(assigned)
        try:
            await self.seek_wait(positions)
        except (AssertionError, IllegalStateError) as error:
            raise RebalanceAgain from error  # a partition went away meanwhile; its seek will follow
        for tp, offset in positions.items():
            self._committed_offset[tp] = offset or None  # commit from here on, also when that is backwards
        if assigned != self._assigned():
            raise RebalanceAgain
        self._seeks += 1
        self._positioned = True

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if not self._positioned:
            await asyncio.sleep(IDLE_SECONDS)
            return {}
        seeks = self._seeks
        records = await super()._getmany(active_partitions, timeout)
        if self._positioned and seeks == self._seeks:
            return records
        if self._positioned:
            self._positioned = False
            await self.perform_seek()
        return {}

    def _assigned(self) -> set[TP]:
        return {TP(tp.topic, tp.partition) for tp in self.assignment()}


class PositionedTransport(Transport):  # type: ignore[misc]
    """Asks `positions` for the next offset to read of every assigned partition."""

    Consumer = _PositionedConsumer

    def __init__(self, app: faust.App, positions: Positions) -> None:
        super().__init__(app.conf.broker_consumer, app, loop=app.loop)
        self.positions: Any = positions


def check_position(tp: TP, state: Path, applied: int | None, first: int, end: int) -> None:
    """The offset after the last applied message has to be one that the topic has, or had.

    Raises:
        StateError: the topic has never had so many messages.
    """
    place = f"{tp.topic}, partition {tp.partition}"
    if applied is not None and applied > end:
        raise StateError(
            f"state directory {state} has applied {applied} messages of {place}, "
            f"but the broker has only {end}: it is another broker or another topic; take another "
            "state.dir, or delete this one to rebuild it"
        )
    if applied is not None and applied < first:
        tell(
            f"warning: messages {applied} to {first - 1} of {place} were removed by the broker before "
            "they were read; delete the state directory to rebuild"
        )
