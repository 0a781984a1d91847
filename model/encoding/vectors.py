"""Bags of tokens to int8 vectors, bit for bit the same in any batch.

Exactness, not luck: token weights are multiples of 1/16 below 16 and a value has at most 2^11 tokens, so
every partial sum of float32 is exact and the order of summation cannot matter. Inner products of two int8
vectors stay below 2^24 and are exact in float32 as well.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.encoding.tokens import BUCKETS, Bags, mix
from model.shapes import DIM, I8, NORM

WEIGHT_STEP = 1 / 16


class Projection:
    """Sums of weighted pseudo-random signs.

    Args:
        weights: (BUCKETS,) uint8, every token's weight in sixteenths.
    """

    def __init__(self, weights: npt.NDArray[np.uint8]) -> None:
        if weights.shape != (BUCKETS,) or weights.dtype != np.uint8:
            raise ValueError(f"weights: expected ({BUCKETS},) uint8, not {weights.shape} {weights.dtype}")
        self._weights = weights * np.float32(WEIGHT_STEP)

    def add(self, bags: Bags, rows: npt.NDArray[np.int64], sums: npt.NDArray[np.float32]) -> None:
        """Adds the sum of the tokens of each of m bags to a row of `sums` (n, DIM).

        Args:
            bags: buckets (T,), below 0 for none, and where each bag starts (m,).
            rows: (m,) of `sums`.
        """
        _add(*bags, rows, signs(), self._weights, sums)


@compiled
def _add(buckets: Any, starts: Any, rows: Any, signs: Any, weights: Any, sums: Any) -> None:
    for m in range(len(starts)):
        end = starts[m + 1] if m + 1 < len(starts) else len(buckets)
        out = sums[rows[m]]
        for bucket in buckets[starts[m] : end]:
            if bucket >= 0:
                some, weight = signs[bucket], weights[bucket]
                for d in range(DIM):
                    out[d] += weight * some[d]


def to_int8(sums: npt.NDArray[np.generic], norm: float = NORM) -> I8:
    """Sums (m, dimensions), multiples of 1/16, to vectors of this norm, rounded; zero stays zero."""
    vectors: I8 = _to_int8(np.asarray(sums), norm)
    return vectors


@compiled(fastmath={"reassoc"})
def _to_int8(sums: Any, norm: float) -> Any:
    vectors = np.zeros(sums.shape, np.int8)
    for m in range(len(sums)):
        square = 0.0  # exact below 2^53, so the order cannot matter
        for d in range(sums.shape[1]):
            square += np.float64(sums[m, d]) * np.float64(sums[m, d])
        if square > 0:
            scale = norm / np.sqrt(square)
            for d in range(sums.shape[1]):
                rounded = np.rint(np.float64(sums[m, d]) * scale)
                vectors[m, d] = np.int8(min(max(rounded, -127.0), 127.0))
    return vectors


@cache
def signs() -> I8:
    """(BUCKETS, DIM) of +1 and -1: the bits of splitmix64 at 0, 1, 2, ..."""
    bits = np.unpackbits(mix(np.arange(BUCKETS * DIM // 64, dtype=np.uint64)).view(np.uint8))
    return np.asarray(1 - 2 * bits.reshape(BUCKETS, DIM).astype(np.int8))
