"""Steps 4 to 7: from changed entities to the candidate pairs whose scores rest on what changed.

Every row of the node table is a function of the graph and the model, and the candidate lists of the rows.
So a change is followed as in a build system: what rests on it is computed again, and where the same comes
out it stops.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.candidates import CandidateOptions, CandidatePairs, Change, Pairs, Touched
from index.graph import Entity, GraphStore, Nodes, relation_of
from index.sparse import SparseIndex
from index.vectors import NOBODY, Mask, Sims, Slots, VectorIndex
from model.encoder import Encoder
from model.neighbourhood import HUB_COUNT, neighbourhood
from model.sampling import SAMPLE, Sample, draw
from model.vectors import DIM
from model.words import GATHERED, gather, overlap
from stream.batches import batched
from stream.cells import CELL_INDEXES, NodeCells
from stream.events import Upsert
from stream.nodes import NodeTable, as_words, digest

VIEWS: Final = ("name", "values", "neighbourhood", "near_words", "far_words")
# Kinds of index for exact search, one a view.
INDEXES: Final = (VectorIndex, VectorIndex, VectorIndex, SparseIndex, SparseIndex)
OFF: Final = 1 << 30  # the floor of a view that is not used
ROWS_CHUNK: Final = 4096  # rows that are made together: about 100 MB
HUB_DEGREE: Final = 4096  # from here on a node's neighbours are looked through a piece at a time
AROUND: Final = ("neighbourhood", "near_words", "far_words")  # what rests on a node's sample
# What of a waiting node's row may be behind the graph store without its entity having changed.
IN_FORCE: Final = np.dtype(
    [
        ("neighbourhood", np.int8, DIM),
        ("near_words", np.uint32, GATHERED),
        ("far_words", np.uint32, GATHERED),
        ("degree", np.uint8),  # as a power of 2
    ]
)


class SourcePair(NamedTuple):
    """Two sources with entities of one type; the left one's name sorts first."""

    type: str
    left: str
    right: str


class Found(NamedTuple):
    """Pairs of two sources, each once."""

    sources: SourcePair
    pairs: Pairs


class Saved(NamedTuple):
    """What another process had in memory, by its slots."""

    spaces: list[tuple[str, str]]
    table: NodeTable  # what entities say of themselves; the rest of a row follows from that
    cells: NodeCells | None
    stored: Nodes  # (slots,) digest of the stored entity that a row was made of
    lists: dict[SourcePair, CandidatePairs]


