"""Work that may wait, and survives a crash: entities to evaluate, hubs to look through, pairs to score.

What a message changes is done at once; what that makes stale elsewhere waits here, so that a hub does not
stall the stream and many changes cost one re-evaluation. What messages made stale is served first, the newest
before the older; then what that made stale in its turn, the oldest first, so that the changes of many
neighbours cost one evaluation.

Invariant: an entity with waiting work has a key in the store. For an entity to be evaluated the value is what
of its row is still in force (`Embedding.in_force`), which the lists and scores rest on. Which of an entity's
pairs wait is known in memory only: after a restart all of them do. Keys for pairs go when no pair waits any
more. Which entities wait that have changed themselves is known in memory only, too; the store knows whether
there are any, and then all pairs of all entities are scored again after a restart. It also knows whether a
bulk was gathered since nothing waited last: until then there are messages that have no outcome yet.

What cannot be evaluated is *set aside*: it counts as if it did not exist, until it is tried again.
"""

from collections.abc import Collection, Container, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index import tables
from index.entity import node_key
from index.search.arrays import Pairs, grown, sorted_distinct
from index.store import Store
from stream.engine.node_table import NodeTable
from stream.engine.pairs import FoundPairs, SourcePair

# Arrays of waiting pairs before duplicates are removed: while messages come, and in quiet.
MAX_ARRAYS, FEW_ARRAYS = 128, 16
# An entity that is set aside is tried again when nothing else waits: another one may have been to blame. If
# it fails again it stays aside until it or a neighbour of it changes, or the process is another one.
TO_TRY, TRIED = b"\1", b"\2"
_DEFERRED = tables.META + b"deferred"  # there while entities wait that have changed themselves
_GATHERED = tables.META + b"gathered"  # there from a bulk's first message until nothing waits


class Hub(NamedTuple):
    """A node with many neighbours, some of which have not been looked through yet."""

    node: int
    start: bytes  # where to go on, as `GraphStore.neighbours` takes it


