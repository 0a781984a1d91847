"""What leads to entities that do not exist: relations and verdicts. Looked for in pieces, beside the work.

The graph has an edge at both ends, so a node with edges and without an entity is a target, or the head of a
join's row, that never came or is gone. Relations are numbers there: their names are found at the other end,
or among the rows of joins.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np

from index import tables
from index.entity import relation_of
from index.graph import EDGE, GraphStore
from index.store import Store
from stream.engine.interface import Dangling, RelationName
from stream.engine.joins import JoinStore

PIECE: Final = 500  # nodes, or verdicts: some milliseconds
JOIN_SAMPLE: Final = 1_000  # rows of each topic whose relations get a name
UNKNOWN: Final = ("", "")  # a relation that is in rows of joins alone, and in none of those


class DanglingSearch:
    """Goes through the graph again and again."""

    def __init__(self, store: Store, graph: GraphStore) -> None:
        self._store = store
        self._graph = graph
        self._joins = JoinStore(store)
        self._names: dict[int, RelationName | None] = {}  # None: the relation of a head
        self._has_sampled = False  # in this pass
        self._passes = self._look()

    def look(self) -> Dangling | None:
        """Goes on by a piece. At the end of the graph it gives what it has found, and begins again."""
        return next(self._passes)

    def _look(self) -> Iterator[Dangling | None]:
        while True:
            self._has_sampled = False
            targets: Counter[RelationName] = Counter()
            start: bytes | None = b""
            while start is not None:
                start = self._count_targets(start, targets)
                yield None
            verdicts, start = 0, b""
            while start is not None:
                found, start = self._count_verdicts(start)
                verdicts += found
                yield None
            yield Dangling(targets, verdicts)

    def _count_targets(self, start: bytes, targets: Counter[RelationName]) -> bytes | None:
        """Counts those of a piece. Returns where the next one begins, None at the end."""
        piece = list(islice(self._store.scan(tables.HEADS, start), PIECE + 1))
        here = piece[:PIECE]
        exist = self._graph.exist(int.from_bytes(key[1:], "big") for key, _ in here)
        for (_, head), exists in zip(here, exist, strict=True):
            if not exists:
                edges = np.frombuffer(head, EDGE)
                relations, first = np.unique(edges["relation"], return_index=True)
                others = edges["neighbour"][first].tolist()
                for relation, other in zip(relations.tolist(), others, strict=True):
                    name = self._name(relation, other)
                    if name is not None:
                        targets[name] += 1
        return piece[PIECE][0][1:] if len(piece) > PIECE else None

    def _count_verdicts(self, start: bytes) -> tuple[int, bytes | None]:
        """Those of a piece, and where the next one begins, None at the end."""
        piece = list(islice(self._store.scan(tables.LINKS, start), PIECE + 1))
        keys = [key for key, _ in piece[:PIECE] if key[17:] == b"<"]  # each stands there twice
        ends = [int.from_bytes(key[at : at + 8], "big") for key in keys for at in (1, 9)]
        exist = self._graph.exist(ends)
        found = sum(not all(exist[at : at + 2]) for at in range(0, len(exist), 2))
        return found, piece[PIECE][0][1:] if len(piece) > PIECE else None

    def _name(self, relation: int, other: int) -> RelationName | None:
        """What a relation is called whose tail does not exist; None if it is its head that does not.

        Args:
            other: the node at the other end.
        """
        if relation not in self._names:
            [entity] = self._graph.entities([other])
            if entity is not None:
                for name in entity.relations:
                    self._names[relation_of(entity.source, f"~{name}")] = (entity.source, name)
        if relation not in self._names and not self._has_sampled:
            self._has_sampled = True
            for edge in self._joins.sample(JOIN_SAMPLE):
                self._names[relation_of(edge.source, f"~{edge.relation}")] = (edge.source, edge.relation)
                self._names[relation_of(edge.source, edge.relation)] = None
        return self._names.get(relation, UNKNOWN)
