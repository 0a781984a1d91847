"""Exact nearest-neighbour search over int8 vectors, both ways.

Invariant: one row per key, rows dense, and what is stored is what was last put.

FAISS keeps the vectors, a byte a dimension (`QT_8bit_direct`: their bytes as they are), and writes and reads
them. The search itself is an exact integer product per block of these bytes (`index/search/products.py`),
several times faster than FAISS's own scan (`docs/performance.md`), and a selection from the products that
answers two questions at once: which rows are nearest to a query, and to which rows a query matters. For the
second every row has a *bound*, the similarity from which on a newcomer matters to it.

Dot products are whole numbers, so a similarity never depends on what else is in its batch; ties are real
ties, decided by the caller's `order`.
"""

from pathlib import Path
from typing import Any, ClassVar, Final

import faiss
import numpy as np

from index.compiled import compiled
from index.search.arrays import (
    MISSING,
    NO_HITS,
    UNREACHABLE,
    Hits,
    Int8s,
    Mask,
    Nearest,
    Order,
    Rows,
    Sims,
    Slots,
    Vectors,
    grown,
)
from index.search.products import prepare, row_products
from index.search.selection import select_near
from index.search.threads import spread

UNIT: Final = 65536  # the similarity of equal vectors
QUERY_BLOCK: Final = 64  # with ROW_BLOCK: two megabytes of similarities, about a second-level cache
ROW_BLOCK: Final = 8192
PAGE: Final = 1024
SHARE: Final = 64  # queries that are worth a thread of their own


