"""Exact nearest-neighbour search over int8 vectors, both ways.

Invariant: one row per key, rows dense, and what is stored is what was last put.

FAISS keeps the vectors, a byte a dimension (`QT_8bit_direct_signed`). The search itself is one exact integer
product per block, an order of magnitude faster than FAISS's scan of the same codes (`docs/performance.md`),
and it answers both questions at once: what is nearest to the queries, and to whom do the queries matter.
For the latter every row carries a *bound*, the similarity from which on a newcomer matters to it.

Dot products are whole numbers, so a similarity never depends on what else is in its batch; ties are real
ties, decided by the caller's `order`.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import torch

Slots = npt.NDArray[np.int32]
Int8s = npt.NDArray[np.int8]
Sims = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

UNREACHABLE: Final = 1 << 30  # a bound above every similarity
QUERY_BLOCK: Final = 64  # with ROW_BLOCK: two megabytes of similarities, about a second-level cache
ROW_BLOCK: Final = 8192
_SIGN: Final = np.uint8(0x80)  # FAISS stores x + 128


class Hits(NamedTuple):
    """Flat matches: row `query[i]` of the queries met `key[i]` with similarity `sim[i]`."""

    query: npt.NDArray[np.int64]
    key: Slots
    sim: Sims


class VectorIndex:
    """int8 vectors under non-negative int32 keys. One thread owns it."""

    def __init__(self, dimensions: int) -> None:
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._faiss: Any = faiss.IndexScalarQuantizer(dimensions, kind, faiss.METRIC_INNER_PRODUCT)
        self._keys = np.zeros(0, np.int32)
        self._bounds = np.zeros(0, np.int32)
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
        if len(np.unique(keys)) != len(keys) or vectors.shape != (len(keys), self._faiss.d):
            raise ValueError(f"{len(keys)} keys must be distinct and have vectors of {self._faiss.d}")
        rows = self.rows(keys)
        known = rows >= 0
        self._codes()[rows[known]] = vectors[known].view(np.uint8) ^ _SIGN
        new_keys = keys[~known]
        if len(new_keys):
            first = len(self)
            self._faiss.add(vectors[~known].astype(np.float32))
            self._keys = _grown(self._keys, len(self))
            self._bounds = _grown(self._bounds, len(self))
            self._keys[first : len(self)] = new_keys
            self._bounds[first : len(self)] = UNREACHABLE
            self._row_of[new_keys] = np.arange(first, len(self))

    def remove(self, keys: Slots) -> list[tuple[int, int]]:
        """Removes the keys that are here; the last rows move into the holes.

        Returns:
            The moves (from row, to row), in the order in which they were made.
        """
        moves = []
        rows = self.rows(keys)
        codes = self._codes()
        last = len(self) - 1
        for row in sorted(rows[rows >= 0].tolist(), reverse=True):
            self._row_of[self._keys[row]] = -1
            if row != last:
                codes[row] = codes[last]
                self._keys[row], self._bounds[row] = self._keys[last], self._bounds[last]
                self._row_of[self._keys[row]] = row
                moves.append((last, row))
            last -= 1
        if last + 1 < len(self):
            self._faiss.remove_ids(faiss.IDSelectorRange(last + 1, len(self)))
        return moves

    def bound(self, rows: npt.NDArray[np.int32], bounds: Sims) -> None:
        """Sets the bounds of rows."""
        self._bounds[rows] = bounds

    def vectors(self, rows: npt.NDArray[np.int32]) -> Int8s:
        """(len(rows), dimensions) the stored vectors."""
        return (self._codes()[rows] ^ _SIGN).view(np.int8)

    def search(self, queries: Int8s, k: int, floor: int, order: npt.NDArray[np.uint64]) -> tuple[Hits, Hits]:
        """Both answers for (Q, dimensions) queries.

        Returns:
            nearest: for every query its k most similar rows from `floor` up, best first, equal ones by
                `order[key]`.
            reached: for every query the rows whose bound it reaches or passes, in no order.
        """
        nearest, reached = [_NO_HITS], [_NO_HITS]
        rows = (self._codes() ^ _SIGN).view(np.int8)
        # one pair of buffers: megabytes taken anew for every block, between what is kept, would leave holes
        products = torch.empty(QUERY_BLOCK * ROW_BLOCK, dtype=torch.int32)
        masks = torch.empty(QUERY_BLOCK * ROW_BLOCK, dtype=torch.bool)
        for first in range(0, len(queries) if len(self) else 0, QUERY_BLOCK):
            block = queries[first : first + QUERY_BLOCK]
            candidates = [_NO_HITS]
            for start in range(0, len(rows), ROW_BLOCK):
                part = rows[start : start + ROW_BLOCK]
                shape = (len(block), len(part))
                sims = products[: len(block) * len(part)].view(shape)
                mask = masks[: len(block) * len(part)].view(shape)
                torch._int_mm(torch.from_numpy(block), torch.from_numpy(part).T, out=sims)
                torch.ge(sims, torch.from_numpy(self._bounds[start : start + len(part)]), out=mask)
                reached.append(self._hits(sims, mask, first, start))
                # whoever is below the k best of this block is below the k best of all
                best_k = torch.topk(sims, min(k, len(part)), dim=1, sorted=True).values
                torch.ge(sims, best_k[:, -1:].clamp(min=floor), out=mask)
                candidates.append(self._hits(sims, mask, 0, start))
            found = best(_joined(candidates), k, order)
            nearest.append(found._replace(query=found.query + first))
        return _joined(nearest), _joined(reached)

    def _hits(self, sims: torch.Tensor, which: torch.Tensor, first: int, start: int) -> Hits:
        query, row = (column.numpy() for column in which.nonzero(as_tuple=True))
        return Hits(query + first, self._keys[row + start], sims[which].numpy())

    def _codes(self) -> npt.NDArray[np.uint8]:
        if not len(self):
            return np.zeros((0, self._faiss.d), np.uint8)
        codes: npt.NDArray[np.uint8] = faiss.rev_swig_ptr(self._faiss.codes.data(), len(self) * self._faiss.d)
        return codes.reshape(len(self), self._faiss.d)

    def save(self, path: Path) -> None:
        """Writes the vectors, row after row; who they belong to is the caller's to keep."""
        faiss.write_index(self._faiss, str(path))

    @classmethod
    def load(cls, path: Path, keys: Slots, bounds: Sims) -> "VectorIndex":
        """Reads what `save` wrote, with the key and the bound of every row.

        Raises:
            ValueError: the file holds another number of vectors, or is no index.
        """
        try:
            stored = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path}: {error}") from error
        if stored.ntotal != len(keys):
            raise ValueError(f"{path} holds {stored.ntotal} vectors, not {len(keys)}")
        index = cls(stored.d)
        index._faiss, index._keys, index._bounds = stored, keys.copy(), bounds.copy()
        index.rows(keys)
        index._row_of[keys] = np.arange(len(keys))
        return index


def select(hits: Hits, which: Mask) -> Hits:
    """The hits for which the mask is set."""
    return Hits(hits.query[which], hits.key[which], hits.sim[which])


def best(hits: Hits, k: int, order: npt.NDArray[np.uint64]) -> Hits:
    """The k best hits of every query, by query, then similarity downwards, then `order[key]`."""
    by = np.lexsort((order[hits.key], -hits.sim, hits.query))
    query = hits.query[by]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    kept = by[rank < k]
    return Hits(hits.query[kept], hits.key[kept], hits.sim[kept])


_NO_HITS: Final = Hits(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))


def _joined(parts: list[Hits]) -> Hits:
    return Hits(
        np.concatenate([part.query for part in parts]),
        np.concatenate([part.key for part in parts]),
        np.concatenate([part.sim for part in parts]),
    )


def _grown(array: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    if size <= len(array):
        return array
    grown = np.zeros(max(1024, 2 * size), array.dtype)
    grown[: len(array)] = array
    return grown
