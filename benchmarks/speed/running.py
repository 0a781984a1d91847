"""An aligner without Kafka, driven from files."""

import tempfile
from pathlib import Path

from benchmarks.speed import material
from benchmarks.synthetic import catalogue
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch
from stream.events import Message
from stream.mapping.canonical import decode_canonical

WARM_UP = 300  # entities of each catalogue, before a clock starts: code is compiled when it is first used
BULK = 2048  # messages in a batch where only the outcome counts


def step(aligner: Aligner, messages: list[Message], *, bulk: bool = False) -> Batch:
    """One micro-batch, confirmed as published."""
    batch = aligner.process(messages, bulk=bulk)
    aligner.published(batch.sequence)
    return batch


def drain(aligner: Aligner) -> None:
    """Until nothing waits, as a worker does that gets no messages."""
    while aligner.backlog:
        step(aligner, [], bulk=True)


def store(events: Path, model: Path, state: Path) -> None:
    """A new state with these events, closed in an orderly way."""
    aligner = Aligner(state, model, decode_canonical)
    for messages in material.batches(events, BULK):
        step(aligner, messages, bulk=True)
    drain(aligner)
    aligner.close()


def warm_up(model: Path) -> None:
    """Compiles and loads everything that a run uses."""
    world = material.world(WARM_UP, seed=2)
    with tempfile.TemporaryDirectory(prefix="sameas-speed-") as directory:
        events = Path(directory) / "events.jsonl"
        both = (catalogue(world, side) for side in ("left", "right"))
        material.write_events(events, material.interleaved(*both))
        store(events, model, Path(directory) / "state")


def rocksdb_memory(aligner: Aligner) -> int:
    """Bytes in RocksDB's block cache and write buffers, whose sizes are configured."""
    names = ("rocksdb.block-cache-usage", "rocksdb.cur-size-all-mem-tables")
    return sum(aligner._store._db.property_int_value(name) or 0 for name in names)
