"""The way of one event, in twelve steps. (Under construction: the interface below is what the shell relies on.)"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from stream.events import EntityEvent, Link, Message


class LinkChange(msgspec.Struct, frozen=True):
    """A person's verdict on a pair, None when it is taken back."""

    left: str
    right: str
    link: Link | None


# Turns one message into the changes that it means, or raises InvalidInput.
Decoder = Callable[[Message], Sequence[EntityEvent | LinkChange]]

OutputKind = Literal["alignments", "alignment_events", "dead_letters"]


class Output(msgspec.Struct, frozen=True, array_like=True):
    """One record to publish; `kind` names the topic in the settings."""

    kind: OutputKind
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []


class Counts(msgspec.Struct):
    """received = applied + stale + dead_lettered, whatever happens."""

    received: int = 0
    applied: int = 0
    stale: int = 0
    dead_lettered: int = 0


class Batch(msgspec.Struct, frozen=True):
    """What one call of `Aligner.process` did. Its outputs are also in the store until `published`."""

    sequence: int
    outputs: list[Output]
    counts: Counts
    backlog: int  # entities whose re-evaluation waits; process([]) works on them


class Aligner:
    """Applies messages to the local state and says what became of the alignments. Knows nothing of Kafka.

    Not thread-safe: one thread owns it.
    """

    def __init__(self, state: Path, model: Path, decode: Decoder, *, one_to_one: bool = True) -> None:
        """Opens or creates the state directory.

        Raises:
            StateError: in use by another process, corrupt, or written by another schema or model.
            ModelError: no usable checkpoint in `model`.
        """
        raise NotImplementedError

    def pending(self) -> Sequence[Batch]:
        """Batches that were stored but not confirmed as published: what a crash left. Publish them first."""
        raise NotImplementedError

    def process(self, messages: Sequence[Message]) -> Batch:
        """Steps 1 to 10 for a micro-batch, in the order given. An empty batch works on the backlog."""
        raise NotImplementedError

    def published(self, sequence: int) -> None:
        """Everything up to this batch is in the broker; its outbox may be forgotten."""
        raise NotImplementedError

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The offset after the last applied one, None if nothing of this partition was applied."""
        raise NotImplementedError

    def close(self) -> None:
        """Flushes and releases the state directory."""
        raise NotImplementedError
