"""The worker: Faust around the aligner.

Faust reads the topics and keeps the group; what is done with a micro-batch stands in
`stream/worker/pipeline.py`, where reading begins in `stream/worker/transport.py`, and what is done beside the
messages in `stream/worker/chores.py`. Three of Faust's habits would lose messages or hang; they are worked
around here. Its streams acknowledge what they could not decode or process: so they are bypassed, and offsets
are committed when the outputs are in the broker. It goes on when an agent is dead: so there is a crashing
supervisor. It does not end while a broker is away: so there is a deadline.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import faust
import mode
from aiokafka.errors import KafkaError as AioKafkaError
from faust.tables.recovery import RebalanceAgain
from faust.types import TP
from kafka import TopicPartition
from kafka.errors import KafkaError

from index.errors import StateError
from stream.broker.access import is_refusal
from stream.broker.topics import (
    AFTER_GROWTH,
    Identity,
    ensure_topics,
    find_partitions,
    identify,
    input_specs,
    output_specs,
    worker_specs,
)
from stream.config import Settings
from stream.console import Lasting, log, tell, waiting
from stream.engine.interface import MessageProcessor
from stream.errors import BrokerError, Refused
from stream.state.origin import REBUILD, check_logs, check_topic_ids, is_another
from stream.worker.alignment_topic import read_ends
from stream.worker.chores import (
    RETRY_SECONDS,
    drain_backlog,
    look_for_dangling,
    measure_recall,
    reconcile,
    report_progress,
    report_waiting,
    watch,
    watch_topics,
)
from stream.worker.contact import Contact
from stream.worker.http import serve
from stream.worker.metrics import Metrics, bytes_in
from stream.worker.ownership import Ownership
from stream.worker.pipeline import Pipeline
from stream.worker.publisher import Publisher
from stream.worker.shutdown import Deadline, stop_on_signals
from stream.worker.standing import Standing
from stream.worker.transport import build_app, sort_out

if TYPE_CHECKING:
    from stream.state.generations import Generations
    from stream.worker.promotion import Promoter

BEHIND_BATCHES = 8  # full batches that wait when a worker counts as behind
BULK_BATCHES = 4  # taken at once then, as an entity costs less in a big batch
SWITCH_SECONDS = 0.0005  # for which the aligner's thread may keep Python from the others
ID_TRIES = 4  # RETRY_SECONDS apart, until a topic counts as deleted
FINISH_SECONDS = 4.0  # for a batch in flight at shutdown; if it takes longer the next start does it again
LEAVE_SECONDS = 3.0  # for Faust to commit offsets and to leave the group: both only save others time

_T = TypeVar("_T")
OpenAligner = Callable[[], tuple[MessageProcessor, "Generations | None"]]


def run_worker(settings: Settings, open_aligner: OpenAligner) -> None:
    """Consumes until SIGTERM or Ctrl-C; then returns within ten seconds, or ends the process.

    Args:
        open_aligner: called once, in the thread that the aligner will live in. Where it gives the generations
            too that the aligner is one of, the worker follows promotions.

    Raises:
        SameasError: broker, topics, state or model cannot be used, or only a part of a topic was assigned.
    """
    asyncio.run(_run(settings, open_aligner))


async def _run(settings: Settings, open_aligner: OpenAligner) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    stop, deadline = asyncio.Event(), Deadline()
    stop_on_signals(stop, deadline)
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="aligner")

    stages, workers = ["starting"], list[Worker]()  # what is under way; the worker, as soon as there is one

    async def step(what: str, work: Awaitable[Any]) -> Any:
        stages.append(what)
        done, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        with waiting(what):
            await asyncio.wait([done, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            tell("stopped before it was ready")
            sys.stdout.flush()
            # a thread may be inside a library that cannot be interrupted; nothing was consumed yet
            os._exit(0)
        stopped.cancel()
        return done.result()

    kafka, state, metrics = settings.kafka, settings.state.dir, Metrics()
    metrics.measure_store(state)
    if address := serve(
        settings.metrics,
        metrics,
        lambda: workers[0].obstacle() if workers else stages[-1],
        lambda: workers[0].status() if workers else "",
    ):
        tell(f"health and metrics at {address}/readyz and /metrics")
    partitions = await step(
        f"waiting for the broker at {kafka.bootstrap_servers} and its topics",
        loop.run_in_executor(thread, ensure_topics, settings, None, kafka.group_id),
    )
    aligner, generations = await step(
        f"loading the model, and the state in {state} ({bytes_in(state) / 2**20:,.0f} MiB)",
        loop.run_in_executor(thread, open_aligner),
    )
    worker = Worker(settings, Pipeline(aligner, thread, settings.topics, metrics), metrics, partitions)
    workers.append(worker)
    if generations is not None:
        worker.follow_promotions(generations)
    try:
        await step(f"joining group {kafka.group_id}", worker.app.start())
        await worker.wait(stop)
    except Exception as error:
        told = await _told(error, settings)
        deadline.start(str(told) or type(told).__name__)
        if told is not error:
            raise told from error
        raise
    finally:
        deadline.start()
        await worker.stop()
        thread.shutdown()
    # All is committed and closed; a thread that still asks the broker something must not hold up the end.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _told(error: Exception, settings: Settings) -> Exception:
    """What to say of an error that ended the worker. Of rights, all that are missing now."""
    if isinstance(error, Refused) or is_refusal(error):
        try:
            await asyncio.to_thread(
                find_partitions, settings, worker_specs(settings), settings.kafka.group_id
            )
        except Refused as refusal:
            return refusal
        except BrokerError:
            pass  # it is not there any more; what it said last counts
    if isinstance(error, AioKafkaError | KafkaError):
        return BrokerError(f"the broker at {settings.kafka.bootstrap_servers} ended the work: {error}")
    return error


class Worker:
    """A Faust app with one agent; the loops beside its messages stand in `stream/worker/chores.py`."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, metrics: Metrics, partitions: Mapping[str, int]
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._metrics = metrics
        self._partitions = partitions
        self._inputs = [spec.name for spec in input_specs(settings)]
        self._outputs = [spec.name for spec in output_specs(settings)]
        self._ownership = Ownership(
            lambda tenure: self.app.consumer.is_present(tenure), settings.kafka.session_timeout_seconds
        )
        self._contact = Contact(settings.kafka.session_timeout_seconds)
        self._standing = Standing(self._ownership, self._contact)
        self._unconfirmed: asyncio.Queue[tuple[Mapping[TP, int], asyncio.Future[None] | None]] = (
            asyncio.Queue()
        )
        self._promoter: Promoter | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._background: list[asyncio.Task[None]] = []
        self._confirming = asyncio.create_task(self._guarded(self._confirm()))
        self._send = Publisher(
            lambda: self.app.producer, settings.topics, partitions, self._ownership.confirm, metrics.refused
        ).send
        self.app = self._build_app()
        self._queue = self.app.transport.records

    def obstacle(self) -> str:
        """Why the worker is not ready, "" when it is."""
        if self._failure.done():
            return "ending"
        pipeline = self._pipeline
        return self._standing.obstacle(pipeline.backlog, is_disputed=pipeline.claim.is_disputed)

    def follow_promotions(self, generations: "Generations") -> None:
        """From `wait` on, generations that are wanted are built and put in force."""
        from stream.worker.promotion import Promoter  # which needs the model

        self._promoter = Promoter(
            generations,
            self._pipeline,
            self._settings,
            self._metrics,
            lambda: self._standing.is_active,
            lambda: self._send,
        )

    def status(self) -> str:
        """For /readyz: what is missing, what is in force, and what is being built."""
        aside = self._aside()
        promotion = "" if self._promoter is None else self._promoter.status()
        return self._pipeline.lost_messages + (f"{aside}\n" if aside else "") + promotion

    async def wait(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. Raises what ended the work before that."""
        settings, pipeline, standing, send = self._settings, self._pipeline, self._standing, self._send
        partitions = self._partitions[settings.topics.alignments]
        chores = [
            report_progress(pipeline, self._lag),
            report_waiting(standing, self._contact, settings.kafka.bootstrap_servers),
            drain_backlog(pipeline, standing, send, lambda: not self._queue.empty(), self._when_published),
            reconcile(settings, partitions, pipeline, standing, lambda tenure: partial(send, tenure=tenure)),
            watch(settings, partitions, pipeline, standing),
            watch_topics(standing, self._identify, self._check_topics),
            measure_recall(pipeline, standing),
            look_for_dangling(pipeline, standing),
        ]
        if self._promoter is not None:
            chores.append(self._promoter.run())
        self._background = [asyncio.create_task(self._guarded(chore)) for chore in chores]
        stopped = asyncio.create_task(stop.wait())
        crashed = asyncio.create_task(self.app._crashed.wait())
        await asyncio.wait([stopped, crashed, self._failure], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, crashed):
            task.cancel()
        if self._failure.done():
            self._failure.result()
        if self.app.crash_reason is not None:
            raise self.app.crash_reason

    async def stop(self) -> None:
        """Lets the batch in flight finish, commits, leaves the group and closes the state."""
        self._standing.role = "stopping"
        for task in self._background:
            task.cancel()
        try:
            await asyncio.wait_for(self._finish_batches(), FINISH_SECONDS)
        except TimeoutError:
            tell("the batch in flight is not finished; it will be done again")
        self._confirming.cancel()
        await self._pipeline.close()  # from here on nothing can be lost
        leaving = asyncio.create_task(self.app.stop())
        await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not leaving.done():
            tell("the broker does not answer; the group will notice by itself that this worker is gone")
        totals, aside = self._pipeline.totals, self._aside()
        tell(
            f"stopped; received {totals.received} = applied {totals.applied} + stale {totals.stale} "
            f"+ dead-lettered {totals.dead_lettered}{totals.remark}{f'; {aside}' if aside else ''}"
        )

    def _aside(self) -> str:
        """How many entities are set aside; empty if none is."""
        count = self._pipeline.aside
        entities = "1 entity is" if count == 1 else f"{count:,} entities are"
        return f"{entities} set aside, since evaluating failed" if count else ""

    async def _finish_batches(self) -> None:
        """Until all outputs are published; the lock stays taken, so no batch begins after that."""
        await self._pipeline.lock.acquire()
        if not self._failure.done():
            await self._pipeline.settle()
            await self._unconfirmed.join()

    def _build_app(self) -> faust.App:
        app = build_app(
            self._settings,
            2 * BULK_BATCHES * self._settings.align.batch_size,
            self._start_positions,
            lambda: self._standing.done,
            self._ownership,
            self._contact,
        )

        async def align_entities(
            stream: Any,
        ) -> None:  # Faust wants an agent for its topics; no message comes this way
            await self._guarded(self._consume())

        app.agent(
            app.topic(*self._inputs), name="align", concurrency=1, supervisor_strategy=mode.CrashingSupervisor
        )(align_entities)
        app.on_partitions_assigned.connect(self._on_assigned)
        return app

    async def _consume(self) -> None:
        """Takes micro-batches from the queue; Faust's streams would cost more than all else."""
        queue, align = self._queue, self._settings.align
        while True:
            taken = [await queue.get()]
            bulk = self._is_behind()
            most = align.batch_size * (BULK_BATCHES if bulk else 1)
            if align.linger_ms and not bulk:
                await asyncio.sleep(align.linger_ms / 1000)
            while len(taken) < most and not queue.empty():
                taken.append(queue.get_nowait())
            messages, following = sort_out(taken)
            confirmed = None
            if messages:
                confirmed = await self._pipeline.step(messages, self._send, bulk=bulk)
                self._standing.messages_applied()
            self._when_published(confirmed, following)

    def _when_published(
        self, confirmed: asyncio.Future[None] | None, following: Mapping[TP, int] | None = None
    ) -> None:
        """Messages before the offsets `following` are done when `confirmed` is, and all earlier ones."""
        self._unconfirmed.put_nowait((following or {}, confirmed))

    async def _confirm(self) -> None:
        """Counts batches as done, in order, as soon as the broker has their outputs."""
        while True:
            following, confirmed = await self._unconfirmed.get()
            if confirmed is not None:
                await confirmed
            self._standing.done |= following
            self._look()
            self._unconfirmed.task_done()

    def _look(self) -> None:
        self._standing.look(self._pipeline.backlog, is_gathered=self._pipeline.is_gathered)

    async def _start_positions(self, assigned: set[TP]) -> Mapping[TP, int]:
        """Where to read from; asked before fetching begins, at the start and after every rebalance."""
        tenure = self._ownership.tenure
        topics = await self._awaited(self._identify)
        self._contact.logs.compare(
            {TP(name, number): epoch for name, one in topics.items() for number, epoch in one.epochs.items()}
        )
        await self._check_topics(topics)
        self._check_whole(assigned)
        await self._pipeline.publish_pending(self._send)
        partitions = self._partitions[self._settings.topics.alignments]
        await self._pipeline.own(lambda: self._awaited(lambda: read_ends(self._settings, partitions)))
        applied = await self._pipeline.origin(lambda origin: origin.applied(assigned))
        state = f"state directory {self._settings.state.dir}"
        found = await self._awaited(lambda: check_logs(self._settings, state, applied, REBUILD))
        positions, behind = {}, 0
        for tp in assigned:
            first, end = found[TopicPartition(*tp)]
            positions[tp] = max(first, applied[tp].following)
            if 0 < applied[tp].following < first:
                await self._pipeline.lose(tp.topic, tp.partition, first)
            behind += end - positions[tp]
        if tenure != self._ownership.tenure:
            raise RebalanceAgain  # it will be asked again
        self._standing.begin(tenure, positions, {tp: found[TopicPartition(*tp)][1] for tp in assigned})
        self._look()
        tell(f"reads {', '.join(self._inputs)} ({len(assigned)} partitions); {behind} messages behind")
        return positions

    def _identify(self) -> Mapping[str, Identity]:
        """A broker that has just started may not know its topics yet: so it is asked more than once."""
        topics = {*self._inputs, *self._outputs}
        for _ in range(ID_TRIES):
            if len(found := identify(self._settings, topics)) == len(topics):
                break
            time.sleep(RETRY_SECONDS)
        return found

    async def _check_topics(self, found: Mapping[str, Identity]) -> None:
        """The topics have to be those that the state was made of; another alignment topic is filled again.

        Args:
            found: as `_identify` gives them.

        Raises:
            StateError: an input topic is gone, or another one has its name, or partitions were added to the
                alignment topic.
            BrokerError: an output topic is gone: publishing would wait for it for ever.
        """
        topic = self._settings.topics.alignments
        known = await self._pipeline.origin(lambda origin: origin.topic_ids())
        check_topic_ids(f"state directory {self._settings.state.dir}", known, found, self._inputs, REBUILD)
        if gone := [name for name in self._outputs if name not in found]:
            raise BrokerError(
                f"topic {', '.join(gone)} does not exist any more; start the worker again, and it is created"
            )
        if found[topic].partitions != self._partitions[topic]:
            raise StateError(
                f"topic {topic} has {found[topic].partitions} partition(s), it had {self._partitions[topic]} "
                f"when this worker started. If partitions were added, {AFTER_GROWTH}"
            )
        another = found[topic].id if is_another(topic, known, found) else None
        if another is not None:
            log.warning(f"{topic} was deleted and created again; what this state says is published anew")
            await self._pipeline.replaced(another, self._partitions[topic])
        ids = {name: found[name].id for name in (*self._inputs, topic)}
        new = {name: one for name, one in ids.items() if one is not None and name not in known}
        if new:
            await self._pipeline.origin(lambda origin: origin.adopt(new))

    async def _awaited(self, read: Callable[[], _T]) -> _T:
        """What `read` returns. A broker that restarts is awaited: it was there at the start."""
        trouble = Lasting()
        while True:
            try:
                return await asyncio.to_thread(read)
            except Refused:
                raise
            except (BrokerError, KafkaError) as error:
                trouble.look(self._standing.unless_known(f"waiting for the broker: {error}"))
                await asyncio.sleep(RETRY_SECONDS)

    def _check_whole(self, assigned: set[TP]) -> None:
        """Raises BrokerError without all partitions: half a graph gives wrong alignments silently."""
        for topic in self._inputs:
            count = self.app.consumer.topic_partitions(topic) or self._partitions[topic]
            missing = [number for number in range(count) if TP(topic, number) not in assigned]
            if missing:
                raise BrokerError(
                    f"this worker was assigned only a part of the input: {count - len(missing)} of {count} "
                    f"partitions of {topic}; a graph cannot be aligned by halves. Run one worker per group "
                    f"(kafka.group_id={self._settings.kafka.group_id}); a second one can only stand by, and "
                    "only with one partition"
                )

    async def _on_assigned(self, app: faust.App, assigned: set[TP], **kwargs: Any) -> None:
        if not assigned and self._standing.role != "standby":
            self._standing.role = "standby"
            group = self._settings.kafka.group_id
            tell(f"ready: standing by; another worker of group {group} has the partitions")

    def _is_behind(self) -> bool:
        """Whether so many messages wait that throughput goes before delay."""
        waiting = self._waiting(self.app.consumer.readable_end)
        return sum(waiting.values()) > BEHIND_BATCHES * self._settings.align.batch_size

    def _lag(self) -> int:
        """Messages in the broker whose outcome is not published yet, as Kafka's tools count them."""
        waiting = self._waiting(self.app.consumer.highwater)
        for tp, count in waiting.items():
            self._metrics.lag.labels(tp.topic, str(tp.partition)).set(count)
        return sum(waiting.values())

    def _waiting(self, end_of: Callable[[TP], int | None]) -> dict[TP, int]:
        """By partition the messages up to an end whose outcome is not published yet.

        The consumer does not know ends before the first fetch, and while a rebalance takes the partition.
        """
        waiting = {}
        for tp, position in self._standing.done.items():
            try:
                end = end_of(tp)
            except AssertionError:
                end = None
            waiting[tp] = max(0, (end or position) - position)
        return waiting

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Ends the worker when this part of it fails: what is left would look alive and do nothing."""
        try:
            await work
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)
            raise
