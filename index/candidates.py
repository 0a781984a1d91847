"""Candidates as a relation between two sources, kept up to date in both directions.

For one entity type and two sources: b is a candidate of a when b is among a's `k` nearest in some view, or
a among b's. That is a function of the vectors and nothing else, so it can be maintained piece by piece:
a changed entity is searched for anew, and a *bound* kept beside each list tells which lists of the other
side it enters (`index/vectors.py`).

Invariant of a list: it holds every entity of the other side that is not below its bound, best first, equal
similarities by node. Lists are a little longer than `k`, so that a removal seldom needs a new search.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.vectors import Hits, Int8s, Sims, Slots, VectorIndex, best, select

SLACK: Final = 4
NOBODY: Final = -1
_LAST_NODE: Final = np.uint64((1 << 64) - 1)

Order = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
SlotsOf = Callable[[Order], Slots]


class CandidateOptions(NamedTuple):
    """What makes an entity a candidate, per view."""

    k: int
    floors: tuple[int, ...]  # similarity below which nobody is a candidate, one a view


class Change(NamedTuple):
    """New vectors of one side's entities; a zero vector takes the entity out of that view."""

    keys: Slots  # (n,) distinct
    vectors: Int8s  # (n, views, dimensions)


class Pairs(NamedTuple):
    """P pairs of slots."""

    left: Slots
    right: Slots


