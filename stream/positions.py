"""A Faust transport that reads from where the local state stands, not from where the group committed.

The graph is on this machine's disk, so this machine's disk knows which messages are in it; the group's
offsets may be ahead of it (an emptied state directory, a standby with older state) or behind (a crash before
the commit). Reading from the state's own offsets loses nothing in either case, and makes Faust's habit of
committing past a gap harmless. The group's offsets are still committed: they show the lag to Kafka's tools.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP

Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]


class _PositionedConsumer(Consumer):  # type: ignore[misc]
    async def perform_seek(self) -> None:
        """Faust calls this after every assignment, before it fetches."""
        await super().perform_seek()
        assigned = {TP(tp.topic, tp.partition) for tp in self.assignment()}
        positions = await self.transport.positions(assigned)
        await self.seek_wait(positions)
        for tp, offset in positions.items():
            self._committed_offset[tp] = offset or None  # commit from here on, also when that is backwards


class PositionedTransport(Transport):  # type: ignore[misc]
    """Asks `positions` for the next offset to read of every assigned partition."""

    Consumer = _PositionedConsumer

    def __init__(self, app: faust.App, positions: Positions) -> None:
        super().__init__(app.conf.broker_consumer, app, loop=app.loop)
        self.positions: Any = positions
