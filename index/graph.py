"""The graph store: entities, and each node's neighbours in the order in which they are drawn.

A node is the 64-bit hash of its CURIE, so that the same entity has the same number in every run and no
table of numbers has to be kept. An edge is stored at both ends, under the relation's name at its head and
under `~name` at its tail, whether or not the other end exists yet.

Neighbours are drawn by an exponential race (`model/encoding/sampling.py`): within one relation the order
depends only on a hash of the edge. A node's *head* is one packed value with its first `HEAD_EDGES` neighbours
of every relation and the relation's full count; the rest lie in the *overflow*, one key an edge, in the same
order. Sampling reads heads only, so a hub of any degree costs what its relations cost, and an added or
removed edge rewrites one small value.
"""

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from index import tables
from index.entity import Entity, node_key
from index.search.arrays import Mask
from index.store import Store

HEAD_EDGES: Final = 12
_U63: Final = (1 << 63) - 1
EDGE: Final = np.dtype([("relation", "<u8"), ("neighbour", "<u8"), ("count", "<u8")])
_EDGE = struct.Struct("<QQQ")
_ROW: Final = np.dtype([("owner", "<i8"), ("relation", "<u8"), ("place", "<u8"), ("neighbour", "<u8")])
# what `_overflow_key` makes of one edge
_OVERFLOW_KEY: Final = np.dtype(
    [("table", "V1"), ("node", ">u8"), ("relation", ">u8"), ("place", ">u8"), ("neighbour", ">u8")]
)

Nodes = npt.NDArray[np.uint64]


class Heads(NamedTuple):
    """The heads of some nodes."""

    # dtype `EDGE`, one node's after the other's; `count` is how many edges the relation has in all
    edges: npt.NDArray[np.void]
    lengths: npt.NDArray[np.int64]  # how many of the edges are each node's


class _Name(msgspec.Struct, frozen=True, array_like=True):
    """The beginning of a stored entity."""

    source: str
    id: str


