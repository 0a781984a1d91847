"""Search among the vectors that share cells with the query: a symmetric filter before the exact product.

Besides its vector every entity has a few *cells*: numbers that are a function of the entity and the model,
the rarest of its tokens (`model/encoding/rarest.py`). Two entities see each other when they share enough of
them. That is symmetric and rests on nothing else, so lists and bounds are kept as with exact search, and the
order in which entities came cannot matter. What is seen is ranked by the exact product.

Cells are tokens, not centroids, because names have no clusters (`docs/performance.md`).
"""

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.arrays import Hits, Nearest, Order, Rows, Sims, Slots, Vectors, no_hits
from index.search.postings import Postings, place_of
from index.search.prefetch import AHEAD, prefetch
from index.search.selection import select_met
from index.search.vectors import VectorIndex, exhaustive

Cells = npt.NDArray[np.uint32]  # (n, CELLS) distinct, zeros at the end

CELLS: Final = 10  # of one entity, at most
SIGNS: Final = 12  # of a cell of a vector without tokens: of 200,000 entities a query sees about 500


class CellIndex(VectorIndex):
    """int8 vectors, each with its cells behind it, under non-negative int32 keys. One thread owns it.

    Args:
        dimensions: of the vectors, without the cells.
    """

    EXTRA = 4 * CELLS
    SHARED: ClassVar[int] = 1  # cells that two vectors have to share to see each other

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self._postings = Postings()  # under each cell: rows

    def put(self, keys: Slots, vectors: Vectors) -> None:
        """As in `VectorIndex`; the vectors are made by `with_cells`."""
        before = self.rows(keys)
        old = np.zeros((len(keys), CELLS), np.uint32)
        old[before >= 0] = self._cells(before[before >= 0])
        super().put(keys, vectors)
        rows = self.rows(keys)
        new = self._cells(rows)
        self._postings.remove(*_only_in(old, new, rows))
        self._postings.add(*_only_in(new, old, rows))

    def remove(self, keys: Slots) -> list[tuple[int, int]]:
        """As in `VectorIndex`."""
        rows = self.rows(keys)
        rows = rows[rows >= 0]
        self._postings.remove(*_flat(rows, self._cells(rows)))
        moves = super().remove(keys)
        first: dict[int, int] = {}  # by row: where its vector was before
        for source, target in moves:
            first[target] = first.pop(source, source)
        now = np.fromiter(first, np.int32, len(first))
        self._postings.remove(*_flat(np.fromiter(first.values(), np.int32, len(first)), self._cells(now)))
        self._postings.add(*_flat(now, self._cells(now)))
        return moves

    @classmethod
    def products(cls, left: Vectors, right: Vectors) -> Sims:
        """As in `VectorIndex`; whether the two see each other makes no difference."""
        return super().products(left[:, : -cls.EXTRA], right[:, : -cls.EXTRA])

    def _search(self, queries: Vectors, k: int, floor: int, order: Order) -> tuple[Nearest, Hits]:
        """As in `VectorIndex`, among the rows that see the query."""
        queries = np.ascontiguousarray(queries)
        n = len(self)
        keys, sims, *hits = _search(
            np.ascontiguousarray(queries[:, : -self.EXTRA]),
            _cells_of(queries),
            self.SHARED,
            k,
            floor,
            order,
            self._postings.table,
            self._matrix,
            self._keys[:n],
            self._bounds[:n],
        )
        return Nearest(keys, sims), Hits(*hits)

    def nearest_of_all(self, queries: Vectors, k: int, floor: int, order: Order) -> Nearest:
        """As in `VectorIndex`: also among the rows that do not see the query."""
        without = queries[:, : -self.EXTRA], self._matrix[:, : -self.EXTRA]
        return exhaustive(*without, self._keys, self._bounds, k, floor, order)[0]

    @classmethod
    def load(cls, path: Path, keys: Slots, bounds: Sims) -> "CellIndex":
        """As in `VectorIndex`."""
        index = super().load(path, keys, bounds)
        assert isinstance(index, cls)
        rows = np.arange(len(index), dtype=np.int32)
        index._postings.add(*_flat(rows, index._cells(rows)))
        return index

    def _cells(self, rows: Rows) -> Cells:
        return _cells_of(self.vectors(rows))


class TwoCellIndex(CellIndex):
    """An index in which two vectors have to share two cells: for cells that many entities have."""

    SHARED = 2