class VectorIndex:
    """int8 vectors under non-negative int32 keys. One thread owns it; others read while it waits for them."""

    EXTRA: ClassVar[int] = 0  # bytes of a row after the vector

    def __init__(self, dimensions: int) -> None:
        kind = faiss.ScalarQuantizer.QT_8bit_direct
        width = dimensions + self.EXTRA
        self._faiss: Any = faiss.IndexScalarQuantizer(width, kind, faiss.METRIC_INNER_PRODUCT)
        self._size = 0
        self._matrix = np.zeros((0, width), np.int8)  # FAISS's own memory
        self._keys = np.zeros(0, np.int32)
        self._bounds = np.zeros(0, np.int32)
        # The row of every key, in pages: few of the keys of all sources and types are here.
        self._pages = np.zeros((0, PAGE), np.int32)
        self._page_of = np.full(0, MISSING, np.int32)

    def __len__(self) -> int:
        return self._size

    @property
    def keys(self) -> Slots:
        """(n,) the key of every row."""
        return self._keys[: self._size]

    def rows(self, keys: Slots) -> Rows:
        """(len(keys),) the row of each key, -1 for those that are not here."""
        rows: Rows = _find(keys, self._page_of, self._pages)
        return rows

    def _place(self, keys: Slots, rows: Rows) -> None:
        """Sets the rows of keys."""
        numbers = keys // PAGE
        if len(keys) and int(numbers.max()) >= len(self._page_of):
            page_of = np.full(int(numbers.max()) * 5 // 4 + 1, MISSING, np.int32)
            page_of[: len(self._page_of)] = self._page_of
            self._page_of = page_of
        missing = numbers[self._page_of[numbers] == MISSING]
        if len(missing):
            missing, first = np.unique(missing), len(self._pages)
            more = np.full((len(missing), PAGE), MISSING, np.int32)
            self._pages = np.concatenate([self._pages, more])
            self._page_of[missing] = np.arange(first, len(self._pages))
        self._pages[self._page_of[numbers], keys % PAGE] = rows

    def put(self, keys: Slots, vectors: Vectors) -> None:
        """Adds or replaces. New rows get the bound UNREACHABLE.

        Args:
            keys: (n,) distinct.
            vectors: (n, dimensions + EXTRA).

        Raises:
            ValueError: keys repeat, or the shapes do not fit.
        """
        ordered = np.sort(keys)
        if (ordered[1:] == ordered[:-1]).any() or vectors.shape != (len(keys), self._faiss.d):
            raise ValueError(f"{len(keys)} keys must be distinct and have vectors of {self._faiss.d}")
        if not len(keys):
            return
        rows = self.rows(keys)
        known = rows >= 0
        new_keys, first = keys[~known], self._size
        if len(new_keys):
            self._faiss.add(vectors[~known].view(np.uint8).astype(np.float32))
            self._resize(self._size + len(new_keys))
            self._keys, self._bounds = (grown(array, self._size) for array in (self._keys, self._bounds))
            self._keys[first : self._size] = new_keys
            self._bounds[first : self._size] = UNREACHABLE
            rows[~known] = np.arange(first, self._size)
            self._place(new_keys, rows[~known])
        self._matrix[rows[known]] = vectors[known]

    def remove(self, keys: Slots) -> list[tuple[int, int]]:
        """Removes the keys that are here; the last rows move into the holes.

        Returns:
            The moves (from row, to row), in the order in which they were made.
        """
        moves: list[tuple[int, int]] = []
        rows = self.rows(keys)
        rows = rows[rows >= 0]
        if not len(rows):
            return moves
        vectors = self._matrix
        last = self._size - 1
        self._place(self._keys[rows], np.full(len(rows), MISSING, np.int32))
        for row in sorted(rows.tolist(), reverse=True):
            if row != last:
                for array in (vectors, self._keys, self._bounds):
                    array[row] = array[last]
                self._place(self._keys[row : row + 1], np.array([row], np.int32))
                moves.append((last, row))
            last -= 1
        self._faiss.remove_ids(faiss.IDSelectorRange(last + 1, self._size))
        self._resize(last + 1)
        return moves

    def bound(self, rows: Rows, bounds: Sims) -> None:
        """Sets the bounds of rows."""
        self._bounds[rows] = bounds

    def vectors(self, rows: Rows) -> Vectors:
        """(len(rows), dimensions + EXTRA) the stored vectors."""
        return self._matrix[rows]

    def differ(self, keys: Slots, vectors: Vectors) -> Mask:
        """(n,) which of the vectors are not what is stored, which is zero for a missing key."""
        differ: Mask = _differ(self.rows(keys), self._matrix, np.ascontiguousarray(vectors).view(np.int8))
        return differ

    def similarities(self, rows: Rows, other: "VectorIndex", other_rows: Rows) -> Sims:
        """(P,) of rows of this index and of another, of which none is empty; 0 where a row is -1."""
        sims = self.products(self.vectors(rows), other.vectors(other_rows))
        sims[(rows < 0) | (other_rows < 0)] = 0
        return sims

    @classmethod
    def products(cls, left: Vectors, right: Vectors) -> Sims:
        """(P,) the similarity of each row of (P, dimensions) with the same row of the other."""
        products: Sims = row_products(left, right)
        return products

    def search(self, queries: Vectors, k: int, floor: int, order: Order) -> tuple[Nearest, Hits]:
        """Both answers for (Q, dimensions) queries.

        Args:
            floor: the least similarity of a neighbour.
            order: (slots,) what decides between equally similar rows, by their key.

        Returns:
            nearest: for every query its k most similar rows from `floor` up.
            reached: for every query the rows whose bound it reaches or passes, in no order.
        """
        parts = spread(lambda some: self._search(queries[some], k, floor, order), len(queries), SHARE)
        if len(parts) == 1:
            return parts[0]
        nearest, reached = zip(*parts, strict=True)
        firsts = np.cumsum([0] + [len(part.keys) for part in nearest[:-1]])
        shifted = [
            part._replace(query=part.query + first) for part, first in zip(reached, firsts, strict=True)
        ]
        return (
            Nearest(*map(np.concatenate, zip(*nearest, strict=True))),
            Hits(*map(np.concatenate, zip(*shifted, strict=True))),
        )

    def _search(self, queries: Vectors, k: int, floor: int, order: Order) -> tuple[Nearest, Hits]:
        """`search` on one core."""
        return exhaustive(queries, self._matrix, self._keys, self._bounds, k, floor, order)

    def nearest_of_all(self, queries: Vectors, k: int, floor: int, order: Order) -> Nearest:
        """For every query its k most similar rows from `floor` up, whatever `search` looks at."""
        return self.search(queries, k, floor, order)[0]

    def _resize(self, size: int) -> None:
        """To be called when FAISS has another number of vectors, which it may have moved."""
        self._size = size
        codes = faiss.rev_swig_ptr(self._faiss.codes.data(), size * self._faiss.d)
        self._matrix = codes.view(np.int8).reshape(size, self._faiss.d)

    def save(self, path: Path) -> None:
        """Writes the vectors, row after row; the caller keeps their keys."""
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
        index = cls(stored.d - cls.EXTRA)
        index._faiss = stored
        index._resize(len(keys))
        index._keys, index._bounds = keys.copy(), bounds.copy()
        index._place(keys, np.arange(len(keys), dtype=np.int32))
        return index


def exhaustive(
    queries: Vectors, rows: Vectors, keys: Slots, bounds: Sims, k: int, floor: int, order: Order
) -> tuple[Nearest, Hits]:
    """`VectorIndex.search` among (n, dimensions) rows with the keys and bounds at the same places."""
    nearest = Nearest(np.full((len(queries), k), MISSING, np.int32), np.zeros((len(queries), k), np.int32))
    reached = [NO_HITS]
    asked: Int8s = np.ascontiguousarray(queries, np.int8)
    # one buffer: megabytes taken anew for every block, between what is kept, would leave holes
    products = np.empty(min(len(queries), QUERY_BLOCK) * min(len(rows), ROW_BLOCK), np.int32)
    for start in range(0, len(rows) if len(queries) else 0, ROW_BLOCK):
        part: Int8s = np.ascontiguousarray(rows[start : start + ROW_BLOCK], np.int8)
        end = start + len(part)
        multiply = prepare(part, len(queries))
        for first in range(0, len(queries), QUERY_BLOCK):
            block = asked[first : first + QUERY_BLOCK]
            sims = products[: len(block) * len(part)].reshape(len(block), len(part))
            multiply(block, sims)
            query, row = select_near(
                sims,
                bounds[start:end],
                keys[start:end],
                order,
                floor,
                nearest.keys[first : first + len(block)],
                nearest.sims[first : first + len(block)],
            )
            reached.append(Hits(query + first, keys[row + start], sims[query, row]))
    return nearest, Hits(*map(np.concatenate, zip(*reached, strict=True)))


@compiled
def _find(keys: Any, page_of: Any, pages: Any) -> Any:
    rows = np.full(len(keys), MISSING, np.int32)
    for i in range(len(keys)):
        number = keys[i] // PAGE
        if number < len(page_of) and page_of[number] != MISSING:
            rows[i] = pages[page_of[number], keys[i] % PAGE]
    return rows


@compiled
def _differ(rows: Any, stored: Any, vectors: Any) -> Any:
    differ = np.zeros(len(rows), np.bool_)
    for i in range(len(rows)):
        for d in range(vectors.shape[1]):
            if vectors[i, d] != (stored[rows[i], d] if rows[i] >= 0 else 0):
                differ[i] = True
                break
    return differ
