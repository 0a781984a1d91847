"""One new record against those that are stored, to the alignment that it causes."""

import shutil
import time
from pathlib import Path

import msgspec

from benchmarks.speed import material
from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.report import Row, goal
from benchmarks.speed.running import drain, step, warm_up
from stream.demo.measuring import percentile
from stream.engine.aligner import Aligner
from stream.mapping.canonical import decode_canonical

FIRST_OFFSET = 10_000_000  # after all that are stored
UNMEASURED = 20  # records at first


class Records(msgspec.Struct):
    """Milliseconds for each measured record; the backlog's is what they left for later, shared out."""

    wall: list[float]
    cpu: list[float]  # of the aligner's thread
    aligned: int  # whose own call put out an alignment
    later: float


def measure(bench: Bench) -> list[Row]:
    """From the call to its outputs in the outbox, synced to disk."""
    stored, state = bench.stored(), bench.new_state()
    shutil.copytree(stored, state)
    times = in_child(one_by_one, bench.held, bench.model, state)
    against = (
        f"against {bench.stored_films:,} of its type; {times.aligned} of {len(times.wall)} led to alignments"
    )
    return [
        Row(
            "record",
            "one record, median",
            percentile(times.wall, 0.5),
            "ms",
            at_most=goal(3, 4),
            note=against,
        ),
        Row("record", "one record, p90", percentile(times.wall, 0.9), "ms"),
        Row("record", "its CPU, median", percentile(times.cpu, 0.5), "ms"),
        Row("record", "its CPU, p90", percentile(times.cpu, 0.9), "ms"),
        Row(
            "record",
            "CPU left for later",
            times.later,
            "ms a record",
            note="others' candidates that it moved",
        ),
    ]


def one_by_one(held: Path, model: Path, state: Path) -> Records:
    """Each record of the file alone."""
    warm_up(model)
    aligner = Aligner(state, model, decode_canonical)
    messages = list(material.read_messages(held, FIRST_OFFSET))
    for message in messages[:UNMEASURED]:
        step(aligner, [message])
    drain(aligner)
    times = Records([], [], 0, 0.0)
    for message in messages[UNMEASURED:]:
        wall, cpu = time.perf_counter(), time.thread_time()
        batch = step(aligner, [message])
        times.wall.append((time.perf_counter() - wall) * 1e3)
        times.cpu.append((time.thread_time() - cpu) * 1e3)
        times.aligned += any(output.kind == "alignments" for output in batch.outputs)
    cpu = time.thread_time()
    drain(aligner)
    times.later = (time.thread_time() - cpu) * 1e3 / len(times.wall)
    return times
