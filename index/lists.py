"""One source's candidate lists over another source in one view, and the compiled loops that keep them.

Invariant of a list: it holds every entity of the other side that is not below its *bound*, best first, equal
similarities by node. Lists are a little longer than `k`, so that a removal seldom needs a new search.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.arrays import MISSING, Mask, Nearest, Order, Rows, Sims, Slots, Vectors, grown
from index.search.postings import Postings
from index.search.vectors import UNIT, VectorIndex

_LAST_NODE: Final = np.uint64((1 << 64) - 1)


class CandidateLists:
    """Vectors of one source's entities, and for each its list. A list may be empty.

    Args:
        index: an empty one, for the vectors.
        length: of the lists, the spare places included.
    """

    def __init__(self, index: VectorIndex, length: int) -> None:
        self.index = index
        self.length = length
        self._members = np.zeros((0, length), np.int32)
        self._sims = np.zeros((0, length), np.int32)
        self._bound_sim = np.zeros(0, np.int32)
        self._bound_node = np.zeros(0, np.uint64)
        self._owners = Postings()  # under each member: the owners of the lists that it is in

    def put(self, keys: Slots, vectors: Vectors) -> None:
        """Adds entities with empty lists, or changes the vectors of known ones."""
        before = len(self.index)
        self.index.put(keys, vectors)
        size = len(self.index)
        self._members, self._sims = grown(self._members, size), grown(self._sims, size)
        self._bound_sim, self._bound_node = grown(self._bound_sim, size), grown(self._bound_node, size)
        self._members[before:size] = MISSING
        for array in (self._sims, self._bound_sim, self._bound_node):
            array[before:size] = 0

    def remove(self, keys: Slots) -> None:
        """Removes those of the entities that are here, and their lists."""
        here = keys[self.index.rows(keys) >= 0]
        self._owners.remove(*_flat(self.lists(here)[0], here))
        for source, target in self.index.remove(keys):
            for array in (self._members, self._sims, self._bound_sim, self._bound_node):
                array[target] = array[source]

    def lists(self, keys: Slots) -> tuple[Slots, Sims]:
        """(n, length) members and similarities of these entities; MISSING where they have no list."""
        return _lists(self.index.rows(keys), self._members, self._sims)

    def listing(self, members: Slots, k: int) -> tuple[Slots, Slots]:
        """Owners and members of all lists that have one of these distinct members among their first k."""
        place, found = self._owners.find(members.view(np.uint32))
        owners, listed = found.view(np.int32), members[place]
        if k < self.length:
            inside = _within(self.index.rows(owners), listed, k, self._members)
            owners, listed = owners[inside], listed[inside]
        return owners, listed

    def drop(self, owners: Slots, members: Slots) -> None:
        """Removes each member from its owner's list."""
        _drop(self.index.rows(owners), members, self._members, self._sims)
        self._owners.remove(members.view(np.uint32), owners.view(np.uint32))

    def short(self, owners: Slots, k: int, floor: int) -> Slots:
        """The owners of lists with fewer than k members although the other side may have more."""
        if not len(owners):
            return owners
        rows = self.index.rows(owners)
        incomplete = (self._bound_sim[rows] > floor) | (self._bound_node[rows] != _LAST_NODE)
        is_short: Mask = (rows >= 0) & incomplete & (self._members[rows, k - 1] == MISSING)
        return owners[is_short]

    def replace(self, owners: Slots, nearest: Nearest, floor: int, order: Order) -> None:
        """Sets lists that were searched anew: a full one is bounded by its last member, others by `floor`."""
        rows = self.index.rows(owners)
        self._owners.remove(*_flat(self._members[rows], owners))
        _replace(rows, *nearest, floor, order, self._members, self._sims, self._bound_sim, self._bound_node)
        self._owners.add(*_flat(nearest.keys, owners))
        self.index.bound(rows, self._bound_sim[rows])

    def insert(self, owners: Slots, newcomers: Slots, sims: Sims, order: Order) -> None:
        """Inserts each newcomer that reaches its list's bound; a member that has to leave raises the bound.

        Args:
            sims: of owner and newcomer.
        """
        rows = self.index.rows(owners)
        lists = self._members, self._sims, self._bound_sim, self._bound_node
        taken, gone = _insert(rows, newcomers, sims, order, *lists)
        self._owners.add(*_flat(taken, owners))
        self._owners.remove(*_flat(gone, owners))
        self.index.bound(rows, self._bound_sim[rows])

    def rank(
        self,
        rows: Rows,
        members: Slots,
        sims: Sims,
        shares: npt.NDArray[np.float32],
        ranks_and_gaps: npt.NDArray[np.float32],
        is_listed: Mask,
    ) -> None:
        """What lists know of P pairs.

        Args:
            rows: (P,) the owners' in the index, -1 for none.
            sims: (P,) of owner and member.
            shares: (k + 1,) the feature for each rank among the first k, and for all others.
            ranks_and_gaps: (P, 2) filled with the member's, and with how far it is ahead of the best other.
            is_listed: (P,) set to true where the member is among the first k.
        """
        _rank(rows, members, sims, shares, self._members, self._sims, ranks_and_gaps, is_listed)

    def save(self, path: Path, numbers: Slots) -> None:
        """Writes everything with `numbers` (slots,) in the place of slots."""
        n = len(self.index)
        self.index.save(path.with_suffix(".faiss"))
        members = self._members[:n]
        np.savez(
            path.with_suffix(".npz"),
            keys=numbers[self.index.keys],
            members=np.where(members == MISSING, MISSING, numbers[members]),
            sims=self._sims[:n],
            bound_sim=self._bound_sim[:n],
            bound_node=self._bound_node[:n],
        )

    @classmethod
    def load(cls, path: Path, kind: type[VectorIndex]) -> "CandidateLists":
        """Reads what `save` wrote, with this kind of index; the numbers are slots now.

        Raises:
            ValueError, KeyError, OSError: a file is missing, or they do not fit together.
        """
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        members = arrays["members"]
        index = kind.load(path.with_suffix(".faiss"), arrays["keys"], arrays["bound_sim"])
        lists = cls(index, members.shape[1])
        lists._members, lists._sims = members, arrays["sims"]
        lists._bound_sim, lists._bound_node = arrays["bound_sim"], arrays["bound_node"]
        lists._owners.add(*_flat(members, index.keys))
        return lists