class _Side:
    """One source's entities in one view: their vectors, and for each its list over the other source."""

    def __init__(self, dimensions: int, length: int) -> None:
        self.index = VectorIndex(dimensions)
        self.length = length
        self.members = np.zeros((0, length), np.int32)
        self.sims = np.zeros((0, length), np.int32)
        self.bound_sim = np.zeros(0, np.int32)
        self.bound_node = np.zeros(0, np.uint64)

    def save(self, path: Path, order: Order) -> None:
        """Writes everything with nodes in the place of slots, which mean nothing to another process."""
        n = len(self.index)
        self.index.save(path.with_suffix(".faiss"))
        members = self.members[:n]
        np.savez(
            path.with_suffix(".npz"),
            nodes=order[self.index.keys],
            members=np.where(members == NOBODY, _LAST_NODE, order[members]),
            sims=self.sims[:n],
            bound_sim=self.bound_sim[:n],
            bound_node=self.bound_node[:n],
        )

    @classmethod
    def load(cls, path: Path, slots_of: SlotsOf) -> "_Side":
        """Reads what `save` wrote; ValueError or OSError when that is not to be had."""
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        members = arrays["members"]
        present = members != _LAST_NODE
        slots = np.full(members.shape, NOBODY, np.int32)
        slots[present] = slots_of(members[present])
        index = VectorIndex.load(path.with_suffix(".faiss"), slots_of(arrays["nodes"]), arrays["bound_sim"])
        side = cls(0, members.shape[1])
        side.index, side.members, side.sims = index, slots, arrays["sims"]
        side.bound_sim, side.bound_node = arrays["bound_sim"], arrays["bound_node"]
        return side

    def put(self, keys: Slots, vectors: Int8s) -> None:
        self.index.put(keys, vectors)
        missing = len(self.index) - len(self.members)
        if missing > 0:
            more = max(1024, missing, len(self.members))
            self.members = np.concatenate([self.members, np.full((more, self.length), NOBODY, np.int32)])
            self.sims = np.concatenate([self.sims, np.zeros((more, self.length), np.int32)])
            self.bound_sim = np.concatenate([self.bound_sim, np.zeros(more, np.int32)])
            self.bound_node = np.concatenate([self.bound_node, np.zeros(more, np.uint64)])

    def remove(self, keys: Slots) -> None:
        for source, target in self.index.remove(keys):
            for array in (self.members, self.sims, self.bound_sim, self.bound_node):
                array[target] = array[source]

    def lists(self, keys: Slots) -> tuple[Slots, Sims]:
        """(n, length) members and similarities of these entities; NOBODY where they have no list."""
        rows = self.index.rows(keys)
        here = rows >= 0
        members = np.full((len(keys), self.length), NOBODY, np.int32)
        sims = np.zeros((len(keys), self.length), np.int32)
        members[here], sims[here] = self.members[rows[here]], self.sims[rows[here]]
        return members, sims

    def listing(self, flags: Mask, k: int) -> tuple[Slots, Slots]:
        """Every (owner, member) among the first k of a list whose member is flagged."""
        members = self.members[: len(self.index), :k]
        rows, columns = np.nonzero(flags[members])  # NOBODY reads the last flag, which is never set
        return self.index.keys[rows], members[rows, columns]

    def drop(self, owners: Slots, gone: Mask) -> None:
        """Takes the flagged slots out of these lists."""
        rows = self.index.rows(owners)
        hit = gone[self.members[rows]]
        order = np.argsort(hit, axis=1, kind="stable")
        lost = np.take_along_axis(hit, order, 1)
        self.members[rows] = np.where(lost, NOBODY, np.take_along_axis(self.members[rows], order, 1))
        self.sims[rows] = np.where(lost, 0, np.take_along_axis(self.sims[rows], order, 1))

    def short(self, owners: Slots, k: int, floor: int) -> Slots:
        """Those with fewer than k members although the other side may have more for them."""
        rows = self.index.rows(owners)
        incomplete = (self.bound_sim[rows] > floor) | (self.bound_node[rows] != _LAST_NODE)
        is_short: Mask = (rows >= 0) & incomplete & (self.members[rows, k - 1] == NOBODY)
        return owners[is_short]

    def replace(self, owners: Slots, hits: Hits, floor: int, order: Order) -> None:
        """Sets lists that were searched anew; `hits.query` counts the owners."""
        rows = self.index.rows(owners)
        self.members[rows], self.sims[rows] = NOBODY, 0
        self._write(rows, hits, order, np.full(len(rows), floor), np.full(len(rows), _LAST_NODE))

    def entered(self, hits: Hits, order: Order) -> Hits:
        """Those of the hits (`key` owns the list, `query` is the newcomer's slot) that the lists take in."""
        rows = self.index.rows(hits.key)
        takes = (hits.sim > self.bound_sim[rows]) | (
            (hits.sim == self.bound_sim[rows]) & (order[hits.query] <= self.bound_node[rows])
        )
        return select(hits, takes)

    def insert(self, hits: Hits, order: Order) -> None:
        """Puts newcomers into the lists that take them in."""
        owners, owner_of = np.unique(hits.key, return_inverse=True)
        rows = self.index.rows(owners)
        old = self.members[rows]
        query, column = np.nonzero(old != NOBODY)
        merged = Hits(
            np.concatenate([query, owner_of]),
            np.concatenate([old[query, column], hits.query.astype(np.int32)]),
            np.concatenate([self.sims[rows][query, column], hits.sim]),
        )
        cut = np.bincount(merged.query, minlength=len(rows)) > self.length
        bounds = self.bound_sim[rows], self.bound_node[rows]
        self._write(rows, best(merged, self.length, order), order, *bounds, cut)

    def _write(
        self,
        rows: npt.NDArray[np.int32],
        hits: Hits,
        order: Order,
        bound_sim: npt.NDArray[np.int64] | Sims,
        bound_node: Order,
        cut: Mask | None = None,
    ) -> None:
        """Writes sorted hits as the lists of `rows`; a list that was cut gets its last member as bound."""
        rank = np.arange(len(hits.query)) - np.searchsorted(hits.query, hits.query)
        self.members[rows[hits.query], rank] = hits.key
        self.sims[rows[hits.query], rank] = hits.sim
        if cut is None:
            cut = self.members[rows, -1] != NOBODY
        last = rows[cut]
        self.bound_sim[rows], self.bound_node[rows] = bound_sim, bound_node
        self.bound_sim[last] = self.sims[last, -1]
        self.bound_node[last] = order[self.members[last, -1]]
        self.index.bound(rows, self.bound_sim[rows])


