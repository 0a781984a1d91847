"""Candidates as a relation between two sources, kept up to date in both directions.

For one entity type and two sources: b is a candidate of a when b is among a's `k` nearest in some view, or
a among b's. That is a function of the vectors and nothing else, so it can be maintained piece by piece:
a changed entity is searched for anew, and a *bound* kept beside each list (`index/lists.py`) tells which
lists of the other side it enters.
"""

import copy
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.lists import CandidateLists, compare
from index.search.arrays import (
    MISSING,
    UNREACHABLE,
    Hits,
    Mask,
    Nearest,
    Order,
    Pairs,
    Sims,
    Slots,
    Vectors,
    sorted_distinct,
)
from index.search.vectors import UNIT, VectorIndex

SLACK: Final = 4
CONTEXT: Final = 5  # numbers that a view knows of a pair
Kinds = Sequence[type[VectorIndex]]


class CandidateOptions(NamedTuple):
    """What makes an entity a candidate, per view."""

    k: int
    floors: tuple[int, ...]  # the least similarity of candidates, one a view


class VectorChange(NamedTuple):
    """New vectors of one side's entities; a zero vector takes the entity out of that view."""

    keys: Slots  # (n,) distinct
    vectors: Sequence[Vectors]  # for each view (n, dimensions), as its index takes them


class _Before:
    """The lists as they were before an update touched them."""

    def __init__(self, lists: CandidateLists, slots: int) -> None:
        self._lists = lists
        self._slots = slots
        self._seen: Mask | None = None
        self._parts: list[tuple[Slots, Slots, Sims]] = []

    def remember(self, keys: Slots) -> None:
        """Keeps the lists of these entities; to be called before they change."""
        if not len(keys):
            return
        if self._seen is None:
            self._seen = np.zeros(self._slots, bool)
        keys = _unseen(keys, self._seen)
        if len(keys):
            self._parts.append((keys, *self._lists.lists(keys)))

    def compare(self, buckets: npt.NDArray[np.int64]) -> tuple[Slots, Slots, Slots]:
        """What differs now.

        Args:
            buckets: (k,) of the ranks.

        Returns:
            owners, members: pairs that entered or left the first k, or whose rank moved to another bucket.
            leaders: owners whose first or second changed, which all their gaps are measured against.
        """
        if not self._parts:
            return _NO_SLOTS, _NO_SLOTS, _NO_SLOTS
        keys, old, old_sims = map(np.concatenate, zip(*self._parts, strict=True))
        places, members, led = compare(old, old_sims, *self._lists.lists(keys), buckets)
        return keys[places], members, keys[led]


class Touched(NamedTuple):
    """What an update changed: single pairs, and entities of either side whose pairs all changed."""

    pairs: Pairs
    left: Slots
    right: Slots


