"""The aligner in its one thread, and its outputs in the broker: what a worker does with a micro-batch.

While the broker takes in the outputs of one batch the next one is processed. No more than these two are under
way. Their outputs are sent, and confirmed, in order.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

from index.errors import StateError
from stream.broker.topics import AFTER_GROWTH
from stream.config import TopicSettings
from stream.console import log, shown, tell
from stream.engine.interface import ODDITIES, Batch, Counts, Dangling, MessageProcessor, Output, TypeName
from stream.engine.origin import Origin
from stream.events import Message
from stream.worker.alignment_topic import Claim, Published
from stream.worker.metrics import Metrics
from stream.worker.publisher import Placed

LOST_REMEDY = "delete the state directory to rebuild it from what the topics hold, or feed it again"
SHOWN_RELATIONS = 5
NOWHERE = -1  # where no partition ends: the topic is compared after a crash, too

Send = Callable[[Sequence[Output]], Awaitable[list[Placed]]]  # until the broker has them
_T = TypeVar("_T")


class Repairs(NamedTuple):
    """What made the alignment topic what the state says, in records."""

    written: int
    withdrawn: int
    strays: int  # withdrawn in partitions where their keys do not belong


class Pipeline:
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
        self._metrics = metrics
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._confirmed.set_result(None)  # of the last batch
        self._pending_published = False
        self.claim = Claim(topics.alignments)
        self.lock = asyncio.Lock()  # of the aligner
        self.totals = Counts()
        self.aligned = 0  # alignment records written
        self.withdrawn = 0
        self.backlog = 0  # entities
        self.has_backlog = asyncio.Event()
        self.is_gathered = False  # messages of a bulk have no outcome yet
        self.searched = 0  # of the largest type
        self.aside = 0  # entities that cannot be evaluated
        self.reloads = 0  # of the state
        self._dangling = 0  # when it was told last
        self._lone_types: list[TypeName] = []  # the same
        self.lost_messages = ""  # what is said of them, in lines

    async def step(self, messages: Sequence[Message], send: Send, *, bulk: bool) -> asyncio.Future[None]:
        """Applies the messages in this order; without any, works on the backlog.

        Returns:
            Done when the broker has acknowledged every output, so that the input may be acknowledged.
        """
        async with self.lock:
            started = time.monotonic()
            batch = await self._call(functools.partial(self._aligner.process, messages, bulk=bulk))
            self._metrics.timed("process", started)
            self.reloads += batch.reloads
            await self._publish(batch, send, messages)
            return asyncio.shield(self._confirmed)

    async def settle(self) -> None:
        """Until the broker has all outputs. To be called with the lock."""
        await asyncio.shield(self._confirmed)  # the wait may be cancelled, the publication not

    async def publish_pending(self, send: Send) -> None:
        """Publishes what a crash left, and finds out how much waits. Only the first call counts."""
        async with self.lock:
            if self._pending_published:
                return
            await self._publish_outbox(send)
            await self._publish(await self._call(self._aligner.process, []), send)
            await self.settle()
            await self.show_lost()
            self._pending_published = True

    async def between(self, function: Callable[[Any], Any]) -> Any:
        """What `function` returns for the aligner; called in its thread, between two batches."""
        async with self.lock:
            await self.settle()
            return await self._call(function, self._aligner)

    async def replace(
        self, take_over: Callable[[Any], MessageProcessor], thread: Executor, send: Send
    ) -> None:
        """Goes on with another aligner, which lives in another thread, and closes this one.

        Args:
            take_over: called in `thread` with the present aligner, which is not used meanwhile; gives the
                other one, which has applied the same messages and has in its outbox what is to be published.
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

    async def reconcile(self, published: Published, send: Send) -> Repairs:
        """Makes the alignment topic what the state says.

        Args:
            published: the topic, read some time ago; only what came since is read while the work waits.
        """
        async with self.lock:
            await self.settle()
            await asyncio.to_thread(published.read)
            self.claim.settle(published.ends)
            strays = published.strays
            placed = await send(
                [Output("alignments", stray.key, None, partition=stray.partition) for stray in strays]
            )
            outputs = await self._call(lambda: published.differences(self._aligner.records()))
            placed += await send(outputs)
            self.claim.is_disputed = False
            self.claim.place(placed)
        self._metrics.strays.inc(len(strays))
        withdrawn = sum(output.value is None for output in outputs)
        return Repairs(len(outputs) - withdrawn, withdrawn, len(strays))

    async def own(self, read_ends: Callable[[], Awaitable[Mapping[int, int]]]) -> None:
        """From now on the alignment topic belongs to this worker.

        It is disputed if another process has written to it since this state was published last.

        Args:
            read_ends: tells where its partitions end; nothing is published meanwhile.

        Raises:
            StateError: it has another number of partitions than this state has published to.
        """
        async with self.lock:
            await self.settle()
            before = self.claim.ends
            if before is None:
                before = await self._call(self._aligner.published_ends)
            ends = await read_ends()
            if before and before.keys() != ends.keys():
                raise StateError(
                    f"this state has published to {len(before)} partition(s) of {self.claim.topic}, which "
                    f"has {len(ends)}: partitions were added, and {AFTER_GROWTH}"
                )
            self.claim.begin(before, ends)

    async def replaced(self, topic_id: str, partitions: int) -> None:
        """The alignment topic is another one than before: what the state holds has to be published anew.

        Args:
            partitions: of the new topic.
        """

        def forget() -> None:
            self._aligner.published(0, dict.fromkeys(range(partitions), NOWHERE))
            self._aligner.origin.adopt({self.claim.topic: topic_id})

        async with self.lock:
            await self.settle()
            await self._call(forget)
            self.claim.is_disputed = True

    async def watch(self, read_ends: Callable[[], Awaitable[Mapping[int, int]]]) -> None:
        """Notices another process that writes to the alignment topic, however busy this one is.

        Args:
            read_ends: tells where its partitions end.
        """
        before = self.claim.ends
        if before is None:
            return
        ends = await read_ends()
        async with self.lock:
            await self.settle()  # so that the claim knows all of its own records among them
            self.claim.look(before, ends)

    async def measure_recall(self) -> bool:
        """Measures what search misses, for the metrics; False if there was nothing to find."""
        found: Mapping[str, float] = await self.between(lambda aligner: aligner.recall())
        for view, share in found.items():
            self._metrics.recall.labels(view).set(share)
        return bool(found)

    async def look_for_dangling(self) -> bool:
        """Looks through a piece of the graph for what leads nowhere; whether it is through.

        Then it tells which types no other source has, when these are others than before.
        """
        found: Dangling | None = await self.between(lambda aligner: aligner.dangling())
        if found is None:
            return False
        self._metrics.dangle(found)
        targets = sum(found.targets.values())
        count = targets + found.verdicts
        if count >= max(1, 2 * self._dangling):  # for the first time, and when it has grown a lot
            self._dangling = count
            most = sorted(found.targets.items(), key=lambda item: -item[1])[:SHOWN_RELATIONS]
            names = ", ".join(f"{shown(name)} of {source}: {number:,}" for (source, name), number in most)
            more = ", ..." if len(found.targets) > SHOWN_RELATIONS else ""
            tell(
                f"{targets:,} targets of relations do not exist{f' ({names}{more})' if names else ''}; "
                f"{found.verdicts:,} verdicts name entities that do not exist"
            )
        if (lone := found.lone_types) != self._lone_types:
            self._lone_types = lone
            if lone:
                some = lone[:SHOWN_RELATIONS]
                types = ", ".join(
                    f"{shown(kind)} of {source}: {found.entities[source, kind]:,}" for source, kind in some
                )
                more = ", ..." if len(lone) > len(some) else ""
                tell(
                    f"types which no other source has ({types}{more}); only entities of one type are aligned"
                )
        return True

    async def origin(self, function: Callable[[Origin], _T]) -> _T:
        """What `function` returns for the state's origin, after everything that is being processed."""
        found: _T = await self._call(lambda: function(self._aligner.origin))
        return found

    async def lose(self, topic: str, partition: int, following: int) -> None:
        """The broker has removed what is missing before this offset: it is said, counted and remembered."""
        before = await self.origin(lambda origin: origin.next_offset(topic, partition))
        await self.origin(lambda origin: origin.lose(topic, partition, following))
        await self.show_lost()
        log.warning(
            f"messages {before} to {following - 1} of {topic}, partition {partition}, were removed by the "
            f"broker before they were read; {LOST_REMEDY}"
        )

    async def show_lost(self) -> None:
        """What the broker has ever removed before it was read, for metrics and health."""
        lost = await self.origin(lambda origin: origin.lost())
        self._metrics.lose(lost)
        self.lost_messages = "".join(
            f"lost: up to {count} messages of {topic}, partition {partition}, were removed by the broker "
            f"before they were read; {LOST_REMEDY}\n"
            for (topic, partition), count in lost.items()
        )

    async def close(self) -> None:
        """Closes the aligner, after the call that it is in."""
        await self._call(self._aligner.close)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _publish(self, batch: Batch, send: Send, messages: Sequence[Message] = ()) -> None:
        """Begins to send the outputs, when those of the batch before are confirmed."""
        await self.settle()
        self._confirmed = asyncio.ensure_future(self._confirm(batch, send, messages))

    async def _confirm(self, batch: Batch, send: Send, messages: Sequence[Message]) -> None:
        started = time.monotonic()
        self.claim.place(await send(batch.outputs))
        await self._call(self._aligner.published, batch.sequence, self.claim.undisputed_ends)
        self._metrics.timed("publish", started)
        self._account(batch)
        if messages:
            self._metrics.freshness.set(max(0.0, time.time() - messages[-1].timestamp))

    def _account(self, batch: Batch) -> None:
        counts = batch.counts
        for name, (_, first) in counts.oddities().items():
            if name not in self.totals.oddities():
                log.warning(ODDITIES[name].first, first)
        self.totals += counts
        for output in batch.outputs:
            if output.kind == "alignments":
                self.withdrawn += output.value is None
                self.aligned += output.value is not None
        self.backlog, self.searched = batch.backlog, batch.searched
        self.is_gathered, self.aside = batch.is_gathered, batch.aside
        if self.backlog:
            self.has_backlog.set()
        else:
            self.has_backlog.clear()
        self._metrics.count(batch)