class Retrieval:
    """Owns the node table and the candidate lists; reads the graph store. One thread owns it.

    Args:
        cells: whether lists hold the nearest of those that share cells, instead of all (`index/cells.py`).
    """

    def __init__(
        self, graph: GraphStore, encoder: Encoder, options: CandidateOptions, *, cells: bool = False
    ) -> None:
        self.table = NodeTable()
        self._cells = NodeCells() if cells else None
        self.indexes = CELL_INDEXES if cells else INDEXES
        self.evaluated = 0  # entities, since the start
        self._graph = graph
        self._encoder = encoder
        self.options = options
        self._spaces: list[tuple[str, str]] = []  # (type, source) by number
        self._number_of: dict[tuple[str, str], int] = {}
        self.lists: dict[SourcePair, CandidatePairs] = {}
        self._relation_keys = {
            relation_of(source, name): key for source, name, key in encoder.keys.relations()
        }

    def evaluate(
        self, nodes: Sequence[int], changed: Mapping[int, Entity], forced: Container[int]
    ) -> tuple[list[Found], list[int], list[int]]:
        """Brings the rows of `nodes` and the candidate lists up to date.

        Args:
            nodes: distinct; all whose entity or adjacency changed, and any whose neighbours did.
            changed: the new state of those whose entity changed.
            forced: nodes whose pairs count as changed even if nothing about them seems to be.

        Returns:
            The pairs whose scores may have changed, candidates or not any more, each once; the nodes
            outside `nodes` that were sampled with one that looks different now: evaluate them in their turn;
            and the hubs among the latter ones, whose neighbours are too many to look through: `expand` them.
        """
        slots = self.table.slots(nodes)
        spaces_before = self.table.rows["space"][slots]
        stale, hubs = self.refresh(nodes, changed)
        return self._retrieve_moved(nodes, forced, spaces_before), stale, hubs

    def refresh(self, nodes: Sequence[int], changed: Mapping[int, Entity]) -> tuple[list[int], list[int]]:
        """The first half of `evaluate`, for the rows alone; `retrieve` has to follow.

        Between the two more may be refreshed, so that nobody is retrieved twice because its neighbours come
        later.
        """
        slots = self.table.slots(nodes)
        self.read_entities(changed)
        counts = []
        for first in range(0, len(nodes), ROWS_CHUNK):
            some = nodes[first : first + ROWS_CHUNK]
            sample = draw(np.array(some, np.uint64), *self._graph.heads(some))
            self._set_samples(slots[first : first + ROWS_CHUNK], sample)
            counts.append(sample.counts)
        # each step rests on the one before, of all of them
        chunks = [(slots[place * ROWS_CHUNK :][: len(shared)], shared) for place, shared in enumerate(counts)]
        for chunk, shared in chunks:
            self._set_neighbourhoods(chunk, shared)
        for chunk, shared in chunks:
            self._set_far_words(chunk, shared)
        rows = self.table.rows
        shown = self._shown(slots)
        different = slots[shown != rows["shown"][slots]]
        rows["shown"][slots] = shown
        is_hub = rows["degree"][different] > HUB_DEGREE
        stale = self._dependents(different[~is_hub], slots)
        hubs: list[int] = rows["node"][different[is_hub]].tolist()
        return stale, hubs

    def retrieve(self, nodes: Sequence[int], forced: Container[int]) -> list[Found]:
        """The second half of `evaluate`, of nodes whose rows are as they should be."""
        return self._retrieve_moved(nodes, forced, self.table.rows["space"][self.table.slots(nodes)])

    def _retrieve_moved(
        self, nodes: Sequence[int], forced: Container[int], spaces_before: npt.NDArray[np.int32]
    ) -> list[Found]:
        self.evaluated += len(nodes)
        slots, rows = self.table.slots(nodes), self.table.rows
        content = self._content(slots)
        moved = content != rows["content"][slots]
        moved |= np.fromiter((node in forced for node in nodes), bool, len(nodes))
        rows["content"][slots] = content
        return self._retrieve(slots[moved], spaces_before[moved])

    def expand(self, hub: int, start: bytes, most: int) -> tuple[list[int], bytes]:
        """Looks through the next neighbours of a hub for those that were sampled with it.

        Returns:
            These nodes, and where to go on; b"" at the end.
        """
        neighbours, start = self._graph.neighbours(hub, start, most)
        slots = self.table.known(neighbours)
        rows = self.table.rows
        sampled = (rows["sample"][slots] == self.table.slots([hub])[0]).any(axis=1)
        return self._stale(slots[sampled]), start

    def split(self, found: Found, nodes: Iterable[int]) -> tuple[Found, Found]:
        """The pairs with one of these entities, and the others."""
        flags = np.zeros(len(self.table), bool)
        flags[self.table.known(nodes)] = True
        pairs = found.pairs
        inside = flags[pairs.left] | flags[pairs.right]
        return (
            Found(found.sources, Pairs(pairs.left[inside], pairs.right[inside])),
            Found(found.sources, Pairs(pairs.left[~inside], pairs.right[~inside])),
        )

    def candidates(self, nodes: Iterable[int]) -> list[Found]:
        """All candidate pairs of these entities."""
        slots = self.table.known(nodes)
        spaces = self.table.rows["space"][slots]
        found = []
        for pair, lists in self.lists.items():
            sides = [slots[spaces == space] for space in self._spaces_of(pair)]
            incident = lists.incident(sides[0], sides[1])
            found.append(Found(pair, _distinct(incident)))
        return found

    @property
    def searched(self) -> int:
        """Vectors that the largest search goes through, or would if it were exact."""
        return max((pairs.size for pairs in self.lists.values()), default=0)

    def recall(self, sample: int) -> dict[str, float]:
        """For each dense view in use the share of the exact nearest that lists hold.

        Args:
            sample: entities of either side of every pair of sources that are looked at, drawn by chance.
        """
        chance, order = np.random.default_rng(), self.table.rows["node"]
        counts = np.zeros((len(VIEWS), 2), np.int64)
        for pairs in self.lists.values():
            counts += pairs.recall(sample, chance, order)
        return {
            view: found / wanted
            for view, kind, (found, wanted) in zip(VIEWS, INDEXES, counts.tolist(), strict=True)
            if kind is VectorIndex and wanted
        }

    def context(self, pair: SourcePair, pairs: Pairs) -> tuple[npt.NDArray[np.float32], Mask]:
        """(P, C) what retrieval knows of pairs and what words they share; (P,) if they are candidates."""
        context, is_candidate = self.lists[pair].context(pairs)
        words = self.table.rows["words"]
        return np.hstack([context, overlap(words, words, *pairs)]), is_candidate

    def by_type(self, found: Found) -> Iterator[tuple[SourcePair, npt.NDArray[np.int64]]]:
        """Where in `found` stand pairs that have one type now, by this type."""
        kinds = list(dict.fromkeys(kind for kind, _ in self._spaces))
        numbers = {kind: number for number, kind in enumerate(kinds)}
        # NOBODY reads the last
        type_of = np.array([*(numbers[kind] for kind, _ in self._spaces), NOBODY], np.int32)
        left, right = (type_of[self.table.rows["space"][slots]] for slots in found.pairs)
        for number in np.unique(left[(left == right) & (left != NOBODY)]).tolist():
            yield (
                SourcePair(kinds[number], found.sources.left, found.sources.right),
                np.flatnonzero((left == number) & (right == number)),
            )

    def types(self, nodes: Sequence[int]) -> list[str]:
        """The types of existing entities."""
        numbers = self.table.rows["space"][self.table.slots(nodes)].tolist()
        return [self._spaces[number][0] for number in numbers]

    def in_force(self, nodes: Sequence[int]) -> list[bytes]:
        """What the lists and scores rest on of nodes that are to be evaluated again; dtype `IN_FORCE`.

        Nothing of those that were never evaluated.
        """
        slots = self.table.slots(nodes)
        rows = self.table.rows
        is_known = (rows["shown"][slots] != 0).tolist()
        values = np.empty(len(slots), IN_FORCE)
        for field in AROUND:
            values[field] = rows[field][slots]
        values["degree"] = np.log2(rows["degree"][slots])
        return [value.tobytes() if known else b"" for value, known in zip(values, is_known, strict=True)]

    def similarities(self, left: Sequence[int], right: Sequence[int]) -> Sims:
        """(P, views) of pairs of nodes, 0 where one of them has no vector."""
        slots = self.table.slots(left), self.table.slots(right)
        rows = self.table.rows
        columns = [
            kind.products(*(rows[view][side] for side in slots))
            for view, kind in zip(VIEWS, INDEXES, strict=True)
        ]
        return np.stack(columns, axis=1)

    def saved(self) -> Saved:
        """What `fill_rows` and `fill_lists` make this again from."""
        stored = np.zeros(len(self.table), np.uint64)
        nodes, digests = self._graph.digests()
        slots, of = self.table.known_of(nodes, np.arange(len(nodes)))
        stored[slots] = digests[of]
        return Saved(self._spaces, self.table, self._cells, stored, self.lists)

    def fill_rows(self, queue: Mapping[int, bytes], saved: Saved | None = None) -> None:
        """Fills an empty table from the graph store.

        Args:
            queue: the nodes that wait for re-evaluation, each with what was in force; the lists have to be
                those that the stored scores rest on.
            saved: what may be used as far as it fits the store.
        """
        stored = np.zeros(0, np.uint64)
        if saved is not None:
            self._spaces, self.table, self._cells, stored, _ = saved
            self._number_of = {space: number for number, space in enumerate(self._spaces)}
        self._read_all(stored)
        # samples of all first: a neighbourhood rests on the degrees of its members
        samples = []
        for nodes in batched(self._graph.scan_heads(), ROWS_CHUNK):
            sample = draw(np.array(nodes, np.uint64), *self._graph.heads(nodes))
            slots = self.table.slots(nodes)  # may add rows: for entities that are only pointed at
            self._set_samples(slots, sample)
            samples.append((slots, sample.counts.astype(np.uint32)))
        waiting = self.table.slots(queue)
        nothing = bytes(IN_FORCE.itemsize)
        in_force = np.frombuffer(b"".join(value or nothing for value in queue.values()), IN_FORCE)
        rows, every = self.table.rows, np.arange(len(self.table), dtype=np.int32)
        rows["degree"][waiting] = 1 << in_force["degree"].astype(np.int64)
        for slots, counts in samples:
            self._set_neighbourhoods(slots, counts)
        for field in AROUND:
            rows[field][waiting] = in_force[field]
        # what rests on the near words of others comes after these are what is in force
        for slots, counts in samples:
            self._set_far_words(slots, counts)
        rows["far_words"][waiting] = in_force["far_words"]
        rows["shown"][every] = self._shown(every)
        rows["content"][every] = self._content(every)

    def fill_lists(self, saved: Saved | None = None) -> None:
        """Makes all candidate lists from the rows, or brings saved ones up to date with them."""
        found = {} if saved is None else saved.lists
        self.lists = {}
        for pair in self._source_pairs(set(range(len(self._spaces)))):
            if pair in found:
                self.lists[pair] = found[pair]
                changes = [
                    self._change(space, np.union1d(keys, self._members(space)).astype(np.int32))
                    for space, keys in zip(self._spaces_of(pair), self.lists[pair].keys(), strict=True)
                ]
                self.lists[pair].update(changes[0], changes[1], self.table.rows["node"])
            else:
                self._meet(pair)

    # ------------------------------------------------------------------ rows

    def _read_all(self, stored: Nodes) -> None:
        """Reads the entities whose rows were not made of what is in the store now; `stored` as in `Saved`."""
        nodes, digests = self._graph.digests()
        slots, of = self.table.known_of(nodes, np.arange(len(nodes)))
        same = stored[slots] == digests[of]
        is_stale = np.ones(len(self.table), bool)
        is_stale[slots[same]] = False
        self.table.blank(np.flatnonzero(is_stale).astype(np.int32))
        rest = np.delete(nodes, of[same])
        for some in batched(rest.tolist(), ROWS_CHUNK):
            entities = zip(some, self._graph.entities(some), strict=True)
            self.read_entities({node: entity for node, entity in entities if entity is not None})

    def read_entities(self, changed: Mapping[int, Entity]) -> None:
        """What entities say of themselves, into their rows; `evaluate` follows it up.

        That may be put off, but not for an entity that ceases to exist or changes its type: lists are found
        by the type that it had.
        """
        alive = {node: entity for node, entity in changed.items() if not entity.deleted}
        dead = self.table.slots([node for node in changed if node not in alive])
        slots = self.table.slots(alive)
        rows = self.table.rows
        self.table.blank(dead)
        if not alive:
            return
        upserts = [Upsert(e.source, e.id, e.type, e.attributes, e.relations) for e in alive.values()]
        if self._cells is None:
            encoded = self._encoder.encode(upserts)
            columns: list[npt.NDArray[np.generic]] = [*encoded]
        else:
            encoded, cells = self._encoder.encode_with_cells(upserts)
            self._cells.set(slots, cells)
            columns = [*encoded, *cells]
        self.table.set_items(slots, encoded.items, encoded.item_keys)
        for field, column in zip(encoded._fields, encoded, strict=True):
            if field != "items":
                rows[field][slots] = column
        rows["own"][slots] = digest(np.concatenate([as_words(column) for column in columns], axis=1))
        rows["exists"][slots] = True
        rows["space"][slots] = [self._space((entity.type, entity.source)) for entity in alive.values()]

    def _space(self, name: tuple[str, str]) -> int:
        if name not in self._number_of:
            self._number_of[name] = len(self._spaces)
            self._spaces.append(name)
        return self._number_of[name]

    def _set_samples(self, slots: Slots, sample: Sample) -> None:
        unused = np.arange(SAMPLE) >= sample.drawn[:, None]
        neighbours = np.full(unused.shape, NOBODY, np.int32)
        neighbours[~unused] = self.table.slots(sample.neighbours[~unused].tolist())
        numbers, inverse = np.unique(sample.relations, return_inverse=True)
        keys = np.array([self._relation_keys.get(number, 1) for number in numbers.tolist()], np.int16)
        rows = self.table.rows
        rows["sample"][slots] = neighbours
        rows["sample_keys"][slots] = np.where(unused, 0, keys[inverse.reshape(unused.shape)])
        rows["degree"][slots] = sample.degrees

    def _set_neighbourhoods(self, slots: Slots, counts: npt.NDArray[np.integer]) -> None:
        """`counts`: (n, SAMPLE) how many neighbours share each sampled one's relation."""
        rows = self.table.rows
        neighbours = rows["sample"][slots]
        unused = neighbours == NOBODY
        names = np.where(unused[:, :, None], np.int8(0), rows["name"][neighbours])
        degrees = np.where(unused, 1, rows["degree"][neighbours])
        shared: npt.NDArray[np.int64] = np.where(unused, 1, counts).astype(np.int64)
        rows["neighbourhood"][slots] = neighbourhood(names, shared, degrees)
        if self._gathers():
            around = np.where(counts <= HUB_COUNT, neighbours, NOBODY)
            own = np.where((around != NOBODY).any(axis=1), slots, NOBODY)
            rows["near_words"][slots] = gather(rows["words"], np.hstack([own[:, None], around]))

    def _set_far_words(self, slots: Slots, counts: npt.NDArray[np.integer]) -> None:
        if self._uses("far_words"):
            rows = self.table.rows
            around = np.where(counts <= HUB_COUNT, rows["sample"][slots], NOBODY)
            rows["far_words"][slots] = gather(rows["near_words"], around)

    def _uses(self, view: str) -> bool:
        floors = self.options.floors
        return not floors or floors[VIEWS.index(view)] != OFF

    def _gathers(self) -> bool:
        """Whether anything rests on the near words."""
        return self._cells is not None or self._uses("near_words") or self._uses("far_words")

    def _shown(self, slots: Slots) -> Nodes:
        """Digests of what others see of these entities."""
        rows = self.table.rows
        fields = ("exists", "name", "neighbourhood", "name_hash", "degree")
        columns = [as_words(rows[field][slots]) for field in fields]
        if self._gathers():
            columns.append(as_words(gather(rows["words"], slots[:, None])))
        if self._uses("far_words"):
            columns.append(as_words(rows["near_words"][slots]))
        return digest(np.concatenate(columns, axis=1))

    def _content(self, slots: Slots) -> Nodes:
        """Digests of all that the scores of these entities rest on, but for the lists."""
        rows = self.table.rows
        sample = rows["sample"][slots]
        seen = [np.where(sample == NOBODY, np.uint64(0), rows[field][sample]) for field in ("node", "shown")]
        fields = ("own", "exists", "space", "sample_keys", *VIEWS)
        own = [as_words(rows[field][slots]) for field in fields]
        return digest(np.concatenate([*own, *seen], axis=1))

    def _dependents(self, changed: Slots, done: Slots) -> list[int]:
        """The nodes that were sampled with one of `changed`, without `done`."""
        rows = self.table.rows
        is_done = np.zeros(len(rows), bool)
        is_done[done] = True
        around, of = self.table.known_of(*self._graph.neighbours_of(rows["node"][changed].tolist()))
        stale = around[~is_done[around] & (rows["sample"][around] == changed[of][:, None]).any(axis=1)]
        return self._stale(np.unique(stale))

    def _stale(self, slots: Slots) -> list[int]:
        """The nodes of these slots, whose content is unknown from now on.

        Comparing it with what it was would not do: until they are evaluated their neighbour may change back,
        and meanwhile some of their pairs may have been scored.
        """
        self.table.rows["content"][slots] = 0
        nodes: list[int] = self.table.rows["node"][slots].tolist()
        return nodes

    # ------------------------------------------------------------------ candidate lists

    def _retrieve(self, slots: Slots, spaces_before: npt.NDArray[np.int32]) -> list[Found]:
        spaces = self.table.rows["space"][slots]
        concerned = set(np.concatenate([spaces, spaces_before]).tolist()) - {NOBODY}
        found = []
        for pair in self._source_pairs(concerned):
            if pair in self.lists:
                changes = [
                    self._change(space, slots[(spaces == space) | (spaces_before == space)])
                    for space in self._spaces_of(pair)
                ]
                touched = self.lists[pair].update(changes[0], changes[1], self.table.rows["node"])
            else:
                changes, touched = self._meet(pair)
            incident = self.lists[pair].incident(
                np.union1d(touched.left, changes[0].keys).astype(np.int32),
                np.union1d(touched.right, changes[1].keys).astype(np.int32),
            )
            found.append(Found(pair, _distinct(touched.pairs, incident)))
        return found

    def _meet(self, pair: SourcePair) -> tuple[list[Change], Touched]:
        """Two sources share a type for the first time; either may have been here before."""
        self.lists[pair] = CandidatePairs(DIM, self.options, self.indexes)
        changes = [self._change(space, self._members(space)) for space in self._spaces_of(pair)]
        return changes, self.lists[pair].update(changes[0], changes[1], self.table.rows["node"])

    def _spaces_of(self, pair: SourcePair) -> tuple[int, int]:
        return self._number_of[pair.type, pair.left], self._number_of[pair.type, pair.right]

    def _members(self, space: int) -> Slots:
        return np.nonzero(self.table.rows["space"] == space)[0].astype(np.int32)

    def _source_pairs(self, spaces: set[int]) -> list[SourcePair]:
        """The pairs of sources that share the type of one of these spaces."""
        pairs = set()
        for space in spaces:
            kind, source = self._spaces[space]
            for other_kind, other in self._spaces:
                if other_kind == kind and other != source:
                    pairs.add(SourcePair(kind, min(source, other), max(source, other)))
        return sorted(pairs)

    def _change(self, space: int, slots: Slots) -> Change:
        """These entities' vectors as members of a space, zero for those that are not in it."""
        rows = self.table.rows
        cells = self._cells
        vectors = [rows[view][slots] if cells is None else cells.vectors(view, rows, slots) for view in VIEWS]
        outside = rows["space"][slots] != space
        for view, column in zip(VIEWS, vectors, strict=True):
            column[outside if self._uses(view) else ...] = 0
        return Change(slots, vectors)


def _distinct(*parts: Pairs) -> Pairs:
    """The pairs of all parts, each once."""
    keys = sorted_distinct([part.left.astype(np.int64) << 32 | part.right for part in parts])
    return Pairs((keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32))


def sorted_distinct(arrays: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """All numbers of all arrays, each once, in order.

    A merge of what is sorted already: two orders of magnitude faster than np.unique, which hashes.
    """
    numbers = np.concatenate(arrays)
    numbers.sort(kind="stable")
    return numbers[np.append(True, numbers[1:] != numbers[:-1])] if len(numbers) else numbers
