"""Exact nearest-neighbour search over integer vectors, both ways, on FAISS.

Invariant: one row per key, rows dense, and what is stored is what was last put.

Vectors are int8 with a norm of at most 256. A dot product of two is an integer of at most 65,536, and so
is every partial sum (Cauchy-Schwarz), which float32 holds exactly: similarities do not depend on the order
of summation, hence not on what else is in a batch. Ties are real ties, decided by the caller's `order`.

Every row also carries a *bound*: how similar a newcomer must at least be to matter to it. It is stored as
one more dimension, so that 'which rows does this newcomer matter to' is one more inner product.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]
Sims = npt.NDArray[np.int32]

UNREACHABLE: Final = 1 << 17  # a bound above every similarity


class Hits(NamedTuple):
    """Flat matches: row `query[i]` of the queries met `key[i]` with similarity `sim[i]`."""

    query: npt.NDArray[np.int64]
    key: Slots
    sim: Sims


class VectorIndex:
    """int8 vectors under non-negative int32 keys. One thread owns it."""

    def __init__(self, dimensions: int) -> None:
        self._faiss: Any = faiss.IndexFlatIP(dimensions + 1)
        self._keys = np.zeros(0, np.int32)
        self._row_of = np.full(0, -1, np.int32)

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    @property
    def keys(self) -> Slots:
        """(n,) the key of every row."""
        return self._keys[: len(self)]

    def rows(self, keys: Slots) -> npt.NDArray[np.int32]:
        """(len(keys),) the row of each key, -1 for those that are not here."""
        if len(keys) and int(keys.max()) >= len(self._row_of):
            grown = np.full(max(1024, 2 * int(keys.max()) + 2), -1, np.int32)
            grown[: len(self._row_of)] = self._row_of
            self._row_of = grown
        return self._row_of[keys]

    def put(self, keys: Slots, vectors: Int8s) -> None:
        """Adds or replaces. New rows get the bound UNREACHABLE.

        Args:
            keys: (n,) distinct.
            vectors: (n, dimensions).

        Raises:
            ValueError: keys repeat, or the shapes do not fit.
        """
        if len(np.unique(keys)) != len(keys) or vectors.shape != (len(keys), self._faiss.d - 1):
            raise ValueError(f"{len(keys)} keys must be distinct and have vectors of {self._faiss.d - 1}")
        rows = self.rows(keys)
        known = rows >= 0
        self._storage()[rows[known], :-1] = vectors[known]
        new_keys, new_vectors = keys[~known], vectors[~known]
        if len(new_keys):
            first = len(self)
            with_bound = np.full((len(new_keys), self._faiss.d), -UNREACHABLE, np.float32)
            with_bound[:, :-1] = new_vectors
            self._faiss.add(with_bound)
            self._keys = _grown(self._keys, len(self))
            self._keys[first : len(self)] = new_keys
            self._row_of[new_keys] = np.arange(first, len(self))

    def remove(self, keys: Slots) -> list[tuple[int, int]]:
        """Removes the keys that are here; the last rows move into the holes.

        Returns:
            The moves (from row, to row), in the order in which they were made.
        """
        moves = []
        rows = self.rows(keys)
        storage = self._storage()
        last = len(self) - 1
        for row in sorted(rows[rows >= 0].tolist(), reverse=True):
            self._row_of[self._keys[row]] = -1
            if row != last:
                storage[row] = storage[last]
                self._keys[row] = self._keys[last]
                self._row_of[self._keys[row]] = row
                moves.append((last, row))
            last -= 1
        if last + 1 < len(self):
            self._faiss.remove_ids(faiss.IDSelectorRange(last + 1, len(self)))
        return moves

    def bound(self, rows: npt.NDArray[np.int32], bounds: Sims) -> None:
        """Sets the bounds of rows."""
        self._storage()[rows, -1] = -bounds.astype(np.float32)

    def vectors(self, rows: npt.NDArray[np.int32]) -> Int8s:
        """(len(rows), dimensions) the stored vectors."""
        return self._storage()[rows, :-1].astype(np.int8)

    def nearest(self, queries: Int8s, k: int, floor: int, order: npt.NDArray[np.uint64]) -> Hits:
        """For every query its k most similar rows from `floor` up, best first, equal ones by `order[key]`."""
        if not len(self) or not len(queries):
            return _no_hits()
        padded = _with(queries, 0.0)
        sims, rows = self._faiss.search(padded, min(k + 1, len(self)))
        found = (rows >= 0) & (sims >= floor)
        query, _ = np.nonzero(found)
        hits = Hits(query, self._keys[rows[found]], sims[found].astype(np.int32))
        if sims.shape[1] == k + 1:
            # FAISS picks any of those that tie for the last place; for these queries look at all that tie
            tied = np.nonzero((sims[:, k] == sims[:, k - 1]) & (sims[:, k] >= floor))[0]
            if len(tied):
                keep = ~np.isin(hits.query, tied)
                parts = [select(hits, keep)]
                for row in tied.tolist():
                    some = self._range(padded[row : row + 1], float(sims[row, k]))
                    parts.append(some._replace(query=np.full(len(some.key), row)))
                hits = Hits(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        return best(hits, k, order)

    def reached(self, queries: Int8s) -> Hits:
        """For every query the rows whose bound it reaches or passes, in no order."""
        if not len(self) or not len(queries):
            return _no_hits()
        hits = self._range(_with(queries, 1.0), 0.0)
        above = self._storage()[self.rows(hits.key), -1]
        return hits._replace(sim=hits.sim - above.astype(np.int32))

    def _range(self, padded: npt.NDArray[np.float32], at_least: float) -> Hits:
        limits, sims, rows = self._faiss.range_search(padded, at_least - 0.5)  # FAISS compares with >
        query = np.repeat(np.arange(len(padded)), limits[1:].astype(np.int64) - limits[:-1].astype(np.int64))
        return Hits(query, self._keys[rows], sims.astype(np.int32))

    def _storage(self) -> npt.NDArray[np.float32]:
        size = len(self) * self._faiss.d
        view: npt.NDArray[np.float32] = faiss.rev_swig_ptr(self._faiss.get_xb(), size)
        return view.reshape(len(self), self._faiss.d)

    def save(self, path: Path) -> None:
        """Writes the rows to `path` and the keys beside it."""
        faiss.write_index(self._faiss, str(path))
        np.save(path.with_suffix(".keys.npy"), self.keys)

    @classmethod
    def load(cls, path: Path) -> "VectorIndex":
        """Reads what `save` wrote.

        Raises:
            ValueError: the two files do not belong together.
        """
        stored = faiss.read_index(str(path))
        keys = np.load(path.with_suffix(".keys.npy"), allow_pickle=False)
        if stored.ntotal != len(keys):
            raise ValueError(f"{path} holds {stored.ntotal} vectors, its keys are {len(keys)}")
        index = cls(stored.d - 1)
        index._faiss, index._keys = stored, keys
        if len(keys):
            index.rows(keys)
            index._row_of[keys] = np.arange(len(keys))
        return index


def select(hits: Hits, which: npt.NDArray[np.bool_]) -> Hits:
    """The hits for which the mask is set."""
    return Hits(hits.query[which], hits.key[which], hits.sim[which])


def best(hits: Hits, k: int, order: npt.NDArray[np.uint64]) -> Hits:
    """The k best hits of every query, by query, then similarity downwards, then `order[key]`."""
    by = np.lexsort((order[hits.key], -hits.sim, hits.query))
    query = hits.query[by]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = by[rank < k]
    return Hits(hits.query[kept], hits.key[kept], hits.sim[kept])


def _no_hits() -> Hits:
    return Hits(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _with(vectors: Int8s, last: float) -> npt.NDArray[np.float32]:
    padded = np.full((len(vectors), vectors.shape[1] + 1), last, np.float32)
    padded[:, :-1] = vectors
    return padded


def _grown(array: Slots, size: int) -> Slots:
    if size <= len(array):
        return array
    grown = np.zeros(max(1024, 2 * size), array.dtype)
    grown[: len(array)] = array
    return grown