class _Before:
    """The first k of every list as it was before an update touched it."""

    def __init__(self, side: _Side, slots: int) -> None:
        self._side = side
        self._seen = np.zeros(slots, bool)
        self._keys: list[Slots] = []
        self._lists: list[tuple[Slots, Sims]] = []

    def remember(self, keys: Slots) -> None:
        """To be called before the lists of these entities change."""
        keys = np.unique(keys[~self._seen[keys]])
        self._seen[keys] = True
        self._keys.append(keys)
        self._lists.append(self._side.lists(keys))

    def compare(self, k: int) -> tuple[Slots, Slots, Slots]:
        """What differs now.

        Returns:
            owners, members: pairs that entered or left the first k, or whose rank moved to another bucket.
            leaders: owners whose first or second changed, which all their gaps are measured against.
        """
        keys = np.concatenate(self._keys)
        old, old_sims = (np.concatenate(columns)[:, :k] for columns in zip(*self._lists, strict=True))
        new, new_sims = (column[:, :k] for column in self._side.lists(keys))
        buckets = rank_bucket(np.arange(k))
        is_same = (old[:, :, None] == new[:, None, :]) & (old[:, :, None] != NOBODY)
        stays = (
            (is_same & (buckets[:, None] == buckets)).any(axis=2),
            (is_same & (buckets[:, None] == buckets)).any(axis=1),
        )
        owners, members = [], []
        for list_, unchanged in zip((old, new), stays, strict=True):
            row, column = np.nonzero(~unchanged & (list_ != NOBODY))
            owners.append(keys[row])
            members.append(list_[row, column])
        led = (old[:, :2] != new[:, :2]).any(axis=1) | (old_sims[:, :2] != new_sims[:, :2]).any(axis=1)
        return np.concatenate(owners), np.concatenate(members), keys[led]


class Touched(NamedTuple):
    """What an update changed: single pairs, and entities of either side all of whose pairs changed."""

    pairs: Pairs
    left: Slots
    right: Slots


