"""The views of an entity in which search looks for candidates, and the index of each."""

from typing import Final

from index.search.cells import CellIndex, TwoCellIndex
from index.search.sparse import SparseIndex
from index.search.vectors import VectorIndex

VIEWS: Final = ("name", "values", "neighbourhood", "near_words", "far_words")
# Kinds of index for exact search, one a view.
INDEXES: Final = (VectorIndex, VectorIndex, VectorIndex, SparseIndex, SparseIndex)
OFF: Final = 1 << 30  # the floor of a view that is not used

# One a view, as `stream/engine/views.py:INDEXES`. Many share a year, or a rare word around them; few share
# two.
CELL_INDEXES: Final = (CellIndex, TwoCellIndex, TwoCellIndex, SparseIndex, SparseIndex)
