"""Relations that stand in join tables: kept by row, and counted by edge.

Invariant: the graph has an edge when the head's own row names it or at least one row of a join does. So
rows of joins and rows of entities may come in any order and go in any order, and a row that changes takes
back what it said.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from index import tables
from index.entity import node_key, node_of, relation_of
from index.store import Store
from stream.changes import Edge, JoinChange
from stream.engine.words import LastWords
from stream.events import Message, curie


class JoinStore:
    """Rows of joins on a `Store`. Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._words = LastWords(store)
        self._decode = msgspec.msgpack.Decoder(Edge).decode
        self._any = next(store.scan(tables.JOIN_EDGES), None) is not None

    def put(self, change: JoinChange, message: Message) -> list[Edge] | None:
        """Keeps what a row of a topic says now.

        Returns:
            The edges that it named or names, if that is another one; None if another partition has a newer
            word on the row.
        """
        key = _row_key(change, message)
        if not self._words.take(key, message):
            return None
        raw = self._store.get(key)
        old = None if raw is None else self._decode(raw)
        if old == change.edge:
            return []
        if change.edge is None:
            self._store.delete(key)
        else:
            self._store.put(key, msgspec.msgpack.encode(change.edge))
        for edge, step in ((old, -1), (change.edge, 1)):
            if edge is not None:
                self._count(edge, step)
        return [edge for edge in (old, change.edge) if edge is not None]

    def knows(self, change: JoinChange, message: Message) -> bool:
        """Whether anything was said of the row."""
        return self._words.get(_row_key(change, message)) is not None

    def named(self, edges: Iterable[Edge]) -> list[bool]:
        """Whether a row of a join names these edges."""
        edges = list(edges)
        if not self._any:
            return [False] * len(edges)
        return [value is not None for value in self._store.get_many([_edge_key(edge) for edge in edges])]

    def sample(self, most: int) -> Iterator[Edge]:
        """What the first rows of each topic say."""
        start: bytes = b""
        while (first := next(self._store.scan(tables.JOIN_ROWS, start), None)) is not None:
            topic = first[0][1:].partition(b"\0")[0]
            for _, raw in islice(self._store.scan(tables.JOIN_ROWS + topic + b"\0"), most):
                yield self._decode(raw)
            start = topic + b"\1"

    def _count(self, edge: Edge, step: int) -> None:
        """A count of none is no entry."""
        self._any = True
        key = _edge_key(edge)
        raw = self._store.get(key)
        count = step + (0 if raw is None else int.from_bytes(raw, "big"))
        if count > 0:
            self._store.put(key, count.to_bytes(4, "big"))
        else:
            self._store.delete(key)


def _row_key(change: JoinChange, message: Message) -> bytes:
    return tables.JOIN_ROWS + message.cause.topic.encode() + b"\0" + change.row


def _edge_key(edge: Edge) -> bytes:
    return (
        tables.JOIN_EDGES
        + node_key(node_of(curie(edge.source, edge.head)))
        + node_key(relation_of(edge.source, edge.relation))
        + node_key(node_of(curie(edge.source, edge.tail)))
    )
