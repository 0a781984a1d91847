"""Replay: the topics once more, through an aligner of its own, into topics of its own.

A run is a directory beside the worker's state: `run.json` is its plan, fixed when it starts; `state` is an
aligner's state, which knows what was read; `timeline.jsonl` grows by a point whenever a share of the stream
is processed and the backlog drained; `progress.json` counts. Whatever ends a run, the same command continues
it, and the outcome is that of an undisturbed run: alignments and points are functions of the topics.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from index.errors import StateError
from stream.broker.connection import connect
from stream.broker.limits import MAX_MESSAGE_BYTES, shortened
from stream.broker.ranges import Range, read_ranges
from stream.broker.reading import read_bounds
from stream.broker.topics import ensure_topics, identify, input_specs, output_specs
from stream.changes import Decoder
from stream.config import Settings
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch, Output
from stream.errors import BrokerError
from stream.events import Cause, Message
from stream.learning.known_links import LinkPair
from stream.replay.run import PREFIX, Plan, Run, RunProgress, digest
from stream.replay.timeline import POINTS, measure
from stream.state.generations import warn_of_readers
from stream.state.origin import check_logs, check_topic_ids

DELIVERY_SECONDS: Final = 60.0


def execute(
    run: Run,
    plan: Plan,
    checkpoint: Path,
    decode: Decoder,
    links: Sequence[LinkPair],
    stopped: Callable[[], bool],
    show: Callable[[int, RunProgress, int], None],
) -> Aligner | None:
    """Starts a run or continues it.

    Args:
        checkpoint: the directory of the plan's model.
        links: to measure the alignments against while the stream goes by.
        stopped: is called between batches and says whether to end early.
        show: is given the position in the stream, the counts, and how many entities wait.

    Returns:
        The aligner, drained, open, and to be closed; None when `stopped` ended it early.

    Raises:
        StateError: another process executes this run, or its directory cannot be used.
        BrokerError: reading or writing failed; the same command continues later.
    """
    with run.refusals():
        run.home.mkdir(parents=True, exist_ok=True)
        warn_of_readers(run.home)
    aligner = Aligner(
        run.settings.state.dir,
        checkpoint,
        decode,
        one_to_one=plan.one_to_one,
        threshold=plan.threshold,
        search=plan.search,
        evidence=plan.evidence,
        min_change=run.settings.records.min_change,
    )
    try:
        if run.plan is None:
            _claim_topics(run)
        if not run.progress.finished:
            _check_topics(run, plan, aligner)
        if run.plan is None:
            run.save("run.json", plan)
        with _Publisher(run.settings, aligner) as publisher:
            _Session(run, plan, aligner, publisher, links, stopped, show).work()
    except _Stopped:
        aligner.close()
        return None
    except BaseException:
        aligner.close()
        raise
    return aligner


def _claim_topics(run: Run) -> None:
    """Creates the output topics. They have to be empty, or they would mix two runs. Raises StateError."""
    specs = output_specs(run.settings)
    counts = ensure_topics(run.settings, specs)
    partitions = [(topic, number) for topic, count in counts.items() for number in range(count)]
    used = {tp.topic for tp, (_, end) in read_bounds(run.settings, partitions).items() if end > 0}
    if used:
        raise StateError(
            f"{', '.join(sorted(used))} has records of another run named {run.name}, whose state is not in "
            f"{run.home}; take another --run, or delete these topics with `sameas replay remove {run.name}`"
        )


def _check_topics(run: Run, plan: Plan, aligner: Aligner) -> None:
    """Topics of an interrupted run have to be the same ones still. Raises StateError."""
    topics = [spec.name for spec in input_specs(run.settings) + output_specs(run.settings)]
    found = identify(run.settings, topics)
    remedy = f"take another --run, or forget this one with `sameas replay remove {run.name}`"
    check_topic_ids(f"run {run.name}", aligner.origin.topic_ids(), found, topics, remedy)
    places = [(part.topic, part.partition) for part in plan.ranges]
    logs = check_logs(run.settings, f"run {run.name}", aligner.origin.applied(places), remedy)
    for part in plan.ranges:
        if part.end > logs[TopicPartition(part.topic, part.partition)][1]:
            raise StateError(
                f"{part.topic}, partition {part.partition}, ends before offset {part.end}, up to which run "
                f"{run.name} reads: it was cut back; {remedy}"
            )
    aligner.origin.adopt({name: one.id for name, one in found.items() if one.id is not None})


class _Stopped(Exception):
    """The session was asked to end before the end of the stream."""


class _Session:
    """One go at a run: from where the aligner's state and the files stand to the end of the stream."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        aligner: Aligner,
        publisher: "_Publisher",
        links: Sequence[LinkPair],
        stopped: Callable[[], bool],
        show: Callable[[int, RunProgress, int], None],
    ) -> None:
        self._run = run
        self._aligner = aligner
        self._publisher = publisher
        self._links = links
        self._stopped = stopped
        self._show = show
        self._progress, self._timeline = run.progress, run.timeline
        self._offsets = _Offsets(plan.ranges, aligner)
        self._points = _points(plan, links)
        self._since = time.monotonic()

    def work(self) -> None:
        """Reads, aligns, publishes and measures what is left of the stream. Raises _Stopped."""
        self._publish_what_was_left()
        messages = read_ranges(self._run.settings, self._offsets.unread())
        self._measure_at_points()
        while chunk := self._take(messages):
            self._apply(chunk)
            self._measure_at_points()
        self._offsets.skip_to_ends()
        self._drain()
        self._measure_at_points()
        self._finish()

    def _publish_what_was_left(self) -> None:
        """The outputs that an earlier session stored and may not have published."""
        for batch in self._aligner.pending():
            self._publisher.publish(batch)

    def _measure_at_points(self) -> None:
        """Adds the points that the position has reached to the timeline, each with the backlog drained."""
        while self._next_point is not None and self._offsets.position >= self._next_point:
            self._drain()
            point = measure(self._aligner, self._links, self._offsets.position, self._progress.time)
            self._timeline.add(point)

    @property
    def _next_point(self) -> int | None:
        """The position of the next point, None after the last one."""
        done = len(self._timeline.points)
        return self._points[done] if done < len(self._points) else None

    def _take(self, messages: Iterator[Message]) -> list[Message]:
        """The next batch, which ends at the next point at the latest; empty at the end of the stream."""
        if self._stopped():
            raise _Stopped
        chunk: list[Message] = []
        for message in messages:
            chunk.append(message)
            self._offsets.advance(message.cause)
            is_full = len(chunk) == self._run.settings.align.batch_size
            if is_full or (self._next_point is not None and self._offsets.position >= self._next_point):
                break
        return chunk

    def _apply(self, chunk: Sequence[Message]) -> None:
        # Saved before the outcome is stored: the point that this batch may reach is dated by it.
        self._progress.time = chunk[-1].timestamp
        self._save_progress()
        self._process(chunk)

    def _drain(self) -> None:
        """Works until nothing waits."""
        while self._aligner.backlog:
            if self._stopped():
                raise _Stopped
            self._process([])

    def _process(self, messages: Sequence[Message]) -> None:
        batch = self._aligner.process(messages, bulk=True)
        self._publisher.publish(batch)
        now = time.monotonic()
        self._progress.counts += batch.counts
        self._progress.seconds += now - self._since
        self._since = now
        self._save_progress()
        self._show(self._offsets.position, self._progress, batch.backlog)

    def _finish(self) -> None:
        if not self._progress.finished:
            self._progress.finished = True
            self._save_progress()

    def _save_progress(self) -> None:
        self._run.save("progress.json", self._progress)


