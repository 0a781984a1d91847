"""A real worker on a broker: how fast it catches up, and how long an event takes to its alignment."""

import contextlib
import gc
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaProducer
from kafka.admin import NewTopic

from benchmarks.speed import material
from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.clocks import resident
from benchmarks.speed.load import Ear, delays, paced, sending
from benchmarks.speed.report import Row, goal, number
from benchmarks.synthetic import catalogue, renamed
from index.errors import SameasError
from stream.broker.connection import admin_client
from stream.broker.embedded import embedded_broker
from stream.broker.producing import Record, produce
from stream.broker.topics import ensure_topics
from stream.config import Settings, load_settings
from stream.demo.measuring import percentile
from stream.demo.worker_process import STALL_SECONDS, Status, WorkerProcess, worker_process
from stream.events import EntityEvent, Trigger, Upsert, encode, event_key

GOAL_RATE = 500  # events/s for which there are goals
WARM_SHARE = 0.05  # of the messages, before the clock of the catching up starts
NEW_SHARE = 0.5  # of the events under load are new records, the others change known ones
KEPT_UP_SECONDS = 1.0  # in which the last event has to be applied after it was due
LOOK_SECONDS = 0.05  # between two looks at the worker's figures
PROBES = 400
BARE = "an alignment record and an event for each, from an aligner that does nothing else"
ROLES = ("entities", "links", "alignments", "alignment_events", "dead_letters")


class Load(msgspec.Struct):
    """What came of one rate. Delays in milliseconds, None when nothing was answered."""

    rate: float
    sent: int
    answered: int
    p50: float | None
    p99: float | None
    late: float  # 99 of 100 events were sent no later than so much after they were due
    stored: float  # ... and were in the broker
    behind: float  # seconds from the last due event until all were applied
    drained: float  # ... and nothing waited


class Streamed(msgspec.Struct):
    """What the worker did."""

    entities: int
    rate: float
    cpu: float  # seconds an entity
    resident: int
    bare_rate: float  # events/s of a worker that does nothing with them
    bare_cpu: float  # its seconds an event
    probe: list[float]  # milliseconds from producer to consumer through the broker, without a worker
    loads: list[Load]


class _Event(msgspec.Struct):
    trigger: Trigger


def measure(bench: Bench) -> list[Row]:
    """A worker catches up with everything, then answers under a rising load."""
    chosen = bench.options
    place, rates = bench.new_state(), list(chosen.rates)
    done = in_child(stream, place, bench.model, chosen.n, rates, chosen.seconds, chosen.bootstrap)
    row = partial(Row, "stream")
    broker = "the embedded broker" if chosen.bootstrap is None else chosen.bootstrap
    probe = f"from producer to consumer at {rates[0]:.0f}/s, without a worker"
    rows = [
        row("catching up", done.rate, "entities/s", at_least=2000, note=f"{done.entities:,} in {broker}"),
        row("the worker's CPU", done.cpu * 1e6, "us an entity"),
        row("the worker's memory", done.resident / 2**20, "MiB"),
        row("Faust and the broker alone, catching up", done.bare_rate, "events/s", note=BARE),
        row("their CPU in the worker", done.bare_cpu * 1e6, "us an event"),
        row("the broker alone, p50", percentile(done.probe, 0.5), "ms", note=probe),
        row("the broker alone, p99", percentile(done.probe, 0.99), "ms"),
    ]
    by_rate = {load.rate: load for load in done.loads}
    for rate in rates:
        rows += _delay_rows(rate, by_rate.get(rate), done.loads[-1].rate)
    return rows


def _delay_rows(rate: float, load: Load | None, last: float) -> list[Row]:
    row = partial(Row, "stream", unit="ms")
    p50, p99 = (f"event to alignment, {rate:.0f}/s, {part}" for part in ("p50", "p99"))
    least, most = (goal(30, 50), goal(60, 120)) if rate == GOAL_RATE else (None, None)
    if load is None:
        why = f"not tried: {number(last)}/s was too much"
        return [row(p50, None, at_most=least, note=why), row(p99, None, at_most=most)]
    kept = "kept up" if load.behind <= KEPT_UP_SECONDS else f"did NOT keep up, {load.behind:.1f} s behind"
    answers = f"{load.answered:,} of {load.sent:,} events led to alignments"
    sending = (
        f"sent up to {load.late:.1f} ms late (p99), in the broker after {load.stored:.0f}; "
        f"{load.drained:.1f} s to drain"
    )
    return [
        row(p50, load.p50, at_most=least, note=f"{kept}; {answers}"),
        row(p99, load.p99, at_most=most, note=sending),
    ]


def stream(
    directory: Path, model: Path, size: int, rates: Sequence[float], seconds: float, bootstrap: str | None
) -> Streamed:
    """The whole run: broker, topics, a worker that catches up, and the loads until one is too much."""
    sys.setswitchinterval(0.0005)  # sender and ear are threads; neither should wait long for the other
    directory.mkdir()
    config = directory / "sameas.toml"
    config.touch()
    known, changes = scenario(size, round(sum(rates) * seconds))
    with contextlib.ExitStack() as stack:
        if bootstrap is None:
            bootstrap = stack.enter_context(embedded_broker()).address
        prefix = f"speed-{uuid.uuid4().hex[:8]}"
        overrides = [
            f"kafka.bootstrap_servers={bootstrap}",
            f"kafka.group_id={prefix}",
            "kafka.session_timeout_seconds=6",  # the embedded broker's group joins take half of it
            f"state.dir={directory / 'state'}",
            f"model.dir={model}",
            *(f"topics.{role}={prefix}.{role}" for role in ROLES),
        ]
        settings = load_settings(config, {}, overrides)
        ensure_topics(settings)
        producer = stack.enter_context(sending(settings))
        probe = probed(settings, producer, f"{prefix}.probe", rates[0])
        topic = settings.topics.entities
        total = produce(settings, (Record(topic, event_key(event), encode(event)) for event in known))
        bare = caught_up_bare(directory, config, overrides, total)
        worker = stack.enter_context(worker_process(config, overrides, directory / "worker.log"))
        rate, cpu = caught_up(worker, total)
        done = Streamed(total, rate, cpu, resident(worker.pid), *bare, probe, [])
        for wanted in rates:
            events = list(islice(changes, round(wanted * seconds)))
            done.loads.append(under_load(settings, producer, worker, events, wanted, total))
            total += len(events)
            if done.loads[-1].behind > KEPT_UP_SECONDS:
                break
        return done


