"""Level 1 of an entity: what its neighbourhood says, as one vector that does not depend on any pair.

The sum of the sampled neighbours' own text vectors, each weighted by 1/sqrt of how many neighbours share its
relation and by 1/sqrt of its own degree, both rounded to powers of two. So a film's director counts for more
than its actors, and a country that ten thousand places lie in for hardly anything.

A relation with more than `HUB_COUNT` neighbours is left out: a sample of twelve out of so many says little,
and every arrival at a hub would otherwise change all entities around it.

Weights are integers, so that the sum is exact and does not depend on the order of the neighbours.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from model.encoding.vectors import to_int8
from model.shapes import I8

HUB_COUNT: Final = 64
_UNIT: Final = 256


def neighbourhood(names: I8, counts: npt.NDArray[np.int64], degrees: npt.NDArray[np.int64]) -> I8:
    """(B, D) int8 from the sampled neighbours.

    Args:
        names: (B, S, D) their own text vectors, zero for those that are missing.
        counts: (B, S) how many neighbours share the relation, powers of two.
        degrees: (B, S) of the neighbours themselves, powers of two.
    """
    exponent = (np.frexp(counts)[1] + np.frexp(degrees)[1] - 2).astype(np.int64) // 2
    weight = np.where(counts > HUB_COUNT, 0, np.maximum(_UNIT >> np.minimum(exponent, 9), 1))
    sums = np.einsum("bsd,bs->bd", names.astype(np.float32), weight.astype(np.float32))
    return to_int8(sums)
