"""The aligner alone: messages in, outputs out, until nothing waits; then what is left is opened again."""

import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.speed import material
from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.clocks import Part, Stages, disk, now, resident, stage_cpu
from benchmarks.speed.report import Row, goal
from benchmarks.speed.running import BULK, rocksdb_memory, step, warm_up
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch, Search
from stream.events import Message
from stream.mapping.canonical import decode_canonical

PARTS = 10  # of the feed, each a bar in the picture
GROWTH_FROM = 50_000  # entities; the issue compares the speed there with the speed at a million
SMALL_SECONDS = 30.0  # of a long run between two small ones, since the machine's speed drifts meanwhile

_never_closed: list[Aligner] = []  # what it leaves on the disk is then what a kill leaves


class Engine(msgspec.Struct):
    """What one run did. Bytes and seconds."""

    entities: int
    parts: list[Part]  # of the feed, then the backlog's
    growth: float | None  # entities/s of the last stretch over those of the first; None: too few for that
    growth_from: int
    backlog: int  # when everything was fed
    scored: int  # pairs
    evaluations: int
    records: int
    resident: int  # beyond the warm start, caches included
    caches: int  # of RocksDB, filled
    disk: int
    decode: float  # seconds of CPU to decode all messages and do nothing with them
    small: list[float]  # entities/s of the small runs meanwhile

    @property
    def cpu(self) -> float:
        """Seconds, of the whole process."""
        return sum(part.cpu for part in self.parts)

    @property
    def throughput(self) -> float:
        """Entities/s."""
        return self.entities / sum(part.wall for part in self.parts)


def measure(bench: Bench) -> list[Row]:
    """Each batch answered at once: throughput, where the time goes and how it grows."""
    run, rows = _run(bench, "engine", bench.options.batch, bulk=False)
    bench.parts = run.parts
    n, row, first = run.entities, partial(Row, "engine"), run.growth_from
    fed = sum(part.wall for part in run.parts[:-1])
    decoding = f"msgspec decodes in {run.decode / n * 1e6:.2g} us an event"
    stretch = f"the last {first:,} against those from {first:,} to {2 * first:,}"
    return [
        *rows,
        row("while feeding", n / fed, "entities/s", note=f"{run.backlog:,} entities wait at its end"),
        row("CPU over bare decoding", run.cpu / run.decode, "times", note=decoding),
        row("growth", run.growth, "of the first entities/s", at_least=0.7, note=stretch),
    ]


def measure_bulk(bench: Bench) -> list[Row]:
    """As a worker that is behind does it, or `align`: throughput, and how long a start takes."""
    run, rows = _run(bench, "bulk", BULK, bulk=True)
    if run.small:
        growth, few = run.throughput / statistics.mean(run.small), f"of the entities/s of {GROWTH_FROM:,}"
        meanwhile = f"these made {', '.join(f'{rate:,.0f}' for rate in run.small)} in turns with this run"
        rows.append(Row("bulk", "growth", growth, few, at_least=0.7, note=meanwhile))
    return rows


def _run(bench: Bench, group: str, batch: int, *, bulk: bool) -> tuple[Engine, list[Row]]:
    state, search = bench.new_state(), bench.options.search
    small = bench.small(GROWTH_FROM) if bulk and bench.entities >= 10 * GROWTH_FROM else None
    run = in_child(
        feed, bench.events, bench.entities, bench.model, state, batch, search, bulk=bulk, small=small
    )
    killed = in_child(open_state, bench.model, state, search)
    orderly = in_child(open_state, bench.model, state, search)
    n, row = run.entities, partial(Row, group)
    how = f"2 x {n // 2:,}, k={bench.options.k} in each view, batches of {batch:,}, until nothing waits"
    beyond = (
        f"{run.resident / 2**20:,.0f} MiB more than when warm and empty, "
        f"less {run.caches / 2**20:,.0f} MiB in RocksDB's caches"
    )
    rows = [
        row("throughput", run.throughput, "entities/s", at_least=goal(4000, 3000), note=how),
        row("CPU", run.cpu / n * 1e6, "us an entity", at_most=350),
        row("pairs scored", run.scored / n, "an entity"),
        row("evaluations", run.evaluations / n, "an entity"),
        row("alignments", run.records, "in force at the end"),
        row("resident memory", (run.resident - run.caches) / n, "B an entity", at_most=600, note=beyond),
        row("disk", run.disk / n, "B an entity", at_most=400),
        row("start after a kill", killed, "s", at_most=60, note=f"{n:,} entities"),
        row("start after an orderly end", orderly, "s", at_most=60, note=f"{n:,} entities"),
    ]
    return run, rows


