"""`sameas` on the same records: `align` over everything, and one record at a time."""

import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.peers import movies
from benchmarks.quality.datasets import read_dataset
from benchmarks.speed import material
from benchmarks.speed.child import in_child
from benchmarks.speed.running import drain, step, store, warm_up
from stream.engine.aligner import Aligner
from stream.events import Cause, EntityEvent, Message
from stream.learning.alignment import align
from stream.learning.training import train_model
from stream.mapping.canonical import decode_canonical


class Figures(msgspec.Struct):
    """What every peer reports."""

    batch_seconds: float
    records: int
    f1: float | None  # None: not everything was matched
    single_ms: list[float]
    single_hits: float
    note: str = ""


def measure(data: Path, k: int) -> Figures:
    """Trains, aligns and matches single records, each in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="sameas-peers-") as name:
        directory = Path(name)
        model, state = directory / "model", directory / "state"
        training = in_child(train, data, model, k)
        whole = in_child(batch, data, model)
        in_child(stored, data, model, state)
        times, hits = in_child(singles, data, model, state)
        shutil.rmtree(state)
    seconds, found, entities = whole
    note = (
        f"k={k} in each view; {entities:,} entities with the people; training took {training:.0f} s besides"
    )
    return Figures(seconds, sum(map(len, movies.read(data))), found, times, hits, note)


def train(data: Path, model: Path, k: int) -> float:
    """From the training links; the seconds that it took, retrieval included."""
    dataset, started = read_dataset("movies", data), time.monotonic()
    train_model(dataset.events, dataset.links["train"], model, valid=dataset.links["valid"], k=k)
    return time.monotonic() - started


def batch(data: Path, model: Path) -> tuple[float, float, int]:
    """Seconds of `align` over everything, F1 at the model's threshold, and the number of entities."""
    events = read_dataset("movies", data).events
    warm_up(model)
    started = time.perf_counter()
    records = align(events, model)
    seconds = time.perf_counter() - started
    matched = {record.subject_id: (record.object_id, record.confidence) for record in records}
    return seconds, movies.f1(matched, movies.links(data, "test"), 0.0), len(events)


def stored(data: Path, model: Path, state: Path) -> None:
    """Everything but the films that come one at a time."""
    held = set(movies.held_out(data))
    events = [event for event in read_dataset("movies", data).events if _name(event) not in held]
    path = state.with_suffix(".jsonl")
    material.write_events(path, events)
    store(path, model, state)


def singles(data: Path, model: Path, state: Path) -> tuple[list[float], float]:
    """Milliseconds of each film alone, and the share that was aligned to the linked one at once."""
    events = {_name(event): event for event in read_dataset("movies", data).events}
    gold = movies.links(data, "test")
    aligner = Aligner(state, model, decode_canonical)
    encode = msgspec.json.Encoder().encode
    times, hits = [], 0
    for number, name in enumerate(movies.held_out(data)):
        message = Message(Cause("singles", 0, number), None, encode(events[name]), 0.0)
        started = time.perf_counter()
        outputs = step(aligner, [message]).outputs
        elapsed = time.perf_counter() - started
        if number == 0:
            drain(aligner)
            continue
        times.append(elapsed * 1e3)
        keys = {output.key for output in outputs if output.kind == "alignments" and output.value is not None}
        hits += f"{name}|{gold[name]}".encode() in keys
    return times, hits / len(times)


def _name(event: EntityEvent) -> str:
    return f"{event.source}:{event.id}"
