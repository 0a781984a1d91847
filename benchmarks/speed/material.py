"""What is measured on: two synthetic catalogues as a file of messages, and a model that never saw them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.synthetic import OVERLAP, SHARES, World, catalogue, links
from model.training import TrainingOptions
from stream.engine.batches import batched
from stream.events import Cause, EntityEvent, Message
from stream.learning.training import train_model

IN_ONE = (1 + OVERLAP) / 2  # share of a world's entities that one catalogue has
TRAINING_WORLD = 3_000  # entities; other ones than are measured
TRAINING_SEED = 7
TRAINING = TrainingOptions(max_pairs=15_000, max_valid_pairs=5_000, visits=60_000)  # 15 s
TOPIC = "events"


def world(size: int, seed: int = 1) -> World:
    """A world of which each catalogue knows about `size` entities."""
    return World(round(size / IN_ONE), seed)


def train(directory: Path, k: int) -> float:
    """A model for the synthetic catalogues, from links of another world; the seconds that it took."""
    other = World(TRAINING_WORLD, TRAINING_SEED)
    events: list[EntityEvent] = [*catalogue(other, "left"), *catalogue(other, "right")]
    trained = train_model(events, links(other)[::2], directory, k=k, options=TRAINING)
    return trained.report["seconds"]


def write(path: Path, size: int) -> int:
    """Writes both catalogues, interleaved, one canonical event a line; how many entities these are."""
    both = world(size)
    return write_events(path, interleaved(catalogue(both, "left"), catalogue(both, "right")))


def write_held(path: Path, held: Path, films: int, hold: int) -> int:
    """Catalogues, the left one with about so many films; apart from them the last films of the right.

    Returns:
        The films of the left catalogue.
    """
    both = world(round(films / SHARES["film"]))
    left, right = catalogue(both, "left"), catalogue(both, "right")
    new = {event.id for event in [event for event in right if event.type == "film"][-hold:]}
    write_events(path, interleaved(left, [event for event in right if event.id not in new]))
    write_events(held, [event for event in right if event.id in new])
    return sum(event.type == "film" for event in left)


def write_events(path: Path, events: Iterator[EntityEvent] | Sequence[EntityEvent]) -> int:
    """Writes events, one a line; their number."""
    encode, written = msgspec.json.Encoder().encode, 0
    with path.open("wb") as file:
        for event in events:
            file.write(encode(event) + b"\n")
            written += 1
    return written


def interleaved(left: Sequence[EntityEvent], right: Sequence[EntityEvent]) -> Iterator[EntityEvent]:
    """In turns, then the rest of the longer one."""
    shorter = min(len(left), len(right))
    for pair in zip(left[:shorter], right[:shorter], strict=True):
        yield from pair
    yield from left[shorter:]
    yield from right[shorter:]


def read_messages(path: Path, first: int = 0) -> Iterator[Message]:
    """The events of a file as messages from this offset on, read as they are asked for."""
    with path.open("rb") as file:
        for offset, line in enumerate(file, start=first):
            yield Message(Cause(TOPIC, 0, offset), None, line, 0.0)


def batches(path: Path, size: int) -> Iterator[list[Message]]:
    """The messages of a file in micro-batches."""
    return batched(read_messages(path), size)
