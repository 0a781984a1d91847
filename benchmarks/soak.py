"""A long run over a graph that does not grow: does memory stay, and does the speed?

    python -m benchmarks.soak [--seconds 1800] [-n ENTITIES] [--json FILE]

Upserts, changed names and deletes of a fixed set of entities go through the aligner without Kafka, each batch
until nothing waits. A line a minute says entities/s and memory. The exit status is 1 when memory after the
first fifth of the time grew by more than a bound, or the last fifth was slower than .8 of the first.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.speed import material
from benchmarks.speed.child import in_child
from benchmarks.speed.clocks import disk, now, resident
from benchmarks.speed.report import where
from benchmarks.speed.running import drain, rocksdb_memory, step, store, warm_up
from benchmarks.synthetic import catalogue, renamed
from index.errors import SameasError
from stream.console import start_log, tell
from stream.engine.aligner import Aligner
from stream.events import Cause, Delete, EntityEvent, Message
from stream.mapping.canonical import decode_canonical

SECONDS = 1800.0
N = 2_000  # entities of each catalogue
K = 7
BATCH = 256
DELETES, CHANGES = 0.1, 0.5  # shares of the events; the others bring an entity back as it was
LINES = 10  # at least; a minute each where there is time for more
MOST_GROWTH = 32 << 20  # bytes after the first fifth
LEAST_SPEED = 0.8  # of the first fifth, in the last
TOPIC = "soak"
HEADING = " minutes      events  events/s   us CPU     MiB  caches    disk  aligned"


class Look(msgspec.Struct):
    """A stretch of the run; memory in bytes at its end."""

    seconds: float  # since the start, at the end of the stretch
    events: int
    rate: float  # events/s
    cpu: float  # microseconds an event
    resident: int
    caches: int  # of that in RocksDB's caches, whose size is configured
    disk: int
    alignments: int


class Verdict(msgspec.Struct):
    """What became of memory and speed."""

    growth: int  # bytes, beyond RocksDB's caches, from the end of the first fifth to the most after it
    speed: float  # of the last fifth over that of the first
    passed: bool


def main(arguments: Sequence[str]) -> int:
    """0 when nothing grew and nothing slowed down."""
    start_log()
    parser = argparse.ArgumentParser("benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("-n", type=int, default=N, help="entities of each of the two catalogues")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="sameas-soak-") as directory:
            looks = soak(Path(directory), options.n, options.seconds)
    except SameasError as error:
        tell(f"error: {error}")
        return 1
    result = verdict(looks)
    outcome = "passed" if result.passed else "FAILED"
    print(
        f"{outcome}: memory {result.growth / 2**20:+.1f} MiB after the first fifth (at most "
        f"{MOST_GROWTH / 2**20:.0f}), speed of the last fifth {result.speed:.2f} of the first "
        f"(at least {LEAST_SPEED})"
    )
    if options.json:
        document = {**where(), "verdict": result, "looks": looks}
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return 0 if result.passed else 1


def soak(directory: Path, size: int, seconds: float) -> list[Look]:
    """Runs, and prints a line for each stretch."""
    model, state, events = directory / "model", directory / "state", directory / "events.jsonl"
    in_child(material.train, model, K)
    in_child(material.write, events, size)
    in_child(store, events, model, state)
    warm_up(model)
    aligner = Aligner(state, model, decode_canonical)
    stretch = min(60.0, seconds / LINES)
    looks: list[Look] = []
    messages = as_messages(comings_and_goings(size))
    print(HEADING)
    begun = time.monotonic()
    while not looks or looks[-1].seconds < seconds:
        started, done = now(), 0
        while (now() - started).wall < stretch:
            step(aligner, list(islice(messages, BATCH)))
            drain(aligner)
            done += BATCH
        spent = now() - started
        look = Look(
            seconds=time.monotonic() - begun,
            events=done,
            rate=done / spent.wall,
            cpu=spent.cpu / done * 1e6,
            resident=resident(),
            caches=rocksdb_memory(aligner),
            disk=disk(state),
            alignments=sum(1 for _ in aligner.records()),
        )
        looks.append(look)
        print(line(look, sum(one.events for one in looks)), flush=True)
    aligner.close()
    return looks


def line(look: Look, events: int) -> str:
    """A stretch as people read it, with the events since the start."""
    megabytes = " ".join(f"{size / 2**20:>7.1f}" for size in (look.resident, look.caches, look.disk))
    speed = f"{look.rate:>9,.0f} {look.cpu:>8,.0f}"
    return f"{look.seconds / 60:>8.1f} {events:>11,} {speed} {megabytes} {look.alignments:>8,}"


def comings_and_goings(size: int) -> Iterator[EntityEvent]:
    """Without end: entities of both catalogues change their names, go, and come back as they were."""
    world, chance, misspelling = material.world(size), random.Random(0), np.random.default_rng(0)
    entities = [*catalogue(world, "left"), *catalogue(world, "right")]
    while True:
        entity, what = chance.choice(entities), chance.random()
        if what < DELETES:
            yield Delete(entity.source, entity.id)
        elif what < DELETES + CHANGES:
            yield renamed(entity, misspelling)
        else:
            yield entity


def as_messages(events: Iterator[EntityEvent]) -> Iterator[Message]:
    """In one partition, from offset 0 on."""
    encode = msgspec.json.Encoder().encode
    for offset, event in zip(count(), events, strict=False):
        yield Message(Cause(TOPIC, 0, offset), None, encode(event), 0.0)


def verdict(looks: Sequence[Look]) -> Verdict:
    """Compares what came after the first fifth of the stretches, and the last fifth, with the first."""
    fifth = max(1, len(looks) // 5)
    first, later = looks[:fifth], looks[fifth:] or looks[-1:]
    own = [look.resident - look.caches for look in later]
    growth = max(own) - (first[-1].resident - first[-1].caches)
    speed = _mean_rate(looks[-fifth:]) / _mean_rate(first)
    return Verdict(growth, speed, growth <= MOST_GROWTH and speed >= LEAST_SPEED)


def _mean_rate(looks: Sequence[Look]) -> float:
    return sum(look.events for look in looks) / sum(look.events / look.rate for look in looks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
