"""What the worker does beside its messages: loops, each for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kafka.errors import KafkaError

from stream.broker.topics import Identity
from stream.config import Settings
from stream.console import Lasting, log, tell
from stream.errors import BrokerError, Refused
from stream.worker.alignment_topic import Published, read_ends
from stream.worker.contact import Contact
from stream.worker.ownership import Tenure
from stream.worker.pipeline import Pipeline, Send
from stream.worker.standing import QUIET_SECONDS, WAITS_FOR_GROUP, Standing

PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 1.0  # between two looks at what the worker waits for
# The rest after a piece of the backlog in which the state was reloaded, in lengths of that piece.
RELOAD_RESTS = 3
BACKLOG_SECONDS = 0.005  # between two looks, while there is a backlog, at whether no message waits
RECALL_SECONDS = 60.0  # between two looks at what search misses, each some ten milliseconds of work
RECONCILE_SECONDS = 0.5  # between two looks at whether the worker has caught up
WATCH_SECONDS = 10.0  # between two looks at whether another process has published
RETRY_SECONDS = 2.0  # between two tries to reach a broker that was there and is not now


async def report_progress(pipeline: Pipeline, lag: Callable[[], int]) -> None:
    """While anything changes; so the last line says what everything came to."""
    received, since, said = 0, time.monotonic(), ""
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        behind, now, totals = lag(), time.monotonic(), pipeline.totals
        rate = (totals.received - received) / (now - since)
        received, since = totals.received, now
        figures = (
            f"backlog {pipeline.backlog:,}; so far {totals.received:,} events, "
            f"{pipeline.aligned:,} alignments written, {pipeline.withdrawn:,} withdrawn, "
            f"{totals.dead_lettered:,} dead-lettered"
        )
        if figures != said and (totals.received or pipeline.backlog):
            tell(f"{rate:,.0f} events/s, lag {behind:,}, {figures}")
        said = figures


async def report_waiting(standing: Standing, contact: Contact, broker: str) -> None:
    """When the broker goes and when it is back, and when the group takes its time.

    Args:
        broker: its addresses.
    """
    gone, group, seconds = Lasting(), Lasting(), 0.0
    while True:
        lost = contact.lost
        if lost is None and gone.is_said:
            tell(f"the broker at {broker} answers again, after {seconds:,.0f} s")
        gone.look("" if lost is None else f"the broker at {broker} does not answer")
        group.look(WAITS_FOR_GROUP if lost is None and standing.waits_for_group else "")
        seconds = lost or 0.0
        await asyncio.sleep(LOOK_SECONDS)


async def drain_backlog(
    pipeline: Pipeline,
    standing: Standing,
    send: Send,
    messages_wait: Callable[[], bool],
    confirm: Callable[[asyncio.Future[None]], Any],
) -> None:
    """Messages go first: one that comes in meanwhile waits for one piece of the backlog at most.

    While messages wait, a share of the backlog is served with each of their batches. The pieces are large
    until the worker has caught up, or messages that come in would keep it from that for good. A piece that
    fails costs a reload of the state; however many do, three quarters of the time are left to messages.

    Args:
        confirm: is given what is done when the broker has the outputs of a piece.
    """
    while True:
        is_free = not pipeline.lock.locked() and not messages_wait()
        if standing.is_active and pipeline.backlog > 0 and is_free:
            in_bulk = standing.is_quiet or not standing.has_caught_up
            started, reloads = time.monotonic(), pipeline.reloads
            confirm(await pipeline.step([], send, bulk=in_bulk))
            if pipeline.reloads > reloads:
                await asyncio.sleep(RELOAD_RESTS * (time.monotonic() - started))
        else:
            await pipeline.has_backlog.wait()
            await asyncio.sleep(BACKLOG_SECONDS if standing.is_active else QUIET_SECONDS)


async def reconcile(
    settings: Settings,
    partitions: int,
    pipeline: Pipeline,
    standing: Standing,
    send_in: Callable[[Tenure], Send],
) -> None:
    """After every assignment, once caught up, and whenever another process has published since.

    A state that is behind its input when it is assigned knows too little to withdraw anything. Once it has
    caught up it holds what this worker itself has published, so later comparisons need not wait.

    Args:
        partitions: of the alignment topic.
        send_in: publishes as long as a tenure lasts.
    """
    topic, claim, trouble = settings.topics.alignments, pipeline.claim, Lasting()
    told: Tenure | None = None  # in which it was said that the worker is ready
    has_strays = False  # had them ever
    while True:
        await asyncio.sleep(RECONCILE_SECONDS)
        tenure = standing.tenure
        if tenure is None or not standing.is_active:
            continue
        standing.look(pipeline.backlog, is_gathered=pipeline.is_gathered)
        is_news = told != tenure
        if standing.has_caught_up and is_news and not claim.is_disputed:
            tell(f"ready: {topic} is what this state says")
            told = tenure
        if not (standing.has_settled and claim.is_disputed):
            continue
        published = Published(settings, partitions, may_have_grown=not claim.has_published)
        try:
            await asyncio.to_thread(published.read)
            repairs = await pipeline.reconcile(published, send_in(tenure))
        except Refused:
            raise
        except BrokerError as error:  # it may be restarting
            trouble.look(standing.unless_known(f"{topic} is compared later: {error}"))
            await asyncio.sleep(RETRY_SECONDS)
            continue
        trouble.look("")
        prefix, told = "ready: " if is_news else "", tenure
        if repairs.strays and not has_strays:
            has_strays = True
            partition, offset, key = published.strays[0]
            log.warning(
                f"{topic}: {repairs.strays:,} records stood in partitions where their keys do not belong, "
                f"the first with key {key!r:.200} at offset {offset} of partition {partition}: another "
                "process writes with another partitioner. They are withdrawn where they stood; further ones "
                "are only counted (sameas_stray_records_total)"
            )
        if any(repairs):
            tell(
                f"{prefix}{topic} was not what this state says: {repairs.written:,} records written, "
                f"{repairs.withdrawn + repairs.strays:,} withdrawn"
            )
        else:
            tell(f"{prefix}{topic} is what this state says")


async def watch(settings: Settings, partitions: int, pipeline: Pipeline, standing: Standing) -> None:
    """Notices another process that publishes, also where this worker itself publishes nothing.

    Args:
        partitions: of the alignment topic.
    """
    trouble = Lasting(log.warning)
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if standing.is_active and not pipeline.claim.is_disputed:
            try:
                await pipeline.watch(lambda: asyncio.to_thread(read_ends, settings, partitions))
                trouble.look("")
            except Refused:
                raise
            except (BrokerError, KafkaError) as error:  # it may be restarting
                what = f"the end of {settings.topics.alignments} is not known: {error}"
                trouble.look(standing.unless_known(what))


async def watch_topics(
    standing: Standing,
    read: Callable[[], Mapping[str, Identity]],
    check: Callable[[Mapping[str, Identity]], Awaitable[None]],
) -> None:
    """Notices that a topic was deleted and created again, which an offset need not show, or has grown.

    Args:
        read: describes the topics; may take its time.
        check: is given these. What it raises ends the worker.
    """
    trouble = Lasting(log.warning)
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if standing.is_active:
            try:
                found = await asyncio.to_thread(read)
            except Refused:
                raise
            except (BrokerError, KafkaError) as error:  # it may be restarting
                trouble.look(standing.unless_known(f"whether the topics are the same is not known: {error}"))
                continue
            trouble.look("")
            await check(found)


async def measure_recall(pipeline: Pipeline, standing: Standing) -> None:
    """Now and then, while there is no other work."""
    measured = -RECALL_SECONDS
    while True:
        await asyncio.sleep(QUIET_SECONDS)
        due = time.monotonic() - measured > RECALL_SECONDS and not pipeline.backlog
        if due and standing.is_quiet and standing.is_active and await pipeline.measure_recall():
            measured = time.monotonic()


async def look_for_dangling(pipeline: Pipeline, standing: Standing) -> None:
    """In pieces, each some milliseconds of work, whenever messages were applied since the last look began."""
    seen = began = -1
    while True:
        await asyncio.sleep(QUIET_SECONDS)
        applied = pipeline.totals.applied
        is_due = applied != seen and standing.is_active and standing.has_caught_up
        if is_due and not pipeline.lock.locked():
            began = applied if began == seen else began
            if await pipeline.look_for_dangling():
                seen = began
