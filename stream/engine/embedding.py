"""Step 5: the rows of the node table, from what entities say of themselves and from their neighbours.

Every row is a function of the graph and the model. So a change is followed as in a build system: what rests
on it is computed again, and where the same comes out it stops.
"""

import copy
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.entity import Entity, relation_of
from index.graph import GraphStore, Heads, Nodes
from index.search.arrays import MISSING, Mask, Sims, Slots
from model.encoding.encoder import Encoded, Encoder
from model.encoding.levels import Entities, level1
from model.encoding.neighbourhood import HUB_COUNT, neighbourhood
from model.encoding.rarest import OwnCells
from model.encoding.sampling import Sample, draw
from model.encoding.words import GATHERED, gather
from model.shapes import DIM, I8, LEVEL, SAMPLE
from stream.engine.batches import batched
from stream.engine.node_cells import NodeCells
from stream.engine.node_table import NodeTable, as_words, digest
from stream.engine.views import NAMES, OFF, VIEWS
from stream.events import Upsert

CHECKED: Final = 64  # saved rows that are made again, to see whether the encoder is the one that made them
ROWS_CHUNK: Final = 4096  # rows that are made together: about 100 MB
HUB_DEGREE: Final = 4096  # from here on a node's neighbours are looked through a piece at a time
SEEN: Final = 1  # in place of a digest of what others see: they may have seen something else since
AROUND: Final = ("level1", "neighbourhood", "near_words", "far_words")  # what rests on a node's sample
# What of a waiting node's row may be behind the graph store without its entity having changed.
IN_FORCE: Final = np.dtype(
    [
        ("level1", np.int8, LEVEL),
        ("neighbourhood", np.int8, DIM),
        ("near_words", np.uint32, GATHERED),
        ("far_words", np.uint32, GATHERED),
        ("degree", np.uint8),  # as a power of 2
    ]
)


class SavedRows(NamedTuple):
    """What entities say of themselves, as another process had read it, by its slots."""

    spaces: list[tuple[str, str]]
    table: NodeTable
    cells: NodeCells | None
    stored: Nodes  # (slots,) digest of the stored entity that a row was made of


class Readings(NamedTuple):
    """What changed entities say of themselves, encoded, and in no row yet."""

    dead: list[int]  # nodes
    alive: list[int]
    spaces: list[tuple[str, str]]  # of those alive
    encoded: Encoded
    cells: OwnCells | None

    def only(self, nodes: Container[int]) -> "Readings":
        """Those of these nodes."""
        kept = np.flatnonzero([node in nodes for node in self.alive])
        return Readings(
            [node for node in self.dead if node in nodes],
            [self.alive[place] for place in kept],
            [self.spaces[place] for place in kept],
            Encoded._make(column[kept] for column in self.encoded),
            None if self.cells is None else OwnCells._make(column[kept] for column in self.cells),
        )


