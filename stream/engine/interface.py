"""What goes into the aligner and comes out of it: the seam between it and what brings messages.

A module of its own, so that what only passes outputs on need not import the model.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from stream.console import printable
from stream.engine.origin import Origin
from stream.events import Message

# Where candidates are looked for: among all, or among those that share cells (`index/search/cells.py`).
Search = Literal["exact", "cells"]
MAX_CANDIDATES: Final = 100  # nearest neighbours of an entity in a view that are candidates

# What of the evidence stands in records: all of it; names and ids without values; nothing.
EvidenceDetail = Literal["full", "ids", "none"]

TRUNCATED: Final = "truncated_from_bytes"  # header of a dead letter of which a part was left out
RETRY_OF: Final = "retry_of"  # header of a letter whose message was a retry: "partition:offset" of the first
RelationName = tuple[str, str]  # source and name
TypeName = tuple[str, str]  # source and type
OutputKind = Literal["alignments", "alignment_events", "dead_letters"]


class Output(msgspec.Struct, frozen=True, array_like=True):
    """One record to publish; `kind` names the topic in the settings."""

    kind: OutputKind
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = []
    partition: int | None = None  # where it is to go, if not where its key belongs


class Counts(msgspec.Struct):
    """received = applied + stale + dead_lettered, whatever happens."""

    received: int = 0
    applied: int = 0
    stale: int = 0
    dead_lettered: int = 0
    absent: int = (
        0  # deletions of what never came: their messages are stale, unless they bring something, too
    )
    first_absent: str = ""  # what the first of these named, and where it stands
    unread: int = 0  # filled cells that a path or a type could not read
    first_unread: str = ""
    replaced: int = 0  # rows in the place of which the row of another table came, with the same key
    first_replaced: str = ""  # the first of them

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.received + other.received,
            self.applied + other.applied,
            self.stale + other.stale,
            self.dead_lettered + other.dead_lettered,
            self.absent + other.absent,
            self.first_absent or other.first_absent,
            self.unread + other.unread,
            self.first_unread or other.first_unread,
            self.replaced + other.replaced,
            self.first_replaced or other.first_replaced,
        )

    @property
    def remark(self) -> str:
        """What people are told beside the numbers; empty if there is nothing."""
        remark = ""
        if self.absent:
            deletes = "1 deletion of" if self.absent == 1 else f"{self.absent} deletions of"
            remark += f"; {deletes} what never came, first {printable(self.first_absent)}"
        if self.unread:
            cells = "1 filled cell" if self.unread == 1 else f"{self.unread} filled cells"
            remark += f"; {cells} not read, first {printable(self.first_unread)}"
        if self.replaced:
            rows = "1 row" if self.replaced == 1 else f"{self.replaced} rows"
            remark += f"; {rows} replaced by a row of another table, first {printable(self.first_replaced)}"
        return remark


class Batch(msgspec.Struct, frozen=True):
    """What one call of `process` did. Its outputs are also in the store until `published`."""

    sequence: int
    outputs: list[Output]
    backlog: int  # entities that wait for something; process([]) works on them
    topics: dict[str, Counts] = {}  # what became of the messages, by the topic that they came from
    stages: dict[str, float] = {}  # seconds
    evaluations: int = 0  # entities whose neighbourhood and candidates were looked at, again or not
    searched: int = 0  # vectors of the largest type, among which exact search looks for candidates
    vectors: int = 0  # in all indexes
    reloads: int = 0  # of the state, after processing failed
    is_gathered: bool = False  # messages of a bulk have no outcome yet

    @property
    def counts(self) -> Counts:
        """Of all topics together."""
        return sum(self.topics.values(), Counts())


class Dangling(NamedTuple):
    """How much leads to entities that do not exist, of a graph that may have changed while it was counted.

    And how many entities there are at the end of it.
    """

    targets: Mapping[RelationName, int]  # distinct ones of each relation
    verdicts: int  # which will be in force when both entities exist
    entities: Mapping[TypeName, int] = {}

    @property
    def lone_types(self) -> list[TypeName]:
        """The types that no other source has; none while there is only one source."""
        sources = defaultdict(set)
        for source, kind in self.entities:
            sources[kind].add(source)
        if len({source for source, _ in self.entities}) < 2:
            return []
        return sorted(name for name in self.entities if len(sources[name[1]]) < 2)


class Laps:
    """How long each stage of a batch takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._at = time.perf_counter()

    def end(self, stage: str) -> None:
        """What was done since the last call belongs to this stage."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._at
        self._at = now


class MessageProcessor(Protocol):
    """What a worker needs of the aligner. One thread owns it."""

    def pending(self) -> Iterable[Batch]:
        """Batches that were stored but not confirmed as published: what a crash left. Publish them first."""

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        """Steps 1 to 10 for a micro-batch, in the order given. An empty one works on the backlog.

        Args:
            bulk: this batch in particular is not awaited; throughput goes before delay.
        """

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        """Everything up to this batch is in the broker; its outbox may be forgotten.

        Args:
            ends: where each partition of the alignment topic ends after that, to be told by `published_ends`.
        """

    def published_ends(self) -> Mapping[int, int]:
        """Where the partitions of the alignment topic ended when that was said last."""

    @property
    def origin(self) -> Origin:
        """Which messages the state was made of."""

    def records(self) -> Iterable[tuple[bytes, bytes]]:
        """Key and value of every alignment record in force."""

    def recall(self) -> Mapping[str, float]:
        """By view the share of the nearest that an exhaustive search finds which are candidates; a sample."""

    def dangling(self) -> Dangling | None:
        """Looks through a piece of the graph; None until it is through, when it gives what it has found."""

    def close(self) -> None:
        """Flushes and releases the state directory."""
