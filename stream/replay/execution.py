"""Replay: the topics once more, through an aligner of its own, into topics of its own.

A run is a directory beside the worker's state: `run.json` is its plan, fixed when it starts; `state` is an
aligner's state, which knows what was read; `timeline.jsonl` grows by a point whenever a share of the stream
is done and drained; `progress.json` counts. Whatever ends a run, the same command goes on with it, and the
outcome is that of an undisturbed run: alignments are a function of the graph, and so are the points.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from index.errors import StateError
from stream.broker.connection import client_options
from stream.broker.limits import MAX_MESSAGE_BYTES, shortened
from stream.broker.ranges import read_ranges
from stream.broker.reading import read_bounds
from stream.broker.topics import ensure_topics, output_specs
from stream.changes import Decoder
from stream.config import Settings
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch, Output
from stream.errors import BrokerError
from stream.events import Message
from stream.learning.known_links import LinkPair
from stream.replay.run import PREFIX, Plan, Progress, Run, digest
from stream.replay.timeline import POINTS, measure

DELIVERY_SECONDS: Final = 60.0


def execute(
    run: Run,
    plan: Plan,
    checkpoint: Path,
    decode: Decoder,
    links: Sequence[LinkPair],
    stopped: Callable[[], bool],
    show: Callable[[int, Progress, int], None],
) -> Aligner | None:
    """Starts a run or goes on with it.

    Args:
        checkpoint: the directory of the plan's model.
        links: to measure the alignments against while the stream goes by.
        stopped: asked between batches whether to end early.
        show: told the position in the stream, the counts, and how many entities wait.

    Returns:
        The aligner, drained, open, and to be closed; None when `stopped` ended it early.

    Raises:
        StateError: another process executes this run, or its directory cannot be used.
        BrokerError: reading or writing failed; the same command goes on later.
    """
    with run.refusals():
        run.home.mkdir(parents=True, exist_ok=True)
    aligner = Aligner(
        run.settings.state.dir,
        checkpoint,
        decode,
        one_to_one=plan.one_to_one,
        threshold=plan.threshold,
        search=plan.search,
    )
    try:
        if run.plan is None:
            _claim_topics(run)
            run.save("run.json", plan)
        if _work(run, plan, aligner, links, stopped, show):
            return aligner
    except BaseException:
        aligner.close()
        raise
    aligner.close()
    return None


def _claim_topics(run: Run) -> None:
    """The output topics have to be empty, or they would tell of two runs at once."""
    specs = output_specs(run.settings)
    counts = ensure_topics(run.settings, specs)
    partitions = [(topic, number) for topic, count in counts.items() for number in range(count)]
    used = {tp.topic for tp, (_, end) in read_bounds(run.settings, partitions).items() if end > 0}
    if used:
        raise StateError(
            f"{', '.join(sorted(used))} has records of another run named {run.name}, whose state is not in "
            f"{run.home}; take another --run, or delete these topics with `sameas replay remove {run.name}`"
        )


def _work(
    run: Run,
    plan: Plan,
    aligner: Aligner,
    links: Sequence[LinkPair],
    stopped: Callable[[], bool],
    show: Callable[[int, Progress, int], None],
) -> bool:
    """Whether it came to the end."""
    progress, timeline, since = run.progress, run.timeline, time.monotonic()
    places = {(part.topic, part.partition): part for part in plan.ranges}
    done = {place: aligner.next_offset(*place) or part.start for place, part in places.items()}

    def position() -> int:
        return sum(min(done[place], part.end) - part.start for place, part in places.items())

    def account(batch: Batch) -> None:
        nonlocal since
        progress.counts += batch.counts
        progress.seconds, since = progress.seconds + time.monotonic() - since, time.monotonic()
        run.save("progress.json", progress)
        show(position(), progress, batch.backlog)

    def drain(backlog: int) -> bool:
        while backlog and not stopped():
            batch = aligner.process([], bulk=True)
            publisher.publish(batch)
            backlog = batch.backlog
            account(batch)
        return not backlog

    with _Publisher(run.settings, aligner) as publisher:
        for batch in aligner.pending():
            publisher.publish(batch)
        points = POINTS if links and digest(links) == plan.links else 0
        targets = [-(-plan.messages * point // points) for point in range(1, points + 1)]
        unread = [msgspec.structs.replace(part, start=done[place]) for place, part in places.items()]
        messages = read_ranges(run.settings, unread)
        while True:
            while len(timeline.points) < points and position() >= targets[len(timeline.points)]:
                if not drain(aligner.backlog):
                    return False
                timeline.add(measure(aligner, links, position(), progress.time))
            if stopped():
                return False
            target = targets[len(timeline.points)] if len(timeline.points) < points else plan.messages
            chunk = list(_until(messages, done, position, target, run.settings.align.batch_size))
            if not chunk:
                break
            # before the outcome is stored: the point that this batch may reach is dated by it
            progress.time = chunk[-1].timestamp
            run.save("progress.json", progress)
            batch = aligner.process(chunk, bulk=True)
            publisher.publish(batch)
            account(batch)
        for place, part in places.items():
            done[place] = part.end  # what is missing there was compacted away
        if not drain(aligner.backlog):
            return False
        while len(timeline.points) < points:
            timeline.add(measure(aligner, links, position(), progress.time))
    if not progress.finished:
        progress.finished = True
        run.save("progress.json", progress)
    return True


def _until(
    messages: Iterator[Message],
    done: dict[tuple[str, int], int],
    position: Callable[[], int],
    target: int,
    most: int,
) -> Iterator[Message]:
    """The next messages, up to the one that reaches the target."""
    for message in messages:
        done[message.cause.topic, message.cause.partition] = message.cause.offset + 1
        yield message
        most -= 1
        if most == 0 or position() >= target:
            return


class _Publisher:
    """Step 11 for a run: outputs into its topics, then the outbox is forgotten."""

    def __init__(self, settings: Settings, aligner: Aligner) -> None:
        self._topics = settings.topics
        self._aligner = aligner
        self._producer = KafkaProducer(
            **client_options(settings.kafka),
            acks="all",
            compression_type=settings.kafka.codec,
            max_request_size=MAX_MESSAGE_BYTES,
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
                f"writing to {PREFIX}.* failed: {type(error).__name__}: {error}; the same command goes on"
            ) from error
        self._aligner.published(batch.sequence)

    def _send(self, output: Output) -> Any:
        topic, output = getattr(self._topics, output.kind), shortened(output)
        return self._producer.send(topic, key=output.key, value=output.value, headers=output.headers)