class Embedding:
    """Owns the node table; reads the graph store. One thread owns it.

    Args:
        floors: of the views, one each, `OFF` for those that are not used; without floors all are.
        cells: whether nodes have cells, too (`index/search/cells.py`).
    """

    def __init__(
        self, graph: GraphStore, encoder: Encoder, floors: Sequence[int], *, cells: bool = False
    ) -> None:
        self.table = NodeTable()
        self.cells = NodeCells() if cells else None
        self.spaces: list[tuple[str, str]] = []  # (type, source) by number
        self.number_of: dict[tuple[str, str], int] = {}
        self._graph = graph
        self._encoder = encoder
        self._used = {view.name for place, view in enumerate(VIEWS) if not floors or floors[place] != OFF}
        self._relation_keys = {
            relation_of(source, name): key for source, name, key in encoder.keys.relations()
        }

    def read(self, changed: Mapping[int, Entity]) -> Readings:
        """What entities say of themselves. Changes nothing, so what cannot be encoded fails in time."""
        alive = {node: entity for node, entity in changed.items() if not entity.deleted}
        upserts = [Upsert(e.source, e.id, e.type, e.attributes, e.relations) for e in alive.values()]
        if self.cells is None:
            encoded, cells = self._encoder.encode(upserts), None
        else:
            encoded, cells = self._encoder.encode_with_cells(upserts)
        spaces = [(entity.type, entity.source) for entity in alive.values()]
        return Readings([node for node in changed if node not in alive], [*alive], spaces, encoded, cells)

    def _take(self, changed: Readings) -> None:
        """What entities say of themselves, into their rows."""
        self.table.blank(self.table.slots(changed.dead))
        slots = self.table.slots(changed.alive)
        rows, encoded = self.table.rows, changed.encoded
        if not changed.alive:
            return
        columns: list[npt.NDArray[np.generic]] = [*encoded]
        if self.cells is not None and changed.cells is not None:
            self.cells.set(slots, changed.cells)
            columns += changed.cells
        self.table.set_items(slots, encoded.items, encoded.item_keys)
        for field, column in zip(encoded._fields, encoded, strict=True):
            if field != "items":
                rows[field][slots] = column
        rows["own"][slots] = digest(np.concatenate([as_words(column) for column in columns], axis=1))
        rows["exists"][slots] = True
        rows["space"][slots] = [self._space(space) for space in changed.spaces]

    def put_off(self, changed: Readings) -> None:
        """Reads entities that are refreshed later.

        Not those that cease to exist or change their type: lists are found by the type that they had. Until
        then others may be refreshed, and see what these say now. So their refresh has to be followed up even
        if they say by then what they said before.
        """
        slots, rows = self.table.slots(changed.alive), self.table.rows
        before = self._named(slots)
        self._take(changed)
        is_seen = (self._named(slots) != before) & (rows["shown"][slots] != 0)
        rows["shown"][slots[is_seen]] = SEEN

    def refresh(self, nodes: Sequence[int], changed: Readings | None = None) -> tuple[list[int], list[int]]:
        """Brings the rows of `nodes` up to date; `Retrieval.retrieve` has to follow.

        More may be refreshed before that, so that no entity is retrieved twice because its neighbours come
        later.

        Args:
            nodes: distinct; all whose entity or adjacency changed, and any whose neighbours did.
            changed: those whose entity changed.

        Returns:
            The nodes outside `nodes` that were sampled with one that looks different now: refresh them in
            their turn; and the hubs that look different, whose neighbours are too many to look through:
            `expand` them.
        """
        slots = self.table.slots(nodes)
        if changed is not None:
            self._take(changed)
        counts, heads = [], []
        for first in range(0, len(nodes), ROWS_CHUNK):
            some = nodes[first : first + ROWS_CHUNK]
            heads.append(self._graph.heads(some))
            sample = draw(np.array(some, np.uint64), *heads[-1])
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
        is_different = shown != rows["shown"][slots]
        rows["shown"][slots] = shown
        is_hub = rows["degree"][slots] > HUB_DEGREE
        all_heads = Heads(*map(np.concatenate, zip(*heads, strict=True)))
        neighbours = self._graph.neighbours_of(nodes, all_heads, is_different & ~is_hub)
        hubs: list[int] = rows["node"][slots[is_different & is_hub]].tolist()
        return self._dependents(slots, *neighbours), hubs

    def moved(self, nodes: Sequence[int]) -> Mask:
        """Which rows are not what they were at the last call, in anything that scores rest on."""
        slots, rows = self.table.slots(nodes), self.table.rows
        content = self._content(slots)
        moved: Mask = content != rows["content"][slots]
        rows["content"][slots] = content
        return moved

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

    def types(self, nodes: Sequence[int]) -> list[str]:
        """The types of existing entities."""
        numbers = self.table.rows["space"][self.table.slots(nodes)].tolist()
        return [self.spaces[number][0] for number in numbers]

    def in_force(self, nodes: Sequence[int]) -> list[bytes]:
        """The parts of rows on which lists and scores rest, of nodes to evaluate again; dtype `IN_FORCE`.

        b"" for those that were never evaluated.
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
        columns = [view.exact.products(*(rows[view.name][side] for side in slots)) for view in VIEWS]
        return np.stack(columns, axis=1)

    def saved(self) -> SavedRows:
        """What `fill` restores this from."""
        stored = np.zeros(len(self.table), np.uint64)
        nodes, digests = self._graph.digests()
        slots, of = self.table.known_of(nodes, np.arange(len(nodes)))
        stored[slots] = digests[of]
        return SavedRows(self.spaces, self.table, self.cells, stored)

    def fill(
        self, queue: Mapping[int, bytes], saved: SavedRows | None = None, aside: Container[int] = ()
    ) -> int:
        """Fills an empty table from the graph store.

        Args:
            queue: the nodes that wait for re-evaluation, each with what was in force; the lists have to be
                those that the stored scores rest on.
            saved: what may be used as far as it fits the store.
            aside: nodes of entities that count as if they did not exist.

        Returns:
            How many entities had to be encoded.
        """
        stored = np.zeros(0, np.uint64)
        if saved is not None:
            self.spaces, self.table, self.cells, stored = saved
            self.number_of = {space: number for number, space in enumerate(self.spaces)}
        encoded = self._read_all(stored, aside)
        # samples of all first: a neighbourhood rests on the degrees of its members
        samples = [*self._sample_all()]
        waiting = self.table.slots(queue)
        nothing = bytes(IN_FORCE.itemsize)
        in_force = np.frombuffer(b"".join(value or nothing for value in queue.values()), IN_FORCE)
        rows, every = self.table.rows, np.arange(len(self.table), dtype=np.int32)
        rows["degree"][waiting] = 1 << in_force["degree"].astype(np.int64)
        for slots, counts in samples:
            self._set_neighbourhoods(slots, counts)
        for field in AROUND:
            rows[field][waiting] = in_force[field]
        self._join_levels(every)  # also of entities without edges, of which there is no sample
        # what rests on the near words of others comes after these are what is in force
        for slots, counts in samples:
            self._set_far_words(slots, counts)
        rows["far_words"][waiting] = in_force["far_words"]
        rows["shown"][every] = self._shown(every)
        rows["content"][every] = self._content(every)
        return encoded

    def with_levels(self, encoder: Encoder, level0: I8, level1: I8) -> "Embedding":
        """The same with other levels (rows, LEVEL). All else is shared: neither may change anymore.

        Args:
            encoder: makes these levels, and all else as that of this embedding does.
        """
        other = copy.copy(self)
        other._encoder = encoder
        joined = np.hstack([level0, level1])
        other.table = self.table.with_columns({"level0": level0, "level1": level1, "levels": joined})
        return other

    def around(self) -> npt.NDArray[np.int32]:
        """(rows, SAMPLE) the slots of the neighbours that level 1 rests on, MISSING for none."""
        samples = [*self._sample_all()]
        around = np.full(self.table.rows["sample"].shape, MISSING, np.int32)
        for slots, counts in samples:
            around[slots] = np.where(counts <= HUB_COUNT, self.table.rows["sample"][slots], MISSING)
        return around

    def _sample_all(self) -> Iterator[tuple[Slots, npt.NDArray[np.uint32]]]:
        """Draws the sample of every node that has edges; yields slots, and how many share each relation."""
        for nodes in batched(self._graph.scan_heads(), ROWS_CHUNK):
            sample = draw(np.array(nodes, np.uint64), *self._graph.heads(nodes))
            slots = self.table.slots(nodes)  # may add rows: for entities that are only pointed at
            self._set_samples(slots, sample)
            yield slots, sample.counts.astype(np.uint32)

    def _read_all(self, stored: Nodes, aside: Container[int]) -> int:
        """Reads the entities whose rows were not made of what is in the store; `stored` as in `SavedRows`.

        But not those that are set aside: their rows are blank.

        Returns:
            How many these are.
        """
        nodes, digests = self._graph.digests()
        if aside:
            is_here = np.array([node not in aside for node in nodes.tolist()], bool)
            nodes, digests = nodes[is_here], digests[is_here]
        slots, of = self.table.known_of(nodes, np.arange(len(nodes)))
        same = stored[slots] == digests[of]
        if not self._encodes_as_before(nodes[of[same]]):
            same[:] = False
        is_stale = np.ones(len(self.table), bool)
        is_stale[slots[same]] = False
        self.table.blank(np.flatnonzero(is_stale).astype(np.int32))
        rest = np.delete(nodes, of[same])
        for some in batched(rest.tolist(), ROWS_CHUNK):
            self._read_stored(some)
        return len(rest)

    def _encodes_as_before(self, nodes: Nodes) -> bool:
        """Whether some of these come out as their rows say: the encoder may be that of another version."""
        some = nodes[:: max(1, len(nodes) // CHECKED)].tolist()
        slots, rows = self.table.slots(some), self.table.rows
        before = rows["own"][slots]
        self._read_stored(some)
        return bool((rows["own"][slots] == before).all())

    def _read_stored(self, nodes: Sequence[int]) -> None:
        entities = zip(nodes, self._graph.entities(nodes), strict=True)
        self._take(self.read({node: entity for node, entity in entities if entity is not None}))

    def _space(self, name: tuple[str, str]) -> int:
        if name not in self.number_of:
            self.number_of[name] = len(self.spaces)
            self.spaces.append(name)
        return self.number_of[name]

    def _set_samples(self, slots: Slots, sample: Sample) -> None:
        unused = np.arange(SAMPLE) >= sample.drawn[:, None]
        neighbours = np.full(unused.shape, MISSING, np.int32)
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
        unused = neighbours == MISSING
        names = np.where(unused[:, :, None], np.int8(0), rows["name"][neighbours])
        degrees = np.where(unused, 1, rows["degree"][neighbours])
        shared: npt.NDArray[np.int64] = np.where(unused, 1, counts).astype(np.int64)
        rows["neighbourhood"][slots] = neighbourhood(names, shared, degrees)
        around = np.where(counts <= HUB_COUNT, neighbours, MISSING)
        entities = Entities(*(rows[field] for field in ("level0", "exists", "name_hash", "degree")))
        rows["level1"][slots] = level1(entities, around, rows["sample_keys"][slots], self._encoder.levels)
        self._join_levels(slots)
        if self._gathers():
            own = np.where((around != MISSING).any(axis=1), slots, MISSING)
            rows["near_words"][slots] = gather(rows["words"], np.hstack([own[:, None], around]))

    def _join_levels(self, slots: Slots) -> None:
        if self._uses("levels"):
            rows = self.table.rows
            rows["levels"][slots] = np.hstack([rows["level0"][slots], rows["level1"][slots]])

    def _set_far_words(self, slots: Slots, counts: npt.NDArray[np.integer]) -> None:
        if self._uses("far_words"):
            rows = self.table.rows
            around = np.where(counts <= HUB_COUNT, rows["sample"][slots], MISSING)
            rows["far_words"][slots] = gather(rows["near_words"], around)

    def _uses(self, view: str) -> bool:
        return view in self._used

    def _gathers(self) -> bool:
        """Whether anything rests on the near words."""
        return self._uses("near_words") or self._uses("far_words")

    def _shown(self, slots: Slots) -> Nodes:
        """Digests of what others see of these entities."""
        rows = self.table.rows
        fields = ("exists", "name", "level0", "level1", "neighbourhood", "name_hash", "degree")
        columns = [as_words(rows[field][slots]) for field in fields]
        if self._gathers():
            columns.append(as_words(gather(rows["words"], slots[:, None])))
        if self._uses("far_words"):
            columns.append(as_words(rows["near_words"][slots]))
        return digest(np.concatenate(columns, axis=1))

    def _named(self, slots: Slots) -> Nodes:
        """Digests of what others see of these entities that the entities themselves say."""
        rows = self.table.rows
        fields = ("exists", "name", "level0", "name_hash", "words")
        return digest(np.concatenate([as_words(rows[field][slots]) for field in fields], axis=1))

    def _content(self, slots: Slots) -> Nodes:
        """Digests of all that the scores of these entities rest on, but for the lists."""
        rows = self.table.rows
        sample = rows["sample"][slots]
        seen = [np.where(sample == MISSING, np.uint64(0), rows[field][sample]) for field in ("node", "shown")]
        fields = ("own", "exists", "space", "sample_keys", *NAMES)
        own = [as_words(rows[field][slots]) for field in fields]
        return digest(np.concatenate([*own, *seen], axis=1))

    def _dependents(self, slots: Slots, neighbours: Nodes, of: npt.NDArray[np.int64]) -> list[int]:
        """The nodes of (n,) `neighbours` outside `slots` whose sample has `slots[of]`, with `of` (n,)."""
        rows = self.table.rows
        is_outside = np.ones(len(rows), bool)
        is_outside[slots] = False
        around, of = self.table.known_of(neighbours, of)
        sampled = (rows["sample"][around] == slots[of][:, None]).any(axis=1)
        return self._stale(np.unique(around[is_outside[around] & sampled]))

    def _stale(self, slots: Slots) -> list[int]:
        """The nodes of these slots, whose content is unknown from now on.

        Comparing it with what it was would not do: until they are evaluated their neighbour may change back,
        and meanwhile some of their pairs may have been scored.
        """
        self.table.rows["content"][slots] = 0
        nodes: list[int] = self.table.rows["node"][slots].tolist()
        return nodes