@compiled
def _flat(members: Any, owners: Any) -> tuple[Any, Any]:
    """The members (n, length) of lists and their owners (n,), as they are posted: without MISSING."""
    words, values = np.empty(members.size, np.uint32), np.empty(members.size, np.uint32)
    count = 0
    for i in range(len(members)):
        for member in members[i]:
            if member != MISSING:
                words[count], values[count] = member, owners[i]
                count += 1
    return words[:count], values[:count]


@compiled
def _lists(rows: Any, members: Any, sims: Any) -> tuple[Any, Any]:
    length = members.shape[1]
    found = np.full((len(rows), length), MISSING, np.int32)
    found_sims = np.zeros((len(rows), length), np.int32)
    for i in range(len(rows)):
        if rows[i] >= 0:
            for place in range(length):  # by number: assigning whole rows takes seconds to compile
                found[i, place], found_sims[i, place] = members[rows[i], place], sims[rows[i], place]
    return found, found_sims


@compiled
def _within(rows: Any, listed: Any, k: int, members: Any) -> Any:
    inside = np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        for place in range(k):
            inside[i] |= members[rows[i], place] == listed[i]
    return inside


@compiled
def _drop(rows: Any, dropped: Any, members: Any, sims: Any) -> None:
    last = members.shape[1] - 1
    for i in range(len(rows)):
        row, at = rows[i], 0
        while members[row, at] != dropped[i]:
            at += 1
        for place in range(at, last):
            members[row, place], sims[row, place] = members[row, place + 1], sims[row, place + 1]
        members[row, last], sims[row, last] = MISSING, 0