class Backlog:
    """Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.entities: dict[int, bytes] = {
            int.from_bytes(key[1:], "big"): value for key, value in store.scan(tables.QUEUE)
        }
        self._fresh: dict[int, None] = {}  # those that messages made stale, the newest last
        # those whose rows are to be made anew; after a restart these are what was in force
        self._outdated = dict.fromkeys(self.entities)
        # After a restart: entities of which some pairs may wait for their score; which ones is not known.
        self.unsure = {int.from_bytes(key[1:], "big") for key, _ in store.scan(tables.WAITING)}
        self.unsure |= self.entities.keys()
        self.deferred: set[int] = set()  # waiting entities that have changed themselves
        self._lost_deferred = store.get(_DEFERRED) is not None  # a former process had some
        self.is_gathered = store.get(_GATHERED) is not None  # some of it may be from a bulk
        self._hubs: dict[int, bytes] = {
            int.from_bytes(key[1:], "big"): value for key, value in store.scan(tables.HUBS)
        }
        self.aside = {int.from_bytes(key[1:], "big"): value for key, value in store.scan(tables.ASIDE)}
        # left slot << 32 | right slot, in arrays of which the last is the newest; a pair may stand in several
        self._pairs: dict[SourcePair, list[npt.NDArray[np.int64]]] = {}
        self._flagged: dict[int, None] = {}  # nodes with a key for their pairs
        self._is_flagged = np.zeros(0, bool)  # the same by slot

    @property
    def is_doubtful(self) -> bool:
        """After a restart: whether more may be stale than is known to wait.

        It is not known which neighbours of a hub were reached, nor what was in force of them and of entities
        that had changed themselves.
        """
        return bool(self._hubs) or self._lost_deferred

    def doubt(self, nodes: Iterable[int]) -> None:
        """After a restart: marks all pairs of these to be scored again."""
        for node in nodes:
            self.unsure.add(node)
            self._store.put(tables.WAITING + node_key(node), b"")
        self._store.delete(_DEFERRED)

    def __len__(self) -> int:
        """Entities that wait for something."""
        unsure = sum(node not in self.entities for node in self.unsure)
        return len(self.entities) + len(self._flagged) + len(self._hubs) + unsure + len(self.to_try())

    def settle(self, *, gathering: bool) -> int:
        """At the end of a turn: how many entities wait for something.

        Args:
            gathering: whether it was one of a bulk.
        """
        waiting = len(self)
        is_gathered = waiting > 0 and (gathering or self.is_gathered)
        if is_gathered and not self.is_gathered:
            self._store.put(_GATHERED, b"")
        elif self.is_gathered and not is_gathered:
            self._store.delete(_GATHERED)
        self.is_gathered = is_gathered
        return waiting

    @property
    def pairs(self) -> int:
        """Pairs that wait for their score; those that stand twice count twice."""
        return sum(len(array) for arrays in self._pairs.values() for array in arrays)

    @property
    def has_entities(self) -> bool:
        """Whether an entity waits for evaluation."""
        return bool(self.entities or self.unsure)

    def mark(self, node: int, mark: bytes | None) -> None:
        """Sets an entity aside, to be tried when nothing else waits or not any more; None takes it back."""
        if mark is not None:
            self.aside[node] = mark
            self._store.put(tables.ASIDE + node_key(node), mark)
        elif self.aside.pop(node, None) is not None:
            self._store.delete(tables.ASIDE + node_key(node))

    def to_try(self) -> list[int]:
        """Those of the entities that are set aside that are to be tried."""
        return [node for node, mark in self.aside.items() if mark == TO_TRY]

    @property
    def has_outdated(self) -> bool:
        """Whether the row of a waiting entity is to be made anew."""
        return bool(self._outdated)

    def waits(self, node: int) -> bool:
        """Whether this entity or some of its pairs wait."""
        return node in self.entities or node in self.unsure or node in self._flagged

    def next_entities(self, most: int, without: Container[int]) -> list[int]:
        """Up to so many waiting entities to evaluate now, in the order in which they are served."""
        older = (node for node in self.entities if node not in self._fresh)
        unsure = (node for node in self.unsure if node not in self.entities)
        waiting = (node for node in chain(reversed(self._fresh), older, unsure) if node not in without)
        return list(islice(waiting, most))

    def evaluated(self, nodes: Iterable[int]) -> None:
        """These need no evaluation any more."""
        for node in nodes:
            if self.entities.pop(node, None) is not None:
                self._fresh.pop(node, None)
                self._outdated.pop(node, None)
                self._store.delete(tables.QUEUE + node_key(node))
                if node in self.deferred:
                    self.deferred.discard(node)
                    if not self.deferred:
                        self._store.delete(_DEFERRED)
            if node in self.unsure:
                self.unsure.discard(node)
                if node not in self._flagged:
                    self._store.delete(tables.WAITING + node_key(node))
        if not self.entities:  # emptied one by one they would keep their memory
            for waiting in (self.entities, self._fresh, self._outdated, self.deferred):
                waiting.clear()

    def outdated(self, most: int) -> list[int]:
        """Removes and returns waiting entities whose rows are to be made anew, before lists and scores."""
        nodes = list(islice(self._outdated, most))
        for node in nodes:
            del self._outdated[node]
        return nodes

    def outdate(self, nodes: Iterable[int]) -> None:
        """Marks the rows of these waiting entities to be made anew."""
        self._outdated.update(dict.fromkeys(nodes))

    def evaluate(self, node: int, in_force: bytes) -> None:
        """Adds an entity that does not wait yet."""
        self.entities[node] = in_force
        self._store.put(tables.QUEUE + node_key(node), in_force)

    def refresh(self, node: int) -> None:
        """Puts a waiting entity first: a message made it stale (again)."""
        self._fresh.pop(node, None)
        self._fresh[node] = None

    def defer(self, nodes: Collection[int]) -> None:
        """Marks waiting entities that have changed themselves."""
        if nodes:
            self.deferred.update(nodes)
            self._store.put(_DEFERRED, b"")

    def expand(self, hub: int, start: bytes = b"") -> None:
        """Adds a hub whose neighbours from `start` on may be stale; b"" for all of them."""
        self._hubs[hub] = start
        self._store.put(tables.HUBS + node_key(hub), start)

    def next_hub(self) -> Hub | None:
        """Removes the newest waiting hub and returns it; None if no hub waits."""
        if not self._hubs:
            return None
        hub = Hub(*self._hubs.popitem())
        self._store.delete(tables.HUBS + node_key(hub.node))
        return hub

    def score(self, found: FoundPairs, table: NodeTable) -> None:
        """Adds pairs that wait for their score."""
        left, right = found.pairs.left, found.pairs.right
        if not len(left):
            return
        arrays = self._pairs.setdefault(found.sources, [])
        arrays.append(left.astype(np.int64) << 32 | right)
        if len(arrays) > MAX_ARRAYS:
            arrays[:] = [sorted_distinct(arrays)]
        self._is_flagged = grown(self._is_flagged, len(table))
        new = sorted_distinct([left[~self._is_flagged[left]]])  # few of very many
        self._is_flagged[new] = True
        for node in table.rows["node"][new].tolist():
            self._flagged[node] = None
            self._store.put(tables.WAITING + node_key(node), b"")

    def scored(self, most: int, *, distinct: bool) -> Iterator[FoundPairs]:
        """Removes and returns about `most` pairs, to be scored now.

        Args:
            distinct: no pair comes twice, at the price of sorting all that wait.
        """
        while self._pairs and most > 0:
            sources, arrays = next(reversed(self._pairs.items()))
            if len(arrays) > (1 if distinct else FEW_ARRAYS) and (distinct or most >= len(arrays[-1])):
                arrays[:] = [sorted_distinct(arrays)]
            newest = arrays.pop()
            taken, rest = newest[-most:], newest[:-most]
            most -= len(taken)
            if len(rest):
                arrays.append(rest)
            if not arrays:
                del self._pairs[sources]
            yield FoundPairs(
                sources, Pairs((taken >> 32).astype(np.int32), (taken & 0xFFFFFFFF).astype(np.int32))
            )
        if self._flagged and not self._pairs:
            for node in self._flagged:
                if node not in self.unsure:
                    self._store.delete(tables.WAITING + node_key(node))
            self._flagged, self._is_flagged = {}, np.zeros(0, bool)
