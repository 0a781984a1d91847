"""What goes into the aligner and comes out of it: the seam between it and what brings messages.

A module of its own, so that what only passes outputs on need not import the model.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

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


class Oddity(NamedTuple):
    """What may be odd about messages that are accepted. It is counted, and the first of it is told."""

    one: str
    several: str
    first: str  # what is told of the first, which stands for %s


ODDITIES: Final = {
    "absent": Oddity(
        "deletion of what never came",
        "deletions of what never came",
        "a deletion of what never came: %s; further ones are counted. Either the row had come and gone "
        "before its topic was compacted, or deletions have other keys than rows",
    ),
    "unread": Oddity(
        "filled cell not read",
        "filled cells not read",
        "a filled cell is not read: %s; further ones are counted. Correct the path or the type in the "
        "mapping; what the row's entity has of it may be missing",
    ),
    "replaced": Oddity(
        "row replaced by a row of another table",
        "rows replaced by a row of another table",
        "the row of one table takes the place of another's: %s; further ones are counted. Give each table a "
        "topic of its own, or put the table into the keys and the id (`key_columns`)",
    ),
}


class Counts(msgspec.Struct):
    """received = applied + stale + dead_lettered, whatever happens; and each of `ODDITIES` with the first."""

    received: int = 0
    applied: int = 0
    stale: int = 0
    dead_lettered: int = 0
    absent: int = 0  # their messages are stale, unless they bring something, too
    first_absent: str = ""  # what the first of these named, and where it stands
    unread: int = 0
    first_unread: str = ""
    replaced: int = 0
    first_replaced: str = ""

    def __add__(self, other: "Counts") -> "Counts":
        mine, others = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        sums: list[Any] = [a or b if isinstance(a, str) else a + b for a, b in zip(mine, others, strict=True)]
        return Counts(*sums)

    def note(self, name: str, first: str) -> None:
        """One more of an oddity."""
        setattr(self, name, getattr(self, name) + 1)
        if not getattr(self, f"first_{name}"):
            setattr(self, f"first_{name}", first)

    def oddities(self) -> dict[str, tuple[int, str]]:
        """How many there are of each that there is, and the first as text."""
        found = {name: (getattr(self, name), printable(getattr(self, f"first_{name}"))) for name in ODDITIES}
        return {name: (count, first) for name, (count, first) in found.items() if count}

    @property
    def remark(self) -> str:
        """What people are told beside the numbers; empty if there is nothing."""
        return "".join(
            f"; {count} {ODDITIES[name].one if count == 1 else ODDITIES[name].several}, first {first}"
            for name, (count, first) in self.oddities().items()
        )


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
    aside: int = 0  # entities that cannot be evaluated, and count as if they did not exist
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