def scenario(size: int, changes: int) -> tuple[list[EntityEvent], Iterator[Upsert]]:
    """What is known at first, and endless news: new records as long as there are any, and changes."""
    world = material.world(size)
    left, right = catalogue(world, "left"), catalogue(world, "right")
    hold = min(round(changes * NEW_SHARE), len(right) // 3)
    known = right[: len(right) - hold]
    return list(material.interleaved(left, known)), news(known, right[len(known) :])


def news(known: Sequence[Upsert], new: Sequence[Upsert], seed: int = 0) -> Iterator[Upsert]:
    """New records and known ones with another name in turns; when no new ones are left, only those."""
    chance, misspelling, arrivals = random.Random(seed), np.random.default_rng(seed), iter(new)
    for turn in count():
        event = next(arrivals, None) if turn % 2 == 0 else None
        if event is None:
            event = renamed(chance.choice(known), misspelling)
        yield event


def probed(settings: Settings, producer: KafkaProducer, topic: str, rate: float) -> list[float]:
    """Milliseconds from producer to consumer: twice over, no delay can be shorter."""
    with admin_client(settings.kafka) as admin:
        admin.create_topics([NewTopic(topic, 1, 1)])
    producer.send(topic, value=b"").get(10)  # connected, and it knows the topic
    ear = Ear(settings, topic)
    sent = paced([partial(producer.send, topic, value=b"%d" % number) for number in range(PROBES)], rate)
    producer.flush(timeout=30)
    due = dict(enumerate(sent.due))
    return delays(due, [(int(value), at) for at, value in ear.finish()])


def caught_up(worker: WorkerProcess, messages: int) -> tuple[float, float]:
    """Entities/s and CPU seconds an entity until everything is applied and nothing waits."""
    begun: list[tuple[int, float, float]] = []

    def look(status: Status) -> None:
        if not begun and status.received >= WARM_SHARE * messages:
            begun.append((status.received, time.monotonic(), cpu_seconds(worker.pid)))

    worker.wait_until_done(messages, look)
    first, since, cpu = begun[0]
    entities = max(messages - first, 1)
    return entities / (time.monotonic() - since), (cpu_seconds(worker.pid) - cpu) / entities


def caught_up_bare(
    directory: Path, config: Path, overrides: Sequence[str], messages: int
) -> tuple[float, float]:
    """The same with the same input in a worker whose aligner does nothing, and which has its own outputs."""
    own = f"bare-{uuid.uuid4().hex[:8]}"
    apart = [f"kafka.group_id={own}", *(f"topics.{role}={own}.{role}" for role in ROLES[2:])]
    program = ["-m", "benchmarks.speed.bare_worker"]
    with worker_process(config, [*overrides, *apart], directory / "bare.log", program) as worker:
        return caught_up(worker, messages)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def under_load(
    settings: Settings,
    producer: KafkaProducer,
    worker: WorkerProcess,
    events: Sequence[Upsert],
    rate: float,
    before: int,
) -> Load:
    """Sends the events at this rate and hears what they cause.

    Args:
        before: messages that the worker has received already.
    """
    topic, wanted = settings.topics.entities, before + len(events)
    arrivals: list[float] = []

    def send(event: Upsert) -> Any:
        future = producer.send(topic, key=event_key(event), value=encode(event))
        return future.add_callback(lambda _: arrivals.append(time.monotonic()))  # in order: one partition

    ear = Ear(settings, settings.topics.alignment_events)
    producer.partitions_for(topic)
    gc.freeze()  # or a full collection, .2 s, comes in the middle
    sent = paced([partial(send, event) for event in events], rate)
    _wait_until(lambda: worker.status().received >= wanted)
    behind = time.monotonic() - sent.due[-1]
    worker.wait_until_done(wanted)
    drained = time.monotonic() - sent.due[-1]
    offsets = [future.get(0).offset for future in sent.results]
    decode = msgspec.json.Decoder(_Event).decode
    heard = [(decode(value).trigger, at) for at, value in ear.finish()]
    caused = [(each.cause, at) for each, at in heard if each.kind == "input" and each.cause is not None]
    waits = delays(
        dict(zip(offsets, sent.due, strict=True)),
        [(cause.offset, at) for cause, at in caused if cause.topic == topic],
    )
    p50, p99 = (percentile(waits, share) if waits else None for share in (0.5, 0.99))
    late, stored = (
        percentile([(at - due) * 1000 for at, due in zip(times, sent.due, strict=True)], 0.99)
        for times in (sent.at, arrivals)
    )
    return Load(rate, len(events), len(waits), p50, p99, late, stored, behind, drained)


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STALL_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise SameasError(f"the worker has not applied all events after {STALL_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
