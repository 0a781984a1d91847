"""The aligner in its one thread, and its outputs in the broker: what a worker does with a micro-batch.

While the broker takes in the outputs of one batch the next one is processed; no more than these two are under
way, and their outputs go out, and are confirmed, in order.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from stream.config import TopicSettings
from stream.engine.interface import Batch, Counts, MessageProcessor, Output
from stream.events import Message
from stream.worker.alignment_topic import Published
from stream.worker.metrics import Metrics
from stream.worker.publisher import Placed

Send = Callable[[Sequence[Output]], Awaitable[list[Placed]]]  # until the broker has them


class Work:
    """Steps 1 to 11: apply, publish, forget the outbox."""

    def __init__(
        self, aligner: MessageProcessor, thread: Executor, topics: TopicSettings, metrics: Metrics
    ) -> None:
        """
        Args:
            thread: the one in which the aligner was opened.
        """
        self._aligner = aligner
        self._thread = thread
        self._alignments = topics.alignments
        self._metrics = metrics
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._confirmed.set_result(None)  # of the last batch
        self._pending_published = False
        self._ends: dict[int, int] | None = None  # of the alignment topic, if nobody else writes to it
        self.is_disputed = False  # somebody else has written to it
        self.lock = asyncio.Lock()  # of the aligner
        self.totals = Counts()
        self.aligned = 0  # alignment records written
        self.withdrawn = 0
        self.backlog = 0  # entities
        self.has_backlog = asyncio.Event()
        self.searched = 0  # of the largest type

    async def step(self, messages: Sequence[Message], send: Send, *, bulk: bool) -> asyncio.Future[None]:
        """Applies the messages in this order; without any, works on the backlog.

        Returns:
            What is done when every output is acknowledged by the broker, so that the input may be.
        """
        async with self.lock:
            started = time.monotonic()
            batch = await self._call(functools.partial(self._aligner.process, messages, bulk=bulk))
            self._metrics.timed("process", started)
            await self._publish(batch, send, messages)
            return asyncio.shield(self._confirmed)

    async def settle(self) -> None:
        """Until the broker has all outputs. To be called with the lock."""
        await asyncio.shield(self._confirmed)  # who waits may be cancelled, what is waited for not

    async def publish_pending(self, send: Send) -> None:
        """What a crash left unpublished; an empty batch tells how much waits. Only the first call counts."""
        async with self.lock:
            if self._pending_published:
                return
            await self._publish_outbox(send)
            await self._publish(await self._call(self._aligner.process, []), send)
            await self.settle()
            self._pending_published = True

    async def between(self, function: Callable[[Any], Any]) -> Any:
        """What it makes of the aligner, called in its thread between two batches."""
        async with self.lock:
            await self.settle()
            return await self._call(function, self._aligner)

    async def replace(
        self, take_over: Callable[[Any], MessageProcessor], thread: Executor, send: Send
    ) -> None:
        """Goes on with another aligner, which lives in another thread, and closes this one.

        Args:
            take_over: called in `thread` with the present aligner, which nobody uses meanwhile; gives the
                other one, which has applied the same messages and has in its outbox what is to be said.
        """
        async with self.lock:
            await self.settle()
            former, former_thread = self._aligner, self._thread
            loop = asyncio.get_running_loop()
            self._aligner = await loop.run_in_executor(thread, take_over, former)
            self._thread = thread
            await self._publish_outbox(send)
            await self._publish(await self._call(self._aligner.process, []), send)
            await self.settle()
        await loop.run_in_executor(former_thread, former.close)
        former_thread.shutdown(wait=False)

    async def _publish_outbox(self, send: Send) -> None:
        batches = iter(await self._call(self._aligner.pending))
        while (batch := await self._call(next, batches, None)) is not None:
            await self._publish(batch, send)

    async def reconcile(self, published: Published, send: Send) -> tuple[int, int]:
        """Makes the alignment topic what the state says; how many records it wrote and withdrew for that.

        Args:
            published: the topic, read some time ago; only what came since is read while the work waits.
        """
        async with self.lock:
            await self.settle()
            await asyncio.to_thread(published.read)
            self._ends = dict(published.ends)
            outputs = await self._call(lambda: published.differences(self._aligner.records()))
            placed = await send(outputs)
            self.is_disputed = False
            self._placed(placed)
        withdrawn = sum(output.value is None for output in outputs)
        return len(outputs) - withdrawn, withdrawn

    async def own(self, read_ends: Callable[[], Awaitable[Mapping[int, int]]]) -> None:
        """Nobody else may write to the alignment topic from now on.

        It is disputed when somebody has done so since this state was published last.

        Args:
            read_ends: tells where its partitions end; nothing is published meanwhile.
        """
        async with self.lock:
            await self.settle()
            before = self._ends
            if before is None:
                before = await self._call(self._aligner.published_ends)
            self._ends = dict(await read_ends())
            self._dispute(before, self._ends)

    async def watch(self, read_ends: Callable[[], Awaitable[Mapping[int, int]]]) -> None:
        """Notices who else writes to the alignment topic while nothing is published here.

        Args:
            read_ends: tells where its partitions end.
        """
        before = self._quiet_ends()
        if before is None:
            return
        ends = await read_ends()
        if before == self._quiet_ends():
            self._dispute(before, ends)

    def _dispute(self, before: Mapping[int, int], ends: Mapping[int, int]) -> None:
        """Somebody else has written where a partition does not end as it did."""
        self.is_disputed |= any(before.get(number, 0) != end for number, end in ends.items())

    def _quiet_ends(self) -> dict[int, int] | None:
        """Where the alignment topic should end; None while something is on its way there."""
        is_quiet = self._confirmed.done() and not self.lock.locked()
        return dict(self._ends) if is_quiet and self._ends is not None else None

    async def measure_recall(self) -> bool:
        """Tells the metrics what search misses; whether there was anything to find."""
        found: Mapping[str, float] = await self.between(lambda aligner: aligner.recall())
        for view, share in found.items():
            self._metrics.recall.labels(view).set(share)
        return bool(found)

    async def next_offset(self, topic: str, partition: int) -> int | None:
        """Where the local state stands, after everything that is being processed."""
        offset: int | None = await self._call(self._aligner.next_offset, topic, partition)
        return offset

    async def close(self) -> None:
        """Closes the aligner, after what it is doing."""
        await self._call(self._aligner.close)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _publish(self, batch: Batch, send: Send, messages: Sequence[Message] = ()) -> None:
        """Has the outputs sent, after those of the batch before it are confirmed."""
        await self.settle()
        self._confirmed = asyncio.ensure_future(self._confirm(batch, send, messages))

    async def _confirm(self, batch: Batch, send: Send, messages: Sequence[Message]) -> None:
        started = time.monotonic()
        self._placed(await send(batch.outputs))
        # a dispute has to outlive a crash: the ends in the state stay those before it
        ends = None if self.is_disputed or self._ends is None else dict(self._ends)
        await self._call(self._aligner.published, batch.sequence, ends)
        self._metrics.timed("publish", started)
        self._account(batch)
        if messages:
            self._metrics.freshness.set(max(0.0, time.time() - messages[-1].timestamp))

    def _placed(self, batches: Sequence[Placed]) -> None:
        """Where nobody else writes, alignment records follow one another."""
        for batch in batches:
            if batch.topic == self._alignments and self._ends is not None:
                self.is_disputed |= self._ends.get(batch.partition, 0) != batch.first
                self._ends[batch.partition] = batch.first + batch.records

    def _account(self, batch: Batch) -> None:
        self.totals += batch.counts
        for output in batch.outputs:
            if output.kind == "alignments":
                self.withdrawn += output.value is None
                self.aligned += output.value is not None
        self.backlog, self.searched = batch.backlog, batch.searched
        if self.backlog:
            self.has_backlog.set()
        else:
            self.has_backlog.clear()
        self._metrics.count(batch)
