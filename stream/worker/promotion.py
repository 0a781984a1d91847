"""Building the next generation beside the one in force, while that goes on serving, and switching to it.

     1  copy the store in force, between two batches                          `Pipeline.between`
     2  keep its graph and its links; all entities wait for evaluation        `Generations.begin`
     3  evaluate them, in a thread of its own, resting while messages come    `Promoter._build`
     4  apply what the other one has applied since, read from the topics      `Promoter._follow`
     5  between two batches: apply the last of it; put what differs into the
        outbox; replace CURRENT; go on with the new one, publish the outbox   `Promoter._switch`
     6  close and delete the old one

A crash before CURRENT is replaced goes on with the old one and resumes in step 3; after it, the new one
publishes its outbox. Until then nothing of the new one leaves it.

One that cannot be built, or that would withdraw too much, leaves the old one in force. That is kept, so that
it does not fail again at each start.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import msgspec

from index.errors import SameasError, StateError
from model.errors import ModelError
from stream.broker.ranges import Range, read_ranges
from stream.config import Settings
from stream.console import Lasting, log, tell
from stream.engine.aligner import Aligner
from stream.engine.records import Difference
from stream.errors import BrokerError, Refused
from stream.events import Message
from stream.state.generations import Generations
from stream.state.wishes import BuildProgress, Wish
from stream.worker.metrics import Metrics
from stream.worker.pipeline import Pipeline, Send

POLL_SECONDS = 1.0  # between two looks at what is wanted
MAX_REASON_CHARS = 500
MAX_ATTEMPTS = 5  # to build a generation, with each of which the worker was killed
SHOW_SECONDS = 1.0
REST_SECONDS = 1.0  # the longest rest after a step, while there are messages to serve

_T = TypeVar("_T")
_Call = Callable[..., Awaitable[Any]]  # in the next generation's thread
Places = Mapping[tuple[str, int], int]  # (topic, partition) -> the next offset


class Promoter:
    """Makes what is wanted what is in force, again and again.

    Args:
        ready: whether the worker has its partitions; a standby leaves everything as it is.
        send: the producer's, asked for when there is something to send.
    """

    def __init__(
        self,
        generations: Generations,
        pipeline: Pipeline,
        settings: Settings,
        metrics: Metrics,
        ready: Callable[[], bool],
        send: Callable[[], Send],
    ) -> None:
        self._generations = generations
        self._pipeline = pipeline
        self._settings = settings
        self._metrics = metrics
        self._ready = ready
        self._send = send
        self._shown = 0.0
        self._checked = 0.0
        self._complaint = ""  # why it is unknown what is wanted
        self._refusal = ""  # why what is wanted is not in force
        self._attempts = 0
        self._begun: Wish | None = None  # of which it was said that it is being built
        self._delay = Lasting()
        self._progress: BuildProgress | None = None
        metrics.in_force(generations.current.model)

    def status(self) -> str:
        """For /readyz: what is in force, what is being built, and what was refused."""
        told, next_one = f"in force: {self._generations.current}\n", self._progress
        if next_one is not None:
            told += f"{next_one.stage}: {next_one.wish.recipe}; "
            told += f"{next_one.waiting} entities and {next_one.pairs} pairs wait\n"
        return told + "".join(f"{reason}\n" for reason in (self._complaint, self._refusal) if reason)

    async def run(self) -> None:
        """For ever. Raises what makes it impossible to go on with either generation."""
        settled: Wish | None = None  # in force, or failed
        while True:
            wanted = await self._wanted()
            if wanted is not None and wanted != settled and self._ready():
                self._refuse("")
                last = await asyncio.to_thread(self._generations.reported, wanted)
                if wanted.recipe == self._generations.current:
                    await asyncio.to_thread(self._generations.clean)
                    settled = wanted
                elif last.is_lasting:
                    self._refuse(f"{wanted.recipe} was refused: {last.error}")
                    settled = wanted
                elif last.attempts == MAX_ATTEMPTS:
                    killed = f"the worker was killed {MAX_ATTEMPTS} times while it built it"
                    self._fail(wanted, killed, lasting=True)
                    settled = wanted
                else:
                    self._attempts = last.attempts + 1
                    with contextlib.suppress(_PutOff):
                        settled = None if await self._promote(wanted) else wanted
            await asyncio.sleep(POLL_SECONDS)

    async def _wanted(self) -> Wish | None:
        try:
            wanted = await asyncio.to_thread(self._generations.wanted, self._pipeline.searched)
        except SameasError as error:
            complaint = f"no promotion: {error}"
            if complaint != self._complaint:
                log.warning(complaint)
            self._complaint, wanted = complaint, None
        else:
            self._complaint = ""
        self._metrics.promotion_refused.set(bool(self._complaint or self._refusal))
        return wanted

    async def _promote(self, wanted: Wish) -> bool:
        """Builds it and puts it in force; False, with the reason in the log, where it cannot be built."""
        recipe = wanted.recipe
        thread = ThreadPoolExecutor(1, thread_name_prefix="generation")
        aligner: Aligner | None = None
        if wanted != self._begun:
            self._begun = wanted
            self._delay.look("")
            tell(f"building beside the generation in force: {recipe}")
        try:
            self._show(BuildProgress(wanted, "building"), now=True)
            call = partial(asyncio.get_running_loop().run_in_executor, thread)
            name = await asyncio.to_thread(self._generations.unfinished, recipe)
            if name is None:
                copied = self._generations.partial()
                await self._pipeline.between(lambda former: former.copy_to(copied))
                name = await call(self._generations.begin, recipe, copied)
            aligner = await call(self._generations.aligner, name)
            await self._build(wanted, aligner, call)
            await self._follow(wanted, aligner, call)
            await self._switch(wanted, name, aligner, thread)
        except BaseException as error:
            if self._generations.current == recipe:
                raise  # the switch is made, and crash-safe
            if isinstance(error, asyncio.CancelledError):
                self._break_off()
                raise
            if aligner is not None:
                with contextlib.suppress(SameasError):  # what it could not write is made again
                    await call(aligner.close)
            thread.shutdown(wait=False)
            if isinstance(error, BrokerError) and not isinstance(error, Refused):  # it may be restarting
                error = _PutOff(str(error))
            if isinstance(error, _PutOff):
                self._delay.look(f"put off: {recipe}: {error}")
                self._break_off()
                raise error from None
            if not isinstance(error, SameasError):
                log.error("a defect in what is being built", exc_info=error)
            # the disk, the broker and their rights may be better at the next start
            lasting = not isinstance(error, StateError | BrokerError)
            self._fail(wanted, _told(error), lasting=lasting)
            return False
        return True

    def _break_off(self) -> None:
        """It goes on later: this was not the kind of end that counts."""
        if self._progress is not None:
            self._attempts -= 1
            self._show(self._progress, now=True)
            self._progress = None
            self._metrics.promotion.set(0)

    def _fail(self, wanted: Wish, error: str, *, lasting: bool) -> None:
        log.error(f"{wanted.recipe} is refused: {error}; {self._generations.current} stays in force")
        self._progress = None
        self._metrics.promotion.set(0)
        self._metrics.promotions.labels("failed").inc()
        self._refuse(f"{wanted.recipe} was refused: {error}")
        # last, because the command that waits for it ends with it
        self._report(BuildProgress(wanted, "failed", error=error, is_lasting=lasting))

    def _refuse(self, reason: str) -> None:
        self._refusal = reason
        self._metrics.promotion_refused.set(bool(reason))

    async def _build(self, wanted: Wish, aligner: Aligner, call: _Call) -> None:
        waiting, pairs = await call(_drain, aligner)
        while waiting:
            self._show(BuildProgress(wanted, "building", waiting, pairs))
            waiting, pairs = await self._politely(wanted, call(_drain, aligner))

    async def _follow(self, wanted: Wish, aligner: Aligner, call: _Call) -> None:
        """Until the new one has applied nearly what the one in force has, and nothing waits in it."""
        while True:
            ranges = await call(_behind, aligner, await self._offsets())
            if sum(part.end - part.start for part in ranges) <= self._settings.align.batch_size:
                return
            messages = read_ranges(self._settings, ranges)
            behind = waiting = 1
            while behind or waiting:
                behind, waiting = await self._politely(wanted, call(self._apply, aligner, messages))
                self._show(BuildProgress(wanted, "catching up", waiting))

    async def _switch(self, wanted: Wish, name: str, aligner: Aligner, thread: ThreadPoolExecutor) -> None:
        started = time.monotonic()
        difference = Difference()

        def take_over(former: Aligner) -> Aligner:
            nonlocal difference
            messages = read_ranges(self._settings, _behind(aligner, former.origin.offsets()))
            while self._apply(aligner, messages)[0]:
                pass
            difference = aligner.supersede(former, name)
            if difference.share_withdrawn > wanted.max_withdrawn:
                raise ModelError(
                    f"it would withdraw {difference.withdrawn:,} of {difference.former:,} alignments, more "
                    f"than promotion.max_withdrawn = {wanted.max_withdrawn:g} allows; if it is to be so, "
                    "promote it with --max-withdrawn 1"
                )
            self._generations.switch(name)
            return aligner

        self._show(BuildProgress(wanted, "switching"), now=True)
        # not to be left half-way: the worker waits for the lock before it stops
        await asyncio.shield(self._pipeline.replace(take_over, thread, self._send()))
        self._progress = None
        self._metrics.in_force(wanted.recipe.model)
        self._metrics.promotion.set(0)
        self._metrics.promotions.labels("switched").inc()
        self._report(BuildProgress(wanted, "in force"))
        seconds = time.monotonic() - started
        tell(f"in force: {wanted.recipe}; {difference.changed:,} pairs changed, switched in {seconds:.1f} s")

    def _apply(self, aligner: Aligner, messages: Iterator[Message]) -> tuple[int, int]:
        """One batch: how many messages it had, and how many entities wait."""
        chunk = list(islice(messages, self._settings.align.batch_size))
        batch = aligner.process(chunk, bulk=True)
        aligner.published(batch.sequence)  # nothing leaves a generation that is not in force
        return len(chunk), batch.backlog

    async def _offsets(self) -> Places:
        """What the aligner in force has applied."""
        offsets: Places = await self._pipeline.between(lambda aligner: aligner.origin.offsets())
        return offsets

    async def _politely(self, wanted: Wish, step: Awaitable[_T]) -> _T:
        """Rests as long as the step took while there is something to serve. Raises _PutOff."""
        started, pipeline = time.monotonic(), self._pipeline
        received = pipeline.totals.received
        outcome = await step
        if pipeline.totals.received > received or pipeline.backlog:
            await asyncio.sleep(min(REST_SECONDS, time.monotonic() - started))
        if time.monotonic() - self._checked > POLL_SECONDS:
            self._checked = time.monotonic()
            if await self._wanted() != wanted or not self._ready():
                raise _PutOff("something else is wanted, or another worker has the partitions")
        return outcome

    def _show(self, progress: BuildProgress, *, now: bool = False) -> None:
        self._progress = progress = msgspec.structs.replace(progress, attempts=self._attempts)
        self._metrics.promotion.set(progress.waiting)
        if now or time.monotonic() - self._shown > SHOW_SECONDS:
            self._shown = time.monotonic()
            self._report(progress)

    def _report(self, progress: BuildProgress) -> None:
        """Where the disk is full nothing is said to other processes, and the worker goes on."""
        try:
            self._generations.report(progress)
        except StateError as error:
            log.warning(f"{progress.stage}: {progress.wish.recipe}: {error}")


def _told(error: BaseException) -> str:
    """In a line."""
    told = str(error) if isinstance(error, SameasError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:MAX_REASON_CHARS]


class _PutOff(Exception):
    """Not now; the next look at what is wanted may begin with it again."""


def _drain(aligner: Aligner) -> tuple[int, int]:
    """One batch of the backlog; how many entities and pairs wait after it."""
    batch = aligner.process([], bulk=True)
    aligner.published(batch.sequence)
    return batch.backlog, aligner.waiting_pairs


def _behind(aligner: Aligner, offsets: Places) -> list[Range]:
    """What the aligner has yet to apply until it is where another one is."""
    applied = aligner.origin.offsets()
    return [
        Range(*place, applied.get(place, 0), end)
        for place, end in offsets.items()
        if applied.get(place, 0) < end
    ]