class _Standing(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of an entity up to whether it is deleted, its values unread."""

    source: str
    id: str
    type: str
    attributes: msgspec.Raw
    relations: msgspec.Raw
    version: msgspec.Raw
    deleted: bool


class EdgeChange(msgspec.Struct, frozen=True, array_like=True):
    """One end of an edge that appears or disappears."""

    node: int
    relation: int
    neighbour: int
    added: bool


def _mix(x: Nodes) -> Nodes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def edge_hash(node: Nodes, relation: Nodes, neighbour: Nodes) -> Nodes:
    """The place of each edge in its race, uniform over 64 bits: a function of the edge and nothing else."""
    return _mix(_mix(_mix(node) + relation) + neighbour)


class GraphStore:
    """Entities and adjacency on a `Store`. Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Entity).decode
        self._decode_standing = msgspec.msgpack.Decoder(_Standing).decode
        self._decode_name = msgspec.msgpack.Decoder(_Name).decode

    def entities(self, nodes: Iterable[int]) -> list[Entity | None]:
        """The stored entities, deleted ones included, None where there was never one."""
        values = self._store.get_many([tables.ENTITIES + node_key(node) for node in nodes])
        return [None if value is None else self._decode(value) for value in values]

    def names(self, nodes: Iterable[int]) -> list[str]:
        """The CURIEs of stored entities, "" where there was never one."""
        values = self._store.get_many([tables.ENTITIES + node_key(node) for node in nodes])
        names = (None if value is None else self._decode_name(value) for value in values)
        return ["" if name is None else f"{name.source}:{name.id}" for name in names]

    def exist(self, nodes: Iterable[int]) -> list[bool]:
        """Whether there are such entities now."""
        values = self._store.get_many([tables.ENTITIES + node_key(node) for node in nodes])
        return [value is not None and not self._decode_standing(value).deleted for value in values]

    def put(self, node: int, entity: Entity) -> None:
        """Writes the entity's state; its edges are `connect`'s."""
        self._store.put(tables.ENTITIES + node_key(node), self._encode(entity))

    def scan(self) -> Iterator[tuple[int, Entity]]:
        """All stored entities in node order, deleted ones included."""
        for key, value in self._store.scan(tables.ENTITIES):
            yield int.from_bytes(key[1:], "big"), self._decode(value)

    def digests(self) -> tuple[Nodes, Nodes]:
        """The nodes of all stored entities, deleted ones included, and the 64-bit XXH3s of what is stored."""
        nodes, digests = array("Q"), array("Q")
        for key, value in self._store.scan(tables.ENTITIES):
            nodes.append(int.from_bytes(key[1:], "big"))
            digests.append(xxhash.xxh3_64_intdigest(value))
        return np.frombuffer(nodes, np.uint64), np.frombuffer(digests, np.uint64)

    def scan_heads(self) -> Iterator[int]:
        """All nodes that have an edge, in node order."""
        for key, _ in self._store.scan(tables.HEADS):
            yield int.from_bytes(key[1:], "big")

    def connect(self, changes: Sequence[EdgeChange]) -> None:
        """Adds and removes edges, each given for both of its ends. Repeated changes have no effect."""
        if not changes:
            return
        number_of: dict[int, int] = {}
        owners = np.array([number_of.setdefault(change.node, len(number_of)) for change in changes])
        nodes = list(number_of)
        relations = np.array([change.relation for change in changes], np.uint64)
        neighbours = np.array([change.neighbour for change in changes], np.uint64)
        places = edge_hash(np.array(nodes, np.uint64)[owners], relations, neighbours)
        rows = _rows(owners, relations, places, neighbours)
        added = np.array([change.added for change in changes])
        grown = self._grow(nodes, rows, added)
        rest = np.flatnonzero(~grown[owners])
        nodes = [node for node, is_done in zip(nodes, grown.tolist(), strict=True) if not is_done]
        groups_of = dict(zip(nodes, self._groups(nodes), strict=True))
        last: dict[tuple[int, int, int], tuple[EdgeChange, int]] = {}  # of several changes of one edge
        for number, place in zip(rest.tolist(), places[rest].tolist(), strict=True):
            change = changes[number]
            last[change.node, change.relation, change.neighbour] = change, place
        for step, is_added in ((self._add, True), (self._remove, False)):
            for change, place in last.values():
                if change.added == is_added:
                    step(groups_of[change.node], change, (place, change.neighbour))
        for node, groups in groups_of.items():
            self._refill(node, groups)
            if groups:
                self._store.put(tables.HEADS + node_key(node), _pack_head(groups))
            else:
                self._store.delete(tables.HEADS + node_key(node))

    def _grow(self, nodes: Sequence[int], new: npt.NDArray[np.void], added: Mask) -> Mask:
        """Adds all edges of those nodes that lose none, in one sort.

        Args:
            new: (n,) ends of edges, dtype `_ROW`, their owners places in `nodes`.
            added: (n,) whether each is added.

        Returns:
            (len(nodes),) which nodes these are.
        """
        grows = np.ones(len(nodes), bool)
        grows[new["owner"][~added]] = False
        new = new[grows[new["owner"]]]
        edges, lengths = self.heads(nodes)
        node = np.array(nodes, np.uint64)
        owners = np.repeat(np.arange(len(nodes)), lengths)
        places = edge_hash(node[owners], edges["relation"], edges["neighbour"])
        old = _rows(owners, edges["relation"], places, edges["neighbour"])
        rows, overflowing = np.concatenate([old, new]), np.zeros(len(old) + len(new), np.int64)
        overflowing[: len(old)] = edges["count"].astype(np.int64)
        is_new = np.arange(len(rows)) >= len(old)
        order = np.lexsort([is_new, *(rows[name] for name in reversed(_ROW.names or ()))])
        rows, counted, is_new = rows[order], overflowing[order], is_new[order]
        kept = (
            np.append(True, rows[1:] != rows[:-1]) & grows[rows["owner"]]
        )  # an edge that is there already stays
        rows, counted, is_new = rows[kept], counted[kept], is_new[kept]

        # behind a full head an edge may be in the overflow already
        group = _groups_of(rows)
        size = np.zeros(len(rows), np.int64)  # by group: its old count
        np.maximum.at(size, group, counted)
        last = np.full(len(rows), -1)  # ... and the last of its old head
        np.maximum.at(last, group[~is_new], np.flatnonzero(~is_new))
        behind = np.flatnonzero(is_new & (size[group] > HEAD_EDGES) & (np.arange(len(rows)) > last[group]))
        is_known = np.zeros(len(rows), bool)
        stored = self._store.get_many(_overflow_keys(node, rows[behind]))
        is_known[behind] = [value is not None for value in stored]
        rows, is_new, group = rows[~is_known], is_new[~is_known], group[~is_known]

        size += np.bincount(group[is_new], minlength=len(size))
        first = np.append(True, group[1:] != group[:-1])
        rank = np.arange(len(rows)) - np.flatnonzero(first)[np.cumsum(first) - 1] if len(rows) else group
        for key in _overflow_keys(node, rows[rank >= HEAD_EDGES]):
            self._store.put(key, b"")
        rows, group = rows[rank < HEAD_EDGES], group[rank < HEAD_EDGES]
        packed = np.empty(len(rows), EDGE)
        packed["relation"], packed["neighbour"] = rows["relation"], rows["neighbour"]
        packed["count"] = size[group]
        data, ends = (
            packed.tobytes(),
            np.searchsorted(rows["owner"], np.arange(len(nodes) + 1)) * EDGE.itemsize,
        )
        bounds = ends.tolist()
        for number in np.flatnonzero(grows).tolist():
            head = data[bounds[number] : bounds[number + 1]]
            self._store.put(tables.HEADS + node_key(nodes[number]), head)
        return grows

    def _groups(self, nodes: Sequence[int]) -> "list[_Groups]":
        edges, lengths = self.heads(nodes)
        owners = np.repeat(np.array(nodes, np.uint64), lengths)
        places = edge_hash(owners, edges["relation"], edges["neighbour"]).tolist()
        rows = iter(zip(edges.tolist(), places, strict=True))
        all_groups: list[_Groups] = []
        for length in lengths.tolist():
            groups: _Groups = {}
            for (relation, neighbour, count), place in islice(rows, length):
                groups.setdefault(relation, (count, []))[1].append((place, neighbour))
            all_groups.append(groups)
        return all_groups

    def _add(self, groups: "_Groups", edge: EdgeChange, entry: tuple[int, int]) -> None:
        count, head = groups.get(edge.relation, (0, []))
        if entry in head:
            return
        if count > len(head) and entry > head[-1]:
            key = _overflow_key(edge.node, edge.relation, entry)
            if self._store.get(key) is not None:
                return
            self._store.put(key, b"")
        else:
            head = sorted([*head, entry])
            if len(head) > HEAD_EDGES:
                self._store.put(_overflow_key(edge.node, edge.relation, head.pop()), b"")
        groups[edge.relation] = (count + 1, head)

    def _remove(self, groups: "_Groups", edge: EdgeChange, entry: tuple[int, int]) -> None:
        """A head may have room after it, though there is an overflow, until `_refill`."""
        count, head = groups.get(edge.relation, (0, []))
        if entry in head:
            head = [other for other in head if other != entry]
        else:
            key = _overflow_key(edge.node, edge.relation, entry)
            if self._store.get(key) is None:
                return
            self._store.delete(key)
        if count == 1:
            del groups[edge.relation]
        else:
            groups[edge.relation] = (count - 1, head)

    def _refill(self, node: int, groups: "_Groups") -> None:
        """Moves the first of the overflow to heads with room. Once for all removals: it is a search."""
        for relation, (count, head) in groups.items():
            room = min(HEAD_EDGES, count) - len(head)
            if room > 0:
                prefix = tables.OVERFLOW + node_key(node) + node_key(relation)
                for key, _ in [*islice(self._store.scan(prefix), room)]:
                    self._store.delete(key)
                    head.append((int.from_bytes(key[17:25], "big"), int.from_bytes(key[25:], "big")))

    def heads(self, nodes: Sequence[int]) -> Heads:
        """The first edges of every relation of each node, drawn earliest first within a relation."""
        values = self._store.get_many([tables.HEADS + node_key(node) for node in nodes])
        lengths = np.fromiter((len(v) // EDGE.itemsize if v else 0 for v in values), np.int64, len(values))
        return Heads(np.frombuffer(b"".join(v for v in values if v), EDGE), lengths)

    def neighbours_of(
        self, nodes: Sequence[int], heads: Heads, chosen: Mask
    ) -> tuple[Nodes, npt.NDArray[np.int64]]:
        """All neighbours over every relation of those of `nodes` that are chosen.

        Args:
            heads: those of `nodes`, as they are in the store.
            chosen: (len(nodes),)

        Returns:
            (n,) the neighbours, and (n,) for each the place in `nodes` of the node that it is a neighbour of.
        """
        of = np.repeat(np.arange(len(nodes)), heads.lengths)
        edges, of = heads.edges[chosen[of]], of[chosen[of]]
        more: list[int] = []
        more_of: list[int] = []
        for place in np.unique(of[edges["count"] > HEAD_EDGES]).tolist():
            prefix = tables.OVERFLOW + node_key(nodes[place])
            found = [int.from_bytes(key[25:], "big") for key, _ in self._store.scan(prefix)]
            more += found
            more_of += [place] * len(found)
        return (
            np.concatenate([edges["neighbour"], np.array(more, np.uint64)]),
            np.concatenate([of, np.array(more_of, np.int64)]),
        )

    def neighbours(self, node: int, start: bytes = b"", most: int = _U63) -> tuple[list[int], bytes]:
        """Neighbours over every relation, the overflow included, `most` of them or a few more.

        Args:
            start: b"" for the first call, then what the last one returned.

        Returns:
            The neighbours, one with two relations twice, and where to go on; b"" at the end.
        """
        found: list[int] = []
        if not start:
            edges, _ = self.heads([node])
            found = edges["neighbour"].tolist()
            if not (edges["count"] > HEAD_EDGES).any():
                return found, b""
        prefix = tables.OVERFLOW + node_key(node)
        for key, _ in self._store.scan(prefix, start):
            if len(found) >= most:
                return found, key[len(prefix) :]
            found.append(int.from_bytes(key[25:], "big"))
        return found, b""


def _rows(
    owners: npt.NDArray[np.int64], relations: Nodes, places: Nodes, neighbours: Nodes
) -> npt.NDArray[np.void]:
    rows = np.empty(len(owners), _ROW)
    rows["owner"], rows["relation"], rows["place"], rows["neighbour"] = owners, relations, places, neighbours
    return rows


def _groups_of(rows: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """The number of each row's (owner, relation), rows of which stand together."""
    if not len(rows):
        return np.zeros(0, np.int64)
    owner, relation = rows["owner"], rows["relation"]
    begins = (owner[1:] != owner[:-1]) | (relation[1:] != relation[:-1])
    return np.cumsum(np.append(0, begins))


def _overflow_keys(nodes: Nodes, rows: npt.NDArray[np.void]) -> list[bytes]:
    keys = np.empty(len(rows), _OVERFLOW_KEY)
    keys["table"], keys["node"] = np.void(tables.OVERFLOW), nodes[rows["owner"]]
    for name in ("relation", "place", "neighbour"):
        keys[name] = rows[name]
    packed: list[bytes] = keys.view(f"V{keys.itemsize}").tolist()
    return packed


_Groups = dict[int, tuple[int, list[tuple[int, int]]]]  # relation -> (count, [(edge hash, neighbour)])


def _pack_head(groups: _Groups) -> bytes:
    return b"".join(
        _EDGE.pack(relation, neighbour, count)
        for relation in sorted(groups)
        for count, head in [groups[relation]]
        for _, neighbour in head
    )


def _overflow_key(node: int, relation: int, entry: tuple[int, int]) -> bytes:
    return tables.OVERFLOW + node_key(node) + node_key(relation) + node_key(entry[0]) + node_key(entry[1])
