"""What the network sees of a pair, and stage 1: everything about it that has no trainable parameter.

An entity has N = 20 slots: 8 own values, then 12 sampled neighbours. Slots are in canonical order (see
`canonical`), so a pair's score does not depend on the order in which its neighbours came.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from model.shapes import DIM, I8, LEVEL, NEIGHBOURS, OWN, RARITY_BITS, SLOTS, UNIT

_STAGE1_PAIRS = 32  # both sides' vectors as float32 fit into the second-level cache
_U64 = np.uint64

Rows = slice | npt.NDArray[np.integer] | npt.NDArray[np.bool_] | tuple[npt.NDArray[np.integer], ...]


class Side(NamedTuple):
    """One entity of each of P pairs. An empty slot is zero everywhere."""

    vec: I8  # (P, SLOTS, DIM) a value's vector, a neighbour's name vector
    nbr: I8  # (P, SLOTS, DIM) a neighbour's own neighbourhood; zero for values
    level0: I8  # (P, SLOTS, LEVEL) of a neighbour; zero for values
    level1: I8  # (P, SLOTS, LEVEL) of a neighbour; zero for values
    key: npt.NDArray[np.int16]  # (P, SLOTS) attribute or relation key
    hash: npt.NDArray[np.int64]  # (P, SLOTS) of the value, of the neighbour's name

    def take(self, rows: Rows) -> "Side":
        """Some of the pairs, or some slots of some pairs."""
        vec, nbr, level0, level1 = (array[rows] for array in self[:4])
        return Side(vec, nbr, level0, level1, self.key[rows], self.hash[rows])


class PairInputs(NamedTuple):
    """P pairs. `context` (P, C) float32 is what retrieval knows of a pair: similarities, ranks, gaps."""

    left: Side
    right: Side
    context: npt.NDArray[np.float32]

    def take(self, rows: Rows) -> "PairInputs":
        """Some of the pairs."""
        return PairInputs(self.left.take(rows), self.right.take(rows), self.context[rows])


class Similarities(NamedTuple):
    """Stage 1 of P pairs: exact, so the same in any batch. Similarities are in units of equality."""

    own: torch.Tensor  # (P, SLOTS, SLOTS) vec . vec
    neighbourhood: torch.Tensor  # (P, NEIGHBOURS, NEIGHBOURS) nbr . nbr
    level0: torch.Tensor  # (P, NEIGHBOURS, NEIGHBOURS) e0 . e0
    level1: torch.Tensor  # (P, NEIGHBOURS, NEIGHBOURS) e1 . e1
    equal: torch.Tensor  # (P, SLOTS, SLOTS) 1 where the hashes are equal, else 0
    left_key: torch.Tensor  # (P, SLOTS) int64
    right_key: torch.Tensor
    left_rarity: torch.Tensor  # (P, SLOTS, RARITY_FEATURES) a neighbour's degree, rarity, how much it says
    right_rarity: torch.Tensor
    context: torch.Tensor  # (P, C)

    def take(self, rows: slice | torch.Tensor) -> "Similarities":
        """Some of the pairs."""
        return Similarities(*(tensor[rows] for tensor in self))


def similarities(inputs: PairInputs) -> Similarities:
    """Stage 1. Raises ValueError when shapes do not fit or the context is not finite."""
    check(inputs)
    left, right = inputs.left, inputs.right
    pairs = len(inputs.context)
    own = np.empty((pairs, SLOTS, SLOTS), np.float32)
    neighbourhood, level0, level1 = (np.empty((pairs, NEIGHBOURS, NEIGHBOURS), np.float32) for _ in range(3))
    for start in range(0, pairs, _STAGE1_PAIRS):
        chunk = slice(start, start + _STAGE1_PAIRS)
        _products(left.vec[chunk], right.vec[chunk], own[chunk])
        _products(left.nbr[chunk, OWN:], right.nbr[chunk, OWN:], neighbourhood[chunk])
        _products(left.level0[chunk, OWN:], right.level0[chunk, OWN:], level0[chunk])
        _products(left.level1[chunk, OWN:], right.level1[chunk, OWN:], level1[chunk])
    left_hash, right_hash = (torch.from_numpy(side.hash >> RARITY_BITS) for side in (left, right))
    equal = (left_hash[:, :, None] == right_hash[:, None, :]) & (left_hash != 0)[:, :, None]
    return Similarities(
        own=torch.from_numpy(own).mul_(1 / UNIT),
        neighbourhood=torch.from_numpy(neighbourhood).mul_(1 / UNIT),
        level0=torch.from_numpy(level0).mul_(2 / UNIT),
        level1=torch.from_numpy(level1).mul_(2 / UNIT),
        equal=equal.float(),
        left_key=torch.from_numpy(left.key).long(),
        right_key=torch.from_numpy(right.key).long(),
        left_rarity=_rarity(left.hash),
        right_rarity=_rarity(right.hash),
        context=torch.from_numpy(inputs.context),
    )


def canonical(side: Side) -> Side:
    """The same with the neighbour slots of every entity in canonical order: by key, hash, vectors.

    Empty slots come last. Slots that are equal in all of these are interchangeable.
    """
    weights = _U64(0x9E3779B97F4A7C15) ** np.arange(1, DIM + 1, dtype=_U64)
    vectors = [
        (array[:, OWN:].astype(np.int64).view(_U64) * weights[: array.shape[2]]).sum(axis=2)
        for array in side[:4]
    ]
    key = side.key[:, OWN:].view(np.uint16) - np.uint16(1)  # 0, empty, becomes the largest
    order = np.lexsort((*vectors, side.hash[:, OWN:], key), axis=1)
    every = np.concatenate([np.broadcast_to(np.arange(OWN), (len(order), OWN)), order + OWN], axis=1)
    rows = np.arange(len(order))[:, None]
    return side.take((rows, every))


def _rarity(hashes: npt.NDArray[np.int64]) -> torch.Tensor:
    """What the lowest bits of a hash say (`model/encoding/items.py`), each between 0 and 1."""
    low = torch.from_numpy((hashes & ((1 << RARITY_BITS) - 1)).astype(np.int32))
    return torch.stack([low >> 8, low >> 4 & 15, low & 15], dim=2).float().mul_(1 / 15)


def _products(left: I8, right: I8, out: npt.NDArray[np.float32]) -> None:
    """Inner products (p, n, DIM) x (p, m, DIM) to (p, n, m), exact."""
    np.matmul(left.astype(np.float32), right.astype(np.float32).transpose(0, 2, 1), out=out)


def check(inputs: PairInputs) -> None:
    """Raises ValueError when shapes do not fit or the context is not finite."""
    pairs = len(inputs.context)
    slots = pairs, SLOTS
    expected = ((*slots, DIM), (*slots, DIM), (*slots, LEVEL), (*slots, LEVEL), slots, slots)
    for side in (inputs.left, inputs.right):
        shapes = tuple(array.shape for array in side)
        if shapes != expected:
            raise ValueError(f"shapes {shapes}; {expected} are expected")
    if inputs.context.ndim != 2 or not np.isfinite(inputs.context).all():
        raise ValueError(f"context: expected finite numbers of shape (P, C), got {inputs.context.shape}")