class _Offsets:
    """The next offset of each partition of a plan, at first the one after what the aligner has applied."""

    def __init__(self, ranges: Sequence[Range], aligner: Aligner) -> None:
        self._ranges = ranges
        self._next = {
            (part.topic, part.partition): aligner.origin.next_offset(part.topic, part.partition) or part.start
            for part in ranges
        }

    @property
    def position(self) -> int:
        """How many offsets of the plan are done, of all partitions together."""
        return sum(
            min(self._next[part.topic, part.partition], part.end) - part.start for part in self._ranges
        )

    def unread(self) -> list[Range]:
        """What is left of each range."""
        return [
            msgspec.structs.replace(part, start=self._next[part.topic, part.partition])
            for part in self._ranges
        ]

    def advance(self, read: Cause) -> None:
        """The message that stood there is read."""
        self._next[read.topic, read.partition] = read.offset + 1

    def skip_to_ends(self) -> None:
        """All messages are read; the offsets that are missing before the ends were compacted away."""
        for part in self._ranges:
            self._next[part.topic, part.partition] = part.end


def _points(plan: Plan, links: Sequence[LinkPair]) -> list[int]:
    """The positions at which the alignments are measured; none without the links that the plan has."""
    if not links or digest(links) != plan.links:
        return []
    return [-(-plan.messages * number // POINTS) for number in range(1, POINTS + 1)]


class _Publisher:
    """Step 11 for a run: publishes outputs into its topics, then empties the outbox."""

    def __init__(self, settings: Settings, aligner: Aligner) -> None:
        self._topics = settings.topics
        self._aligner = aligner
        self._producer = connect(
            settings.kafka,
            lambda options: KafkaProducer(
                **options,
                acks="all",
                compression_type=settings.kafka.codec,
                max_request_size=MAX_MESSAGE_BYTES,
            ),
        )

    def __enter__(self) -> "_Publisher":
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close(timeout=5)

    def publish(self, batch: Batch) -> None:
        """Returns when everything is acknowledged. Raises BrokerError."""
        try:
            sent = [self._send(output) for output in batch.outputs]
            if sent:
                self._producer.flush(timeout=DELIVERY_SECONDS)
            for future in sent:
                future.get(0)
        except KafkaError as error:
            raise BrokerError(
                f"writing to {PREFIX}.* failed: {type(error).__name__}: {error}; the same command continues"
            ) from error
        self._aligner.published(batch.sequence)

    def _send(self, output: Output) -> Any:
        topic, output = getattr(self._topics, output.kind), shortened(output)
        return self._producer.send(topic, key=output.key, value=output.value, headers=output.headers)
