"""Bags of tokens to int8 vectors, bit for bit the same in any batch.

Exactness, not luck: token weights are multiples of 1/16 below 16 and a value has at most 2^11 tokens, so
every partial sum of float32 is exact and the order of summation cannot matter. Inner products of two int8
vectors stay below 2^24 and are exact in float32 as well.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from model.tokens import BUCKETS, Bags

DIM = 128
NORM = 256  # of every vector that is not zero, before rounding
WEIGHT_STEP = 1 / 16
UNIT = NORM * NORM  # the inner product of two equal vectors

I8 = npt.NDArray[np.int8]


class Projection:
    """Sums of weighted pseudo-random signs.

    Args:
        weights: (BUCKETS,) uint8, every token's weight in sixteenths.
    """

    def __init__(self, weights: npt.NDArray[np.uint8]) -> None:
        if weights.shape != (BUCKETS,) or weights.dtype != np.uint8:
            raise ValueError(f"weights: expected ({BUCKETS},) uint8, not {weights.shape} {weights.dtype}")
        rows = np.zeros((BUCKETS + 1, DIM), np.float32)  # the last row is for index -1: nothing
        np.multiply(_signs(), weights[:, None] * np.float32(WEIGHT_STEP), out=rows[:BUCKETS])
        self._rows = torch.from_numpy(rows)

    def sums(self, bags: Bags) -> torch.Tensor:
        """Bags (buckets (T,), starts (m,)) to float32 (m, DIM) sums of their tokens' rows."""
        buckets, starts = bags
        index = torch.from_numpy(np.where(buckets < 0, BUCKETS, buckets))
        return torch.nn.functional.embedding_bag(index, self._rows, torch.from_numpy(starts), mode="sum")


def to_int8(sums: npt.NDArray[np.generic]) -> I8:
    """Sums (m, DIM), multiples of 1/16, to vectors of norm NORM, rounded; zero stays zero."""
    exact = sums.astype(np.float64)
    norm = np.sqrt(np.einsum("nd,nd->n", exact, exact))  # exact below 2^53, so the order cannot matter
    scale = np.divide(NORM, norm, out=np.zeros_like(norm), where=norm > 0)
    exact *= scale[:, None]
    np.rint(exact, out=exact)
    return np.asarray(np.clip(exact, -127, 127, out=exact).astype(np.int8))


@cache
def _signs() -> I8:
    """(BUCKETS, DIM) of +1 and -1: the bits of splitmix64 at 0, 1, 2, ..."""
    from model.tokens import mix

    bits = np.unpackbits(mix(np.arange(BUCKETS * DIM // 64, dtype=np.uint64)).view(np.uint8))
    return np.asarray(1 - 2 * bits.reshape(BUCKETS, DIM).astype(np.int8))
