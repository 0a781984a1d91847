"""Exact search over sparse vectors: an inverted index finds the rows that share rare words with a query.

A vector is a row of 32-bit numbers in ascending order, zeros at the end. The highest 24 bits of a number are
a word, which comes once, the lowest 8 its weight, which is not 0. Similarity is the cosine, in the units of
dense vectors (`UNIT` for equal ones). Inner products and norms are whole numbers, so it is a function of the
two vectors alone.

A query reads the postings of its words and nothing else. That is a few percent of the rows as long as words
that many have are left out (`model/encoding/words.py`).
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.arrays import Hits, Nearest, Order, Rows, Sims, Slots, Vectors, grown, no_hits
from index.search.postings import Postings, place_of
from index.search.selection import select_met
from index.search.vectors import UNIT, VectorIndex

Words = npt.NDArray[np.uint32]  # (n, words of a vector)

_WEIGHT: Final = np.uint32(0xFF)
_WORD_BITS: Final = np.uint32(8)
_MOST_ROWS: Final = 1 << 24  # a posting holds the row and the weight


class SparseIndex(VectorIndex):
    """Sparse vectors under non-negative int32 keys. One thread owns it.

    Args:
        dimensions: bytes of a vector, four a word.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self._norms = np.zeros(0, np.int64)  # squared, by row
        self._postings = Postings()  # under each word: rows, and its weight in them

    def put(self, keys: Slots, vectors: Vectors) -> None:
        """As in `VectorIndex`; the vectors are `Words`."""
        before = self.rows(keys)
        known = before >= 0
        old = self.vectors(before[known])
        super().put(keys, np.ascontiguousarray(vectors).view(np.int8))
        if len(self) > _MOST_ROWS:
            raise ValueError(f"more than {_MOST_ROWS} entities of one type in one source")
        self._unpost(before[known], old)
        self._post(self.rows(keys))

    def remove(self, keys: Slots) -> list[tuple[int, int]]:
        """As in `VectorIndex`."""
        rows = self.rows(keys)
        rows = rows[rows >= 0]
        old = self.vectors(rows)
        moves = super().remove(keys)
        self._unpost(rows, old)
        first: dict[int, int] = {}  # by row: where its vector was before
        for source, target in moves:
            first[target] = first.pop(source, source)
        now = np.fromiter(first, np.int32, len(first))
        self._unpost(np.fromiter(first.values(), np.int32, len(first)), self.vectors(now))
        self._post(now)
        return moves

    def vectors(self, rows: Rows) -> Words:
        """(len(rows), words) the stored vectors."""
        return super().vectors(rows).view(np.uint32)

    @classmethod
    def products(cls, left: Vectors, right: Vectors) -> Sims:
        """As in `VectorIndex`."""
        products: Sims = _products(left, right)
        return products

    def _search(self, queries: Vectors, k: int, floor: int, order: Order) -> tuple[Nearest, Hits]:
        """As in `VectorIndex`, but a row that shares no word is not found, whatever the floor or bound."""
        rows = self._keys[: len(self)], self._bounds[: len(self)], self._norms[: len(self)]
        keys, sims, *hits = _search(queries, k, floor, order, self._postings.table, *rows)
        return Nearest(keys, sims), Hits(*hits)

    @classmethod
    def load(cls, path: Path, keys: Slots, bounds: Sims) -> "SparseIndex":
        """As in `VectorIndex`."""
        index = super().load(path, keys, bounds)
        assert isinstance(index, cls)
        index._post(np.arange(len(index), dtype=np.int32))
        return index

    def _post(self, rows: Rows) -> None:
        """Adds the postings of rows, whose vectors are stored."""
        vectors = self.vectors(rows)
        self._norms = grown(self._norms, len(self))
        weights = (vectors & _WEIGHT).astype(np.int64)
        self._norms[rows] = np.einsum("nw,nw->n", weights, weights)
        self._postings.add(*_flat(rows, vectors))

    def _unpost(self, rows: Rows, vectors: Words) -> None:
        self._postings.remove(*_flat(rows, vectors))


def _flat(rows: Rows, vectors: Words) -> tuple[Words, Words]:
    """Words and what is posted under them, of rows and their vectors."""
    place, column = np.nonzero(vectors)
    filled = vectors[place, column]
    return filled >> _WORD_BITS, rows[place].astype(np.uint32) << _WORD_BITS | filled & _WEIGHT


@compiled(inline="always")
def _similarity(product: Any, norm: Any, other: Any) -> Any:
    """The cosine from whole numbers; the product of the norms is below 2^53, so exact."""
    return np.int32(np.rint(UNIT * np.float64(product) / np.sqrt(np.float64(norm) * np.float64(other))))


@compiled
def _search(
    queries: Any,
    k: Any,
    floor: Any,
    order: Any,
    postings: Any,
    keys: Any,
    bounds: Any,
    norms: Any,
) -> tuple[Any, Any, Any, Any, Any]:
    word, start, held, pool = postings.word, postings.start, postings.held, postings.pool
    near_keys = np.full((len(queries), k), -1, np.int32)
    near_sims = np.zeros((len(queries), k), np.int32)
    products = np.zeros(len(keys), np.int32)
    met = np.empty(len(keys), np.int32)  # rows that share a word with the query
    sims, met_bounds, met_keys = np.empty_like(met), np.empty_like(met), np.empty_like(met)
    hits, used = no_hits(), 0
    for q in range(len(queries)):
        meets, norm = 0, np.int64(0)
        for j in range(queries.shape[1]):
            if queries[q, j] == 0:
                break
            weight = np.int32(queries[q, j] & _WEIGHT)
            norm += np.int64(weight) * weight
            place = place_of(word, queries[q, j] >> _WORD_BITS)
            for p in range(start[place], start[place] + held[place]):
                row = np.int64(pool[p] >> _WORD_BITS)
                if products[row] == 0:
                    met[meets] = row
                    meets += 1
                products[row] += weight * np.int32(pool[p] & _WEIGHT)
        for i in range(meets):
            row = met[i]
            sims[i] = _similarity(products[row], norm, norms[row])
            met_bounds[i], met_keys[i] = bounds[row], keys[row]
            products[row] = 0
        of_query = met_keys[:meets], sims[:meets], met_bounds[:meets]
        hits, used = select_met(q, *of_query, order, floor, near_keys, near_sims, hits, used)
    return near_keys, near_sims, hits[0][:used], hits[1][:used], hits[2][:used]


@compiled
def _products(left: Any, right: Any) -> Any:
    """(P,) the similarity of each row of (P, words) with the same row of the other."""
    sims = np.zeros(len(left), np.int32)
    width = left.shape[1]
    for p in range(len(left)):
        product, norm, other = np.int64(0), np.int64(0), np.int64(0)
        for word in left[p]:
            norm += np.int64(word & _WEIGHT) * np.int64(word & _WEIGHT)
        for word in right[p]:
            other += np.int64(word & _WEIGHT) * np.int64(word & _WEIGHT)
        i, j = 0, 0
        while i < width and j < width and left[p, i] != 0 and right[p, j] != 0:
            a, b = left[p, i] >> _WORD_BITS, right[p, j] >> _WORD_BITS
            if a == b:
                product += np.int64(left[p, i] & _WEIGHT) * np.int64(right[p, j] & _WEIGHT)
            if a <= b:
                i += 1
            if b <= a:
                j += 1
        if product:
            sims[p] = _similarity(product, norm, other)
    return sims