class CandidatePairs:
    """The candidate pairs of one type between a left and a right source. One thread owns it."""

    def __init__(self, dimensions: int, options: CandidateOptions) -> None:
        self.options = options
        length = options.k + SLACK
        self._views = [(_Side(dimensions, length), _Side(dimensions, length)) for _ in options.floors]

    def update(self, left: Change, right: Change, order: Order) -> Touched:
        """Takes in changed vectors of both sides.

        Args:
            order: (slots,) the node of every slot, which decides between equal similarities.
        """
        parts = [self._update_view(view, (left, right), order) for view in range(len(self._views))]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Touched(Pairs(columns[0], columns[1]), columns[2], columns[3])

    def _update_view(
        self, view: int, changes: tuple[Change, Change], order: Order
    ) -> tuple[Slots, Slots, Slots, Slots]:
        sides, floor, k = self._views[view], self.options.floors[view], self.options.k
        before = tuple(_Before(side, len(order)) for side in sides)
        both = ((0, 1), (1, 0))

        moved: list[Slots] = []
        for side, change in zip(sides, changes, strict=True):
            rows = side.index.rows(change.keys)
            here = rows >= 0
            same: Mask = np.logical_not(change.vectors[:, view].any(axis=1))
            same[here] = (side.index.vectors(rows[here]) == change.vectors[here, view]).all(axis=1)
            moved.append(change.keys[~same])

        # nobody lists an entity that is about to move
        wanting: list[Slots] = []
        for own, other in both:
            gone = np.zeros(len(order) + 1, bool)
            gone[moved[other]] = True
            owners = np.unique(sides[own].listing(gone, sides[own].length)[0])
            before[own].remember(owners)
            sides[own].drop(owners, gone)
            wanting.append(owners)
        # the vectors move
        for own, _ in both:
            is_moved = np.isin(changes[own].keys, moved[own])
            keys, vectors = changes[own].keys[is_moved], changes[own].vectors[is_moved, view]
            before[own].remember(keys)
            alive = vectors.any(axis=1)
            sides[own].remove(keys[~alive])
            sides[own].put(keys[alive], vectors[alive])
            moved[own] = keys[alive]
        # lists of the moved, and lists that became too short, are searched anew; and in the same product the
        # moved meet the other lists that they reach
        searched = [
            np.union1d(sides[own].short(wanting[own], k, floor), moved[own]).astype(np.int32)
            for own, _ in both
        ]
        fresh = np.zeros(len(order), bool)
        for own, _ in both:
            fresh[searched[own]] = True
        answers = []
        for own, other in both:
            queries = sides[own].index.vectors(sides[own].index.rows(searched[own]))
            answers.append(sides[other].index.search(queries, sides[own].length, floor, order))
        for (own, other), (nearest, reached) in zip(both, answers, strict=True):
            sides[own].replace(searched[own], nearest, floor, order)
            is_moved = np.isin(searched[own], moved[own])
            hits = select(reached, is_moved[reached.query] & ~fresh[reached.key])
            hits = hits._replace(query=searched[own][hits.query].astype(np.int64))
            hits = sides[other].entered(hits, order)
            before[other].remember(hits.key)
            sides[other].insert(hits, order)

        left = before[0].compare(k)
        right = before[1].compare(k)
        return (
            np.concatenate([left[0], right[1]]),
            np.concatenate([left[1], right[0]]),
            left[2],
            right[2],
        )

    def keys(self) -> tuple[Slots, Slots]:
        """Every entity of the left and of the right source that has a vector here."""
        left = np.unique(np.concatenate([sides[0].index.keys for sides in self._views]))
        right = np.unique(np.concatenate([sides[1].index.keys for sides in self._views]))
        return left, right

    def save(self, directory: Path, order: Order) -> None:
        """Writes vectors and lists into an existing directory."""
        for view, sides in enumerate(self._views):
            for own, side in enumerate(sides):
                side.save(directory / f"{view}-{own}", order)

    @classmethod
    def load(
        cls, directory: Path, dimensions: int, options: CandidateOptions, slots_of: SlotsOf
    ) -> "CandidatePairs":
        """Reads what `save` wrote.

        Args:
            slots_of: gives every node a slot.

        Raises:
            ValueError, OSError, KeyError: files are missing or do not fit together.
        """
        pairs = cls(dimensions, options)
        pairs._views = [
            (_Side.load(directory / f"{view}-0", slots_of), _Side.load(directory / f"{view}-1", slots_of))
            for view in range(len(options.floors))
        ]
        return pairs

    def incident(self, left: Slots, right: Slots, slots: int) -> Pairs:
        """All candidate pairs of these entities; a pair may come more than once."""
        lefts, rights = [], []
        for sides in self._views:
            for own, (keys, other_keys) in enumerate(((left, right), (right, left))):
                members, _ = sides[own].lists(keys)
                row, column = np.nonzero(members[:, : self.options.k] != NOBODY)
                flags = np.zeros(slots + 1, bool)
                flags[other_keys] = True
                owners, listed = sides[own].listing(flags, self.options.k)
                owners = np.concatenate([keys[row], owners])
                listed = np.concatenate([members[row, column], listed])
                lefts.append(owners if own == 0 else listed)
                rights.append(listed if own == 0 else owners)
        return Pairs(np.concatenate(lefts), np.concatenate(rights))

    def context(self, pairs: Pairs) -> tuple[npt.NDArray[np.float32], Mask]:
        """The retrieval context of pairs and whether they are candidates at all.

        Returns:
            context: (P, 5 * views): similarity, rank bucket of right in left's list and of left in right's
                (0 first, 1 absent), and how far the pair is ahead of the best other in either list.
            candidates: (P,) whether either lists the other among its first k in some view.
        """
        columns = []
        is_candidate = np.zeros(len(pairs.left), bool)
        for sides in self._views:
            rows = [side.index.rows(keys) for side, keys in zip(sides, pairs, strict=True)]
            here = (rows[0] >= 0) & (rows[1] >= 0)
            sim = np.zeros(len(here), np.float32)
            vectors = [
                side.index.vectors(row[here]).astype(np.float32)
                for side, row in zip(sides, rows, strict=True)
            ]
            sim[here] = np.einsum("pd,pd->p", *vectors)
            ranks, gaps = [], []
            for own, other in ((0, 1), (1, 0)):
                members, sims = sides[own].lists(pairs[own])
                is_other = members[:, : self.options.k] == pairs[other][:, None]
                listed = is_other.any(axis=1)
                is_candidate |= listed
                bucket = rank_bucket(is_other.argmax(axis=1))
                absent = rank_bucket(np.array([self.options.k - 1])) + 1
                ranks.append(np.where(listed, bucket, absent) / absent)
                gaps.append(sim - np.where(is_other[:, 0], sims[:, 1], sims[:, 0]))
            columns += [sim / 65536, *ranks, *(gap / 65536 for gap in gaps)]
        return np.stack(columns, axis=1).astype(np.float32), is_candidate


def rank_bucket(rank: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """First, second, third and fourth, fifth to eighth, ... as 0, 1, 2, 3, ...; `rank` counts from 0."""
    return np.ceil(np.log2(rank + 1)).astype(np.int64)
