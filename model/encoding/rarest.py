"""The cells of an entity: the rarest of its tokens, by which search in cells finds what may be near.

The tokens of a text are n-grams and words, those of a measure are cells of shifted grids. How rare a token is
belongs to the model, and ties are decided by the token, so cells are a function of the entity and the model.
Their numbers were measured (`docs/performance.md`): enough to find the nearest, and so few that common tokens
are seldom among them.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.search.cells import CELLS, Cells

NAME_CELLS: Final = CELLS
VALUE_CELLS: Final = 6

I64 = npt.NDArray[np.int64]


class OwnCells(NamedTuple):
    """The cells of n entities that depend on the entity alone; zeros at the end."""

    name: Cells  # (n, NAME_CELLS)
    values: Cells  # (n, VALUE_CELLS)


def rarest_tokens(n: int, entity: I64, token: I64, weights: npt.NDArray[np.uint8], most: int) -> Cells:
    """(n, most) the rarest tokens of n entities as cells, each once.

    Args:
        entity, token: (T,) whose token it is, and its bucket.
        weights: (BUCKETS,) of every token, the larger the rarer.
    """
    key = np.sort(entity << 32 | (255 - weights[token].astype(np.int64)) << 24 | token)
    key = key[np.append(True, key[1:] != key[:-1])[: len(key)]]
    entity = key >> 32
    rank = np.arange(len(key)) - np.searchsorted(entity, entity)
    kept = rank < most
    cells = np.zeros((n, most), np.uint32)
    cells[entity[kept], rank[kept]] = (key[kept] & 0xFFFFFF) + 1
    return cells
