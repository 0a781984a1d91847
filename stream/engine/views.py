"""The views of an entity in which search looks for candidates: one table of them."""

from typing import Final, NamedTuple

from index.search.cells import CellIndex, TwoCellIndex
from index.search.sparse import SparseIndex
from index.search.vectors import UNIT, VectorIndex
from model.encoding.words import GATHERED
from model.shapes import DIM, LEVEL

# Similarities of unrelated texts, and of texts that share few rare words, lie below these.
DENSE_FLOOR, SPARSE_FLOOR = UNIT // 5, UNIT // 10
OFF: Final = 1 << 30  # the floor of a view that is not used


class View(NamedTuple):
    """One of the ways in which two entities may be alike."""

    name: str  # of the field of a row that has the vector
    width: int  # of the vector
    exact: type[VectorIndex]  # looks among all
    in_cells: type[VectorIndex]  # looks among those that share cells; a sparse one needs none
    least_floor: int  # below it a model learns no floor, the least similarity of candidates
    is_optional: bool  # used only where known links need it

    @property
    def is_dense(self) -> bool:
        """Whether its vectors are dense; those of words are sparse."""
        return self.exact is VectorIndex


# In the order in which a model has its floors, and retrieval its context.
VIEWS: Final = (
    View("name", DIM, VectorIndex, CellIndex, DENSE_FLOOR, is_optional=False),
    # many share a year; few share two
    View("values", DIM, VectorIndex, TwoCellIndex, DENSE_FLOOR, is_optional=False),
    View("levels", 2 * LEVEL, VectorIndex, CellIndex, DENSE_FLOOR, is_optional=True),
    View("level1", LEVEL, VectorIndex, CellIndex, DENSE_FLOOR // 2, is_optional=True),
    View("near_words", 4 * GATHERED, SparseIndex, SparseIndex, SPARSE_FLOOR, is_optional=True),
    View("far_words", 4 * GATHERED, SparseIndex, SparseIndex, SPARSE_FLOOR, is_optional=True),
)
WIDTHS: Final = tuple(view.width for view in VIEWS)
NAMES: Final = tuple(view.name for view in VIEWS)
LEARNED: Final = ("levels", "level1")  # of vectors that have no tokens
