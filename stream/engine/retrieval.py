"""Steps 6 and 7: from rows that changed to the candidate pairs whose scores rest on what changed."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from index.candidates import CandidateOptions, CandidatePairs, Touched, VectorChange
from index.search.arrays import MISSING, Mask, Pairs, Slots, sorted_distinct
from index.search.vectors import UNIT
from model.encoding.words import overlap
from stream.engine.embedding import Embedding, Readings
from stream.engine.interface import TypeName
from stream.engine.pairs import FoundPairs, SourcePair
from stream.engine.views import OFF, VIEWS, WIDTHS


class Retrieval:
    """Owns the candidate lists over the rows of an `Embedding`. One thread owns both.

    With cells, lists hold the nearest of those that share cells, instead of all (`index/search/cells.py`).
    """

    def __init__(self, embedding: Embedding, options: CandidateOptions) -> None:
        self.embedding = embedding
        self.options = options
        self.indexes = [view.exact if embedding.cells is None else view.in_cells for view in VIEWS]
        self.lists: dict[SourcePair, CandidatePairs] = {}
        self.evaluated = 0  # entities, since the start

    def evaluate(
        self, nodes: Sequence[int], changed: Readings, forced: Container[int]
    ) -> tuple[list[FoundPairs], list[int], list[int]]:
        """Brings the rows of `nodes` and the candidate lists up to date.

        Args:
            nodes: distinct; all whose entity or adjacency changed, and any whose neighbours did.
            changed: those whose entity changed.
            forced: nodes whose pairs count as changed even if nothing about them seems to be.

        Returns:
            The pairs whose scores may have changed, candidates or not any more, each once; the nodes
            outside `nodes` that were sampled with one that looks different now: evaluate them in their turn;
            and the hubs that look different, whose neighbours are too many to look through: `expand` them.
        """
        slots = self.embedding.table.slots(nodes)
        spaces_before = self.embedding.table.rows["space"][slots]
        stale, hubs = self.embedding.refresh(nodes, changed)
        return self._retrieve_moved(nodes, forced, spaces_before), stale, hubs

    def retrieve(self, nodes: Sequence[int], forced: Container[int]) -> list[FoundPairs]:
        """The second half of `evaluate`, of nodes whose rows are up to date."""
        table = self.embedding.table
        return self._retrieve_moved(nodes, forced, table.rows["space"][table.slots(nodes)])

    def _retrieve_moved(
        self, nodes: Sequence[int], forced: Container[int], spaces_before: npt.NDArray[np.int32]
    ) -> list[FoundPairs]:
        self.evaluated += len(nodes)
        slots, moved = self.embedding.table.slots(nodes), self.embedding.moved(nodes)
        moved |= np.fromiter((node in forced for node in nodes), bool, len(nodes))
        return self._retrieve(slots[moved], spaces_before[moved])

    def split(self, found: FoundPairs, nodes: Iterable[int]) -> tuple[FoundPairs, FoundPairs]:
        """The pairs with one of these entities, and the others."""
        flags = np.zeros(len(self.embedding.table), bool)
        flags[self.embedding.table.known(nodes)] = True
        pairs = found.pairs
        inside = flags[pairs.left] | flags[pairs.right]
        return (
            FoundPairs(found.sources, Pairs(pairs.left[inside], pairs.right[inside])),
            FoundPairs(found.sources, Pairs(pairs.left[~inside], pairs.right[~inside])),
        )

    def candidates(self, nodes: Iterable[int]) -> list[FoundPairs]:
        """All candidate pairs of these entities."""
        slots = self.embedding.table.known(nodes)
        spaces = self.embedding.table.rows["space"][slots]
        found = []
        for pair, lists in self.lists.items():
            sides = [slots[spaces == space] for space in self._spaces_of(pair)]
            incident = lists.incident(sides[0], sides[1])
            found.append(FoundPairs(pair, _distinct(incident)))
        return found

    @property
    def searched(self) -> int:
        """Vectors that the largest search goes through, or would if it were exact."""
        return max((pairs.size for pairs in self.lists.values()), default=0)

    @property
    def vectors(self) -> int:
        """In all indexes; an entity has one in each view and for each other source that has its type."""
        return sum(pairs.vectors for pairs in self.lists.values())

    def entities(self) -> dict[TypeName, int]:
        """How many there are of each source and type."""
        rows, spaces = self.embedding.table.rows, self.embedding.spaces
        counts = np.bincount(rows["space"][rows["exists"]], minlength=len(spaces)).tolist()
        found = zip(spaces, counts, strict=True)
        return {(source, kind): count for (kind, source), count in found if count}

    def recall(self, sample: int) -> dict[str, float]:
        """For each dense view in use the share of the exact nearest that lists hold.

        Args:
            sample: entities of either side of every pair of sources that are looked at, drawn by chance.
        """
        chance, order = np.random.default_rng(), self.embedding.table.rows["node"]
        counts = np.zeros((len(VIEWS), 2), np.int64)
        for pairs in self.lists.values():
            counts += pairs.recall(sample, chance, order)
        return {
            view.name: found / wanted
            for view, (found, wanted) in zip(VIEWS, counts.tolist(), strict=True)
            if view.is_dense and wanted
        }

    def ranks(self, pair: SourcePair, left: int, right: int) -> dict[str, tuple[float, int, int]]:
        """By view in use the similarity of two nodes, and each one's rank among the other's nearest; 0: none.

        The first rank is that of `right` among the nearest of `left`.
        """
        slots = self.embedding.table.slots([left, right])
        ranks = self.lists[pair].ranks(Pairs(slots[:1], slots[1:]))[0].tolist()
        sims = self.embedding.similarities([left], [right])[0] / UNIT
        return {
            view.name: (sim, *rank)
            for view, floor, sim, rank in zip(VIEWS, self.options.floors, sims.tolist(), ranks, strict=True)
            if floor != OFF
        }

    def context(self, pair: SourcePair, pairs: Pairs) -> tuple[npt.NDArray[np.float32], Mask]:
        """(P, C) what retrieval knows of pairs and what words they share; (P,) if they are candidates."""
        context, is_candidate = self.lists[pair].context(pairs)
        words = self.embedding.table.rows["words"]
        return np.hstack([context, overlap(words, words, *pairs)]), is_candidate

    def by_type(self, found: FoundPairs) -> Iterator[tuple[SourcePair, npt.NDArray[np.int64]]]:
        """The places in `found` of pairs whose two entities have one type now, by this type."""
        kinds = list(dict.fromkeys(kind for kind, _ in self.embedding.spaces))
        numbers = {kind: number for number, kind in enumerate(kinds)}
        # MISSING reads the last
        type_of = np.array([*(numbers[kind] for kind, _ in self.embedding.spaces), MISSING], np.int32)
        left, right = (type_of[self.embedding.table.rows["space"][slots]] for slots in found.pairs)
        for number in np.unique(left[(left == right) & (left != MISSING)]).tolist():
            yield (
                SourcePair(kinds[number], found.sources.left, found.sources.right),
                np.flatnonzero((left == number) & (right == number)),
            )

    def fill(self, saved: Mapping[SourcePair, CandidatePairs] | None = None) -> None:
        """Makes all candidate lists from the rows, or brings saved ones up to date with them."""
        saved = saved or {}
        self.lists = {}
        for pair in self._source_pairs(set(range(len(self.embedding.spaces)))):
            if pair in saved:
                self.lists[pair] = saved[pair]
                changes = [
                    self._change(space, np.union1d(keys, self._members(space)).astype(np.int32))
                    for space, keys in zip(self._spaces_of(pair), self.lists[pair].keys(), strict=True)
                ]
                self.lists[pair].update(changes[0], changes[1], self.embedding.table.rows["node"])
            else:
                self._meet(pair)

    def _retrieve(self, slots: Slots, spaces_before: npt.NDArray[np.int32]) -> list[FoundPairs]:
        spaces = self.embedding.table.rows["space"][slots]
        concerned = set(np.concatenate([spaces, spaces_before]).tolist()) - {MISSING}
        found = []
        for pair in self._source_pairs(concerned):
            if pair in self.lists:
                changes = [
                    self._change(space, slots[(spaces == space) | (spaces_before == space)])
                    for space in self._spaces_of(pair)
                ]
                touched = self.lists[pair].update(changes[0], changes[1], self.embedding.table.rows["node"])
            else:
                changes, touched = self._meet(pair)
            incident = self.lists[pair].incident(
                np.union1d(touched.left, changes[0].keys).astype(np.int32),
                np.union1d(touched.right, changes[1].keys).astype(np.int32),
            )
            found.append(FoundPairs(pair, _distinct(touched.pairs, incident)))
        return found

    def _meet(self, pair: SourcePair) -> tuple[list[VectorChange], Touched]:
        """Makes the lists of two sources that share a type for the first time."""
        self.lists[pair] = CandidatePairs(WIDTHS, self.options, self.indexes)
        changes = [self._change(space, self._members(space)) for space in self._spaces_of(pair)]
        return changes, self.lists[pair].update(changes[0], changes[1], self.embedding.table.rows["node"])

    def _spaces_of(self, pair: SourcePair) -> tuple[int, int]:
        return self.embedding.number_of[pair.type, pair.left], self.embedding.number_of[pair.type, pair.right]

    def _members(self, space: int) -> Slots:
        return np.nonzero(self.embedding.table.rows["space"] == space)[0].astype(np.int32)

    def _source_pairs(self, spaces: set[int]) -> list[SourcePair]:
        """The pairs of sources that share the type of one of these spaces."""
        pairs = set()
        for space in spaces:
            kind, source = self.embedding.spaces[space]
            for other_kind, other in self.embedding.spaces:
                if other_kind == kind and other != source:
                    pairs.add(SourcePair(kind, min(source, other), max(source, other)))
        return sorted(pairs)

    def _change(self, space: int, slots: Slots) -> VectorChange:
        """These entities' vectors as members of a space, zero for those that are not in it."""
        rows = self.embedding.table.rows
        cells = self.embedding.cells
        vectors = [
            rows[view.name][slots] if cells is None else cells.vectors(view.name, rows, slots)
            for view in VIEWS
        ]
        outside = rows["space"][slots] != space
        for floor, column in zip(self.options.floors, vectors, strict=True):
            column[outside if floor != OFF else ...] = 0
        return VectorChange(slots, vectors)


def _distinct(*parts: Pairs) -> Pairs:
    """The pairs of all parts, each once."""
    keys = sorted_distinct([part.left.astype(np.int64) << 32 | part.right for part in parts])
    return Pairs((keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF).astype(np.int32))