@compiled
def sign_cells(vectors: Any) -> Any:
    """(n, CELLS) cells of dense vectors without tokens: the more alike two are, the likelier they share one.

    A cell is the signs of SIGNS differences of two components, which are as good as random projections where
    dimensions mean nothing by themselves (Charikar, 2002). A vector of zeros has no cells.
    """
    width = vectors.shape[1]
    cells = np.zeros((len(vectors), CELLS), np.uint32)
    for row in range(len(vectors)):
        if not vectors[row].any():
            continue
        for cell in range(CELLS):
            signs = 0
            for bit in range(cell * SIGNS, (cell + 1) * SIGNS):
                one = (7 * bit + 3) % width
                other = (one + 1 + 5 * bit % (width - 1)) % width
                signs = signs << 1 | (vectors[row, one] > vectors[row, other])
            cells[row, cell] = (cell << SIGNS | signs) + 1
    return cells


def with_cells(vectors: Vectors, cells: Cells) -> Vectors:
    """(n, dimensions + EXTRA) vectors and cells (n, up to CELLS), as a `CellIndex` takes them."""
    padded = np.zeros((len(cells), CELLS), np.uint32)
    padded[:, : cells.shape[1]] = cells
    return np.hstack([vectors, padded.view(np.int8)])


def _cells_of(vectors: Vectors) -> Cells:
    """(n, CELLS) of stored rows."""
    return np.ascontiguousarray(vectors[:, -CellIndex.EXTRA :]).view(np.uint32)


def _flat(rows: Rows, cells: Cells) -> tuple[Cells, Cells]:
    """Cells of rows, and the row of each, as they are posted."""
    place, column = np.nonzero(cells)
    return cells[place, column], rows[place].astype(np.uint32)


def _only_in(some: Cells, other: Cells, rows: Rows) -> tuple[Cells, Cells]:
    """As `_flat`, of the cells that `other` lacks: when a vector changes, most of its cells stay."""
    return _flat(rows, np.where((some[:, :, None] == other[:, None]).any(axis=2), np.uint32(0), some))


@compiled
def _search(
    queries: Any,
    cells: Any,
    shared: Any,
    k: Any,
    floor: Any,
    order: Any,
    postings: Any,
    matrix: Any,
    keys: Any,
    bounds: Any,
) -> tuple[Any, Any, Any, Any, Any]:
    word, start, held, pool = postings.word, postings.start, postings.held, postings.pool
    near_keys = np.full((len(queries), k), -1, np.int32)
    near_sims = np.zeros((len(queries), k), np.int32)
    hits, used = no_hits(), 0
    vectors, width = matrix.reshape(-1), matrix.shape[1]
    times = np.empty(len(keys), np.uint8)  # that a query met each row
    met = np.empty(len(keys) + 1, np.int32)  # the rows that it sees
    sims, met_bounds, met_keys = np.empty_like(met), np.empty_like(met), np.empty_like(met)
    for q in range(len(queries)):
        n = 0
        times[:] = 0
        for cell in cells[q]:
            if cell == 0:
                break
            place = place_of(word, cell)
            for p in range(start[place], start[place] + held[place]):
                row = np.int64(pool[p])
                times[row] += np.uint8(1)
                met[n] = row  # overwritten by the next, unless it is seen now
                n += times[row] == shared
        query = queries[q]
        for i in range(n):
            if i + AHEAD < n:
                prefetch(vectors, np.int64(met[i + AHEAD]) * width, len(query))
            row = np.int64(met[i])
            sims[i] = _product(query, vectors, row * width)
            met_bounds[i], met_keys[i] = bounds[row], keys[row]
        of_query = met_keys[:n], sims[:n], met_bounds[:n]
        hits, used = select_met(q, *of_query, order, floor, near_keys, near_sims, hits, used)
    return near_keys, near_sims, hits[0][:used], hits[1][:used], hits[2][:used]


@compiled(inline="always")
def _product(query: Any, vectors: Any, at: Any) -> Any:
    """Of a query and the vector that begins at `at`."""
    product, first = np.int32(0), np.uint64(at)  # signed, it might count from the end
    for d in range(len(query)):
        part = np.int32(query[d]) * np.int32(vectors[first + np.uint64(d)])
        product = np.int32(product + part)  # as in `index/search/products.py`
    return product