@compiled
def _replace(
    rows: Any,
    keys: Any,
    near_sims: Any,
    floor: Any,
    order: Any,
    members: Any,
    sims: Any,
    bound_sim: Any,
    bound_node: Any,
) -> None:
    last = members.shape[1] - 1
    for i in range(len(rows)):
        row = rows[i]
        for place in range(last + 1):
            members[row, place], sims[row, place] = keys[i, place], near_sims[i, place]
        bound_sim[row], bound_node[row] = floor, _LAST_NODE
        if keys[i, last] != MISSING:
            bound_sim[row], bound_node[row] = near_sims[i, last], order[keys[i, last]]


@compiled
def _insert(
    rows: Any,
    newcomers: Any,
    new_sims: Any,
    order: Any,
    members: Any,
    sims: Any,
    bound_sim: Any,
    bound_node: Any,
) -> tuple[Any, Any]:
    """Returns (n, 1) the newcomer that entered each list, and (n, 1) the member that left it, or MISSING."""
    length = members.shape[1]
    taken, gone = np.full((len(rows), 1), MISSING, np.int32), np.full((len(rows), 1), MISSING, np.int32)
    for i in range(len(rows)):
        row, newcomer, sim = rows[i], newcomers[i], new_sims[i]
        node = order[newcomer]
        if sim < bound_sim[row] or (sim == bound_sim[row] and node > bound_node[row]):
            continue
        filled = length
        while filled > 0 and members[row, filled - 1] == MISSING:
            filled -= 1
        at = filled
        while at > 0 and (
            sim > sims[row, at - 1] or (sim == sims[row, at - 1] and node < order[members[row, at - 1]])
        ):
            at -= 1
        full = filled == length
        if at < length:
            taken[i, 0], gone[i, 0] = newcomer, members[row, length - 1]
            for place in range(min(filled, length - 1), at, -1):
                members[row, place], sims[row, place] = members[row, place - 1], sims[row, place - 1]
            members[row, at], sims[row, at] = newcomer, sim
        if full:
            bound_sim[row], bound_node[row] = sims[row, length - 1], order[members[row, length - 1]]
    return taken, gone


@compiled
def _rank(
    rows: Any,
    others: Any,
    pair_sims: Any,
    shares: Any,
    members: Any,
    sims: Any,
    ranks_and_gaps: Any,
    listed: Any,
) -> None:
    k = len(shares) - 1
    for i in range(len(rows)):
        row, rank, ahead = rows[i], k, pair_sims[i]
        if row >= 0:
            for place in range(k):
                if members[row, place] == others[i]:
                    rank = place
                    listed[i] = True
                    break
            ahead -= sims[row, 1] if rank == 0 else sims[row, 0]
        ranks_and_gaps[i, 0], ranks_and_gaps[i, 1] = shares[rank], np.float32(ahead / UNIT)


@compiled
def compare(old: Any, old_sims: Any, new: Any, new_sims: Any, buckets: Any) -> tuple[Any, Any, Any]:
    """How n lists changed.

    Args:
        old, new: (n, >= k) members, and their similarities.
        buckets: (k,) the bucket of each rank.

    Returns:
        places, members: the list's place among the n, and a member that entered or left its first k,
            or moved to another bucket there.
        leaders: (n,) whether its first or second changed, which all its gaps are measured against.
    """
    k = len(buckets)
    places, members = np.empty(64, np.int64), np.empty(64, np.int32)
    count = 0
    led = np.zeros(len(old), np.bool_)
    for i in range(len(old)):
        for one, other in ((old, new), (new, old)):
            for a in range(k):
                member = one[i, a]
                if member == MISSING:
                    break
                stays = False
                for b in range(k):
                    if other[i, b] == member:
                        stays = buckets[a] == buckets[b]
                        break
                if not stays:
                    if count == len(places):
                        places, members = np.concatenate((places, places)), np.concatenate((members, members))
                    places[count], members[count] = i, member
                    count += 1
        for a in range(min(2, old.shape[1])):
            if old[i, a] != new[i, a] or old_sims[i, a] != new_sims[i, a]:
                led[i] = True
    return places[:count], members[:count], led
