"""Pairs of entities: which they are, how they scored, and what links say of them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.graph import Nodes
from index.search.arrays import Pairs

SAME, NONE, DIFFERENT = 1, 0, -1


class PairScores(NamedTuple):
    """Pairs of two sources whose score may have changed; 0 for pairs that are no candidates any more."""

    left_source: str  # the one whose name sorts first
    right_source: str
    left: Nodes  # (P,)
    right: Nodes  # (P,)
    score: npt.NDArray[np.float64]  # (P,)


class PairId(NamedTuple):
    """Two nodes and their sources; the left source's name sorts first."""

    left: int
    right: int
    left_source: str
    right_source: str


class SourcePair(NamedTuple):
    """Two sources with entities of one type; the left one's name sorts first."""

    type: str
    left: str
    right: str


class FoundPairs(NamedTuple):
    """Pairs of two sources, each once."""

    sources: SourcePair
    pairs: Pairs
