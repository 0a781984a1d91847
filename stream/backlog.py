"""Work that may wait, and survives a crash: entities to evaluate, hubs to look through, pairs to score.

What a message changes is done at once; what that makes stale elsewhere waits here, so that a hub does not
stall the stream and many changes cost one re-evaluation. The newest are served first.

Invariant: an entity with waiting work has a key in the store. For an entity to be evaluated the value is the
neighbourhood vector in force, which the lists and scores still rest on. Which of an entity's pairs wait is
known in memory only: after a restart all of them do.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from index import store as tables
from index.candidates import Pairs
from index.graph import node_key
from index.store import Store
from stream.nodes import NodeTable
from stream.retrieval import Found, SourcePair


class Backlog:
    """Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.entities: dict[int, bytes] = {
            int.from_bytes(key[1:], "big"): value for key, value in store.scan(tables.QUEUE)
        }
        # The lists were restored as they should be, the scores of these were not.
        self.unsure = {int.from_bytes(key[1:], "big") for key, _ in store.scan(tables.WAITING)}
        self.unsure |= self.entities.keys()
        self._hubs: dict[int, bytes] = {
            int.from_bytes(key[1:], "big"): value for key, value in store.scan(tables.HUBS)
        }
        self._pairs: dict[
            tuple[SourcePair, int], set[int]
        ] = {}  # (pair of sources, left slot) -> right slots

    def __len__(self) -> int:
        """Entities that wait for something."""
        unsure = self.unsure - self.entities.keys()
        return len(self.entities) + len(self._pairs) + len(self._hubs) + len(unsure)

    def newest(self, most: int, without: Iterable[int]) -> list[int]:
        """Entities to evaluate now."""
        skipped = set(without)
        waiting = [node for node in reversed(self.entities) if node not in skipped]
        waiting += [node for node in self.unsure if node not in self.entities and node not in skipped]
        return waiting[:most]

    def evaluated(self, nodes: Iterable[int]) -> None:
        """These need no evaluation any more."""
        for node in nodes:
            if self.entities.pop(node, None) is not None:
                self._store.delete(tables.QUEUE + node_key(node))
            if node in self.unsure:
                self.unsure.discard(node)
                self._store.delete(tables.WAITING + node_key(node))

    def evaluate(self, node: int, neighbourhood: bytes) -> None:
        """An entity waits, whose neighbourhood vector in force is this one."""
        if node not in self.entities:
            self.entities[node] = neighbourhood
            self._store.put(tables.QUEUE + node_key(node), neighbourhood)

    def expand(self, hub: int, start: bytes = b"") -> None:
        """A hub waits, whose neighbours from `start` on may be stale; b"" for all of them."""
        self._hubs[hub] = start
        self._store.put(tables.HUBS + node_key(hub), start)

    def next_hub(self) -> tuple[int, bytes] | None:
        """Takes out the newest hub, with where its expansion goes on."""
        if not self._hubs:
            return None
        hub, start = self._hubs.popitem()
        self._store.delete(tables.HUBS + node_key(hub))
        return hub, start

    def score(self, found: Found, table: NodeTable) -> None:
        """Pairs wait."""
        for left, right in zip(found.pairs.left.tolist(), found.pairs.right.tolist(), strict=True):
            key = (found.sources, left)
            if key in self._pairs:
                self._pairs[key].add(right)
            else:
                self._pairs[key] = {right}
                self._store.put(tables.WAITING + node_key(int(table.rows["node"][left])), b"")

    def scored(self, most: int, table: NodeTable) -> Iterator[Found]:
        """Takes out about `most` pairs, to be scored now."""
        taken: dict[SourcePair, list[tuple[int, int]]] = {}
        count = 0
        while self._pairs and count < most:
            (sources, left), rights = self._pairs.popitem()
            taken.setdefault(sources, []).extend((left, right) for right in rights)
            count += len(rights)
            node = int(table.rows["node"][left])
            if node not in self.unsure:
                self._store.delete(tables.WAITING + node_key(node))
        for sources, pairs in taken.items():
            columns = np.array(pairs, np.int32).reshape(-1, 2)
            yield Found(sources, Pairs(columns[:, 0], columns[:, 1]))