def feed(
    events: Path,
    entities: int,
    model: Path,
    state: Path,
    batch: int,
    search: Search = "exact",
    *,
    bulk: bool = False,
    small: Path | None = None,
) -> Engine:
    """Feeds a file of events into a new state and works off the backlog. Does not close the state.

    Args:
        bulk: as a worker that is behind all the time.
        small: `GROWTH_FROM` events. Every now and then this run waits for one of these in a process of its
            own: how fast the machine is then is known.
    """
    warm_up(model)
    aligner = Aligner(state, model, decode_canonical, search=search)
    _never_closed.append(aligner)
    resident_before = resident()
    parts: list[Part] = []
    done = 0
    small_runs: list[float] = []
    times: list[tuple[int, float]] = [(0, 0.0)]  # entities done at wall seconds

    def advance(messages: list[Message], *, bulk: bool) -> None:
        meter.add(step(aligner, messages, bulk=bulk))
        if small is not None and meter.wall > SMALL_SECONDS * (len(small_runs) + 1):
            with meter.stopped():
                small_runs.append(_small_run(small, model, state.with_name("small"), batch, bulk=bulk))

    with stage_cpu() as cpu:
        meter = _Meter(cpu)
        for messages in material.batches(events, batch):
            advance(messages, bulk=bulk)
            done += len(messages)
            times.append((done, meter.wall))
            if done >= entities * (len(parts) + 1) / PARTS:
                parts.append(meter.part(f"{done:,}", done - sum(part.entities for part in parts)))
        backlog = aligner.backlog
        while aligner.backlog:
            advance([], bulk=True)  # as a worker does that gets no messages
        parts.append(meter.part("backlog", 0))
    first = min(GROWTH_FROM, entities // 10)
    return Engine(
        entities=done,
        parts=parts,
        growth=_rate(times, done - first, done) / _rate(times, first, 2 * first)
        if first > 3 * batch
        else None,
        growth_from=first,
        backlog=backlog,
        scored=aligner._parts.scoring.scored,
        evaluations=aligner.evaluations,
        records=sum(1 for _ in aligner.records()),
        resident=resident() - resident_before,
        caches=rocksdb_memory(aligner),
        disk=disk(state),
        decode=_decoding(events),
        small=small_runs,
    )


def _small_run(events: Path, model: Path, state: Path, batch: int, *, bulk: bool) -> float:
    """Entities/s."""
    run = in_child(feed, events, GROWTH_FROM, model, state, batch, bulk=bulk)
    shutil.rmtree(state)
    return run.throughput


def open_state(model: Path, state: Path, search: Search) -> float:
    """Seconds to open a state, then closed in an orderly way."""
    warm_up(model)
    started = time.perf_counter()
    aligner = Aligner(state, model, decode_canonical, search=search)
    seconds = time.perf_counter() - started
    aligner.close()
    return seconds


class _Meter:
    """Times stretches of a run."""

    def __init__(self, cpu: Stages) -> None:
        self._cpu = cpu  # grows by itself
        self._cpu_before: Stages = {}
        self._wall: Stages = {}
        self._begun = self._last = now()

    @property
    def wall(self) -> float:
        """Seconds since the start."""
        return (now() - self._begun).wall

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens meanwhile takes no time on the wall."""
        before = now().wall
        yield
        waited = now().wall - before
        self._begun, self._last = self._begun.later(waited), self._last.later(waited)

    def add(self, batch: Batch) -> None:
        for stage, seconds in batch.stages.items():
            self._wall[stage] = self._wall.get(stage, 0.0) + seconds

    def part(self, name: str, entities: int) -> Part:
        """What was done since the last call."""
        at = now()
        spent = at - self._last
        stages = {name: total - self._cpu_before.get(name, 0.0) for name, total in self._cpu.items()}
        stages["other threads"] = max(0.0, spent.cpu - sum(stages.values()))
        part = Part(name, entities, spent.wall, spent.cpu, stages, self._wall)
        self._last, self._cpu_before, self._wall = at, dict(self._cpu), {}
        return part


def _rate(times: list[tuple[int, float]], first: int, last: int) -> float:
    """Entities a second between two numbers of entities done."""
    begin = min(times, key=lambda at: abs(at[0] - first))
    end = min(times, key=lambda at: abs(at[0] - last))
    return (end[0] - begin[0]) / max(end[1] - begin[1], 1e-9)


def _decoding(events: Path) -> float:
    def decoded() -> Iterator[None]:
        for message in material.read_messages(events):
            decode_canonical(message)
            yield

    started = time.process_time()
    for _ in decoded():
        pass
    return time.process_time() - started
