"""The cells of an entity: the rarest of its tokens, by which search in cells finds what may be near.

The tokens of a text are n-grams and words, those of a measure are cells of shifted grids, those of the
neighbourhood are the rarest words in and around the entity. How rare a token is belongs to the model, and
ties are decided by the token, so cells are a function of the entity, its neighbours and the model. Their
numbers were measured (`docs/performance.md`): enough to find the nearest, and so few that common tokens are
seldom among them.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.cells import CELLS, Cells

NAME_CELLS: Final = CELLS
VALUE_CELLS: Final = 6
NEAR_CELLS: Final = 7
_WEIGHT: Final = np.uint32(0xFF)
_WORD_BITS: Final = np.uint32(8)

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


@compiled
def rarest_words(gathered: Any) -> Any:
    """(B, NEAR_CELLS) of (B, words) what `model/encoding/words.py:gather` gave."""
    cells = np.zeros((len(gathered), NEAR_CELLS), np.uint32)
    by_weight = np.empty(gathered.shape[1], np.uint32)
    for b in range(len(gathered)):
        for i in range(len(by_weight)):
            word = gathered[b, i]
            by_weight[i] = (word & _WEIGHT) << np.uint32(24) | word >> _WORD_BITS
        by_weight.sort()
        for i in range(min(NEAR_CELLS, len(by_weight))):
            word = by_weight[len(by_weight) - 1 - i]
            cells[b, i] = (word & np.uint32(0xFFFFFF)) + np.uint32(word != 0)  # a word may be 0, a cell not
    return cells
