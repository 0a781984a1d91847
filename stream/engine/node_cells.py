"""The cells of every node, beside its row in the node table: there only where search uses them."""

from pathlib import Path
from typing import Final

import numpy as np

from index.search.arrays import Slots, Vectors, grown
from index.search.cells import Cells, sign_cells, with_cells
from model.encoding.rarest import NAME_CELLS, VALUE_CELLS, OwnCells
from stream.engine.node_table import NodeRows
from stream.engine.views import LEARNED

_OWN: Final = np.dtype([("name", np.uint32, NAME_CELLS), ("values", np.uint32, VALUE_CELLS)])
_FIELDS: Final = ("name", "values")


class NodeCells:
    """Cells by slot, as `NodeTable` has rows. One thread owns it."""

    def __init__(self) -> None:
        self._own = np.zeros(0, _OWN)

    def set(self, slots: Slots, cells: OwnCells) -> None:
        """Sets the cells of these entities."""
        self._grow(slots)
        for field in cells._fields:
            self._own[field][slots] = getattr(cells, field)

    def save(self, directory: Path, slots: Slots) -> None:
        """Writes the cells of these entities into an existing directory."""
        self._grow(slots)
        np.save(directory / "cells.npy", self._own[slots])

    def load(self, directory: Path) -> None:
        """Reads what `save` wrote: the first slot is the first that was saved."""
        self._own = np.load(directory / "cells.npy")

    def vectors(self, view: str, rows: NodeRows, slots: Slots) -> Vectors:
        """These nodes' vectors in a view with their cells, as its index takes them.

        Args:
            rows: of the node table, which has the vectors.
        """
        vectors: Vectors = rows[view][slots]
        cells: Cells
        if view in LEARNED:
            cells = sign_cells(vectors)
        elif view in _FIELDS:
            self._grow(slots)
            cells = self._own[view][slots]
        else:
            return vectors
        # a node without a vector is in no index
        return with_cells(vectors, cells * vectors.any(axis=1, keepdims=True))

    def _grow(self, slots: Slots) -> None:
        self._own = grown(self._own, int(slots.max(initial=-1)) + 1)