class CandidatePairs:
    """The candidate pairs of one type between a left and a right source. One thread owns it.

    Args:
        dimensions: of the vectors, one a view; a sparse vector's are bytes.
        kinds: of index, one a view.
    """

    def __init__(self, dimensions: Sequence[int], options: CandidateOptions, kinds: Kinds) -> None:
        self.options = options
        buckets = rank_bucket(np.arange(options.k))
        self._buckets = buckets
        self._shares = (np.append(buckets, buckets[-1] + 1) / (buckets[-1] + 1)).astype(np.float32)
        self._indexes = [*zip(kinds, dimensions, strict=True)]
        self._views = [self._empty(view) for view in range(len(options.floors))]

    def _empty(self, view: int) -> tuple[CandidateLists, CandidateLists]:
        kind, width = self._indexes[view]
        length = self.options.k + SLACK
        return CandidateLists(kind(width), length), CandidateLists(kind(width), length)

    def without(self, views: Container[int]) -> "CandidatePairs":
        """The same with these views empty. The others are shared: no vector of theirs may change anymore."""
        other = copy.copy(self)
        other._views = [
            self._empty(view) if view in views else sides for view, sides in enumerate(self._views)
        ]
        return other

    def update(self, left: VectorChange, right: VectorChange, order: Order) -> Touched:
        """Applies changed vectors of both sides.

        Args:
            order: (slots,) the node of every slot, which decides between equal similarities.
        """
        parts = [
            self._update_view(view, (left, right), order)
            for view, sides in enumerate(self._views)
            if any(len(side.index) for side in sides)
            or any(change.vectors[view].any() for change in (left, right))
        ]
        parts = parts or [_NOTHING]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Touched(Pairs(columns[0], columns[1]), columns[2], columns[3])

    def _update_view(
        self, view: int, changes: tuple[VectorChange, VectorChange], order: Order
    ) -> tuple[Slots, Slots, Slots, Slots]:
        sides, floor, k = self._views[view], self.options.floors[view], self.options.k
        both = ((0, 1), (1, 0))
        moved: list[Slots] = []
        vectors: list[Vectors] = []
        for side, change in zip(sides, changes, strict=True):
            is_moved = side.index.differ(change.keys, change.vectors[view])
            moved.append(change.keys[is_moved])
            vectors.append(change.vectors[view][is_moved])
        if not any(map(len, moved)):  # often: a neighbour's change leaves most views as they are
            return _NOTHING
        before = tuple(_Before(side, len(order)) for side in sides)

        # the vectors move; before that, each of their entities leaves the lists that it is in
        wanting: list[Slots] = [_NO_SLOTS, _NO_SLOTS]
        for own, other in both:
            if not len(moved[own]):
                continue
            owners, listed = sides[other].listing(moved[own], sides[other].length)
            wanting[other] = sorted_distinct([owners])
            before[other].remember(wanting[other])
            sides[other].drop(owners, listed)
            before[own].remember(moved[own])
            alive = vectors[own].any(axis=1)
            if not alive.all():
                sides[own].remove(moved[own][~alive])
                moved[own], vectors[own] = moved[own][alive], vectors[own][alive]
            sides[own].put(moved[own], vectors[own])
        # lists of the moved, and lists that became too short, are searched anew; and in the same product the
        # moved meet the other lists that they reach
        searched: list[Slots] = []
        fresh = np.zeros(len(order), bool)
        for own, _ in both:
            short = sides[own].short(wanting[own], k, floor)
            fresh[moved[own]] = True
            searched.append(np.concatenate([moved[own], short[~fresh[short]]]))  # the moved come first
            fresh[short] = True
        answers: list[tuple[Nearest, Hits] | None] = [None, None]
        for own, other in both:
            if len(searched[own]):
                queries = sides[own].index.vectors(sides[own].index.rows(searched[own]))
                answers[own] = sides[other].index.search(queries, sides[own].length, floor, order)
        for (own, other), answer in zip(both, answers, strict=True):
            if answer is None:
                continue
            nearest, reached = answer
            sides[own].replace(searched[own], nearest, floor, order)
            newcomers = (reached.query < len(moved[own])) & ~fresh[reached.key]
            owners, keys = reached.key[newcomers], searched[own][reached.query[newcomers]]
            before[other].remember(owners)
            sides[other].insert(owners, keys, reached.sim[newcomers], order)

        left = before[0].compare(self._buckets)
        right = before[1].compare(self._buckets)
        return (
            np.concatenate([left[0], right[1]]),
            np.concatenate([left[1], right[0]]),
            left[2],
            right[2],
        )

    @property
    def size(self) -> int:
        """The most entities that one side has in a view."""
        return max(len(side.index) for sides in self._views for side in sides)

    @property
    def vectors(self) -> int:
        """How many both sides have in all views."""
        return sum(len(side.index) for sides in self._views for side in sides)

    def recall(self, sample: int, chance: np.random.Generator, order: Order) -> npt.NDArray[np.int64]:
        """(views, 2) how many of the k nearest by exhaustive search are in the lists, and how many there are.

        Args:
            sample: entities of either side, drawn by chance, whose lists are looked at.
        """
        counts = np.zeros((len(self._views), 2), np.int64)
        k = self.options.k
        for view, (sides, floor) in enumerate(zip(self._views, self.options.floors, strict=True)):
            for own, other in (sides, sides[::-1]):
                keys = chance.permutation(own.index.keys)[:sample]
                queries = own.index.vectors(own.index.rows(keys))
                exact = other.index.nearest_of_all(queries, k, floor, order)
                wanted = (exact.keys != MISSING).sum(axis=1)
                least = np.where(wanted > 0, exact.sims[np.arange(len(keys)), wanted - 1], UNREACHABLE)
                members, sims = own.lists(keys)
                as_near = (members[:, :k] != MISSING) & (sims[:, :k] >= least[:, None])
                counts[view] += int(as_near.sum()), int(wanted.sum())
        return counts

    def keys(self) -> tuple[Slots, Slots]:
        """Every entity of the left and of the right source that has a vector here."""
        left = np.unique(np.concatenate([sides[0].index.keys for sides in self._views]))
        right = np.unique(np.concatenate([sides[1].index.keys for sides in self._views]))
        return left, right

    def save(self, directory: Path, numbers: Slots) -> None:
        """Writes vectors and lists into an existing directory, with `numbers` (slots,) in place of slots."""
        for view, sides in enumerate(self._views):
            for own, side in enumerate(sides):
                side.save(directory / f"{view}-{own}", numbers)

    @classmethod
    def load(
        cls, directory: Path, dimensions: Sequence[int], options: CandidateOptions, kinds: Kinds
    ) -> "CandidatePairs":
        """Reads what `save` wrote; the numbers are slots now.

        Raises:
            ValueError, OSError, KeyError: files are missing or do not fit together.
        """
        pairs = cls(dimensions, options, kinds)
        pairs._views = [
            (
                CandidateLists.load(directory / f"{view}-0", kind),
                CandidateLists.load(directory / f"{view}-1", kind),
            )
            for view, kind in enumerate(kinds)
        ]
        return pairs

    def incident(self, left: Slots, right: Slots) -> Pairs:
        """All candidate pairs of these distinct entities; a pair may come more than once."""
        lefts, rights = [_NO_SLOTS], [_NO_SLOTS]
        for sides in self._views:
            for own, keys in enumerate((left, right)):
                if not len(sides[own].index):
                    continue
                members = sides[own].lists(keys)[0][:, : self.options.k]
                row, column = np.nonzero(members != MISSING)
                owners, listed = sides[own].listing((right, left)[own], self.options.k)
                owners = np.concatenate([keys[row], owners])
                listed = np.concatenate([members[row, column], listed])
                lefts.append(owners if own == 0 else listed)
                rights.append(listed if own == 0 else owners)
        return Pairs(np.concatenate(lefts), np.concatenate(rights))

    def context(self, pairs: Pairs) -> tuple[npt.NDArray[np.float32], Mask]:
        """The retrieval context of pairs and whether they are candidates at all.

        Returns:
            context: (P, CONTEXT * views): similarity, rank bucket of right in left's list and of left in
                right's (0 first, 1 absent), and how far the pair is ahead of the best other in either list.
            candidates: (P,) whether either lists the other among its first k in some view.
        """
        context = np.zeros((len(pairs.left), CONTEXT * len(self._views)), np.float32)
        is_candidate = np.zeros(len(pairs.left), bool)
        for view, sides in enumerate(self._views):
            columns = context[:, CONTEXT * view : CONTEXT * (view + 1)]
            if not all(len(side.index) for side in sides):  # all absent
                columns[:, 1:3] = 1
                continue
            rows = [side.index.rows(keys) for side, keys in zip(sides, pairs, strict=True)]
            sims = sides[0].index.similarities(rows[0], sides[1].index, rows[1])
            columns[:, 0] = sims / UNIT
            for own, other in ((0, 1), (1, 0)):
                ranks_and_gaps = columns[:, 1 + own :: 2]
                sides[own].rank(rows[own], pairs[other], sims, self._shares, ranks_and_gaps, is_candidate)
        return context, is_candidate

    def ranks(self, pairs: Pairs) -> npt.NDArray[np.int64]:
        """(P, views, 2) each one's rank among the other's nearest, first right's; from 1, 0 for none."""
        ranks = np.zeros((len(pairs.left), len(self._views), 2), np.int64)
        for view, sides in enumerate(self._views):
            for own, other in ((0, 1), (1, 0)):
                members = sides[own].lists(pairs[own])[0][:, : self.options.k]
                is_other = members == pairs[other][:, None]
                ranks[:, view, own] = np.where(is_other.any(axis=1), is_other.argmax(axis=1) + 1, 0)
        return ranks


def rank_bucket(rank: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """First, second, third and fourth, fifth to eighth, ... as 0, 1, 2, 3, ...; `rank` counts from 0."""
    return np.frexp(rank)[1].astype(np.int64)


@compiled
def _unseen(keys: Any, seen: Any) -> Any:
    """The keys that are not seen yet, each once; marks them as seen."""
    first = np.empty(len(keys), np.int32)
    count = 0
    for key in keys:
        if not seen[key]:
            seen[key] = True
            first[count] = key
            count += 1
    return first[:count]


_NO_SLOTS: Final = np.zeros(0, np.int32)
_NOTHING: Final = (_NO_SLOTS, _NO_SLOTS, _NO_SLOTS, _NO_SLOTS)
