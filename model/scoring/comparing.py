"""What two entities have in common, slot by slot, and what trees see of that. Compiled, one pair at a time.

All of it is exact. `model/scoring/pairs.py` makes the same for training.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.encoding.exact import IN_ORDER
from model.scoring.network import CHANNELS
from model.scoring.pairs import Side
from model.scoring.trees import AGREES, CLOSEST, OF_SIDE, SUMMARY
from model.shapes import DIM, I8, LEVEL, OWN, RARITY_BITS, SLOTS, UNIT

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

LEVELS_PER_NAME: Final = DIM // LEVEL
_UNIT: Final = np.float32(1 / UNIT)
_LEVEL_UNIT: Final = np.float32(2 / UNIT)


class EntitySlots(NamedTuple):
    """The filled and empty slots of n entities, and where their vectors lie in buffers of bytes."""

    items: I8  # one-dimensional: vectors of values
    names: I8  # neighbours' names
    around: I8  # neighbours' neighbourhoods, which begin where their names do
    level0: I8  # neighbours' levels, which begin at a LEVELS_PER_NAME-th of that
    level1: I8
    at: I64  # (n, SLOTS) where the vector begins
    key: npt.NDArray[np.int16]  # (n, SLOTS) attribute or relation key; 0 is an empty slot
    hash: I64  # (n, SLOTS) of the value, of the neighbour's name


def slots_of(side: Side) -> EntitySlots:
    """The slots of `side`, whose vectors lie there."""
    at = np.arange(side.key.size, dtype=np.int64).reshape(side.key.shape) * DIM
    vec, nbr, level0, level1 = (np.ascontiguousarray(vectors).reshape(-1) for vectors in side[:4])
    return EntitySlots(vec, vec, nbr, level0, level1, at, side.key, side.hash)


@compiled(fastmath=IN_ORDER, inline="always")
def dot(a: Any, i: Any, b: Any, j: Any, width: Any) -> Any:
    """The inner product of two stored vectors of such a width. Exact: it is a whole number first.

    Signed positions might count from the end; that question in the loop would cost most of its speed. And
    Numba would add up in 64 bits, for which the processor has no instruction that takes 32 products at once.
    """
    total = np.int32(0)
    x, y = np.uint64(i), np.uint64(j)
    for d in range(width):
        product = np.int32(a[x + np.uint64(d)]) * np.int32(b[y + np.uint64(d)])
        total = np.int32(total + product)
    return np.float32(total)


class Compared(NamedTuple):
    """The filled slots of a pair, left and right, and what they have in common."""

    similar: F32  # (CHANNELS, SLOTS, SLOTS)
    slots: I64  # (2, SLOTS)
    keys: I64  # (2, SLOTS)
    hashes: I64  # (2, SLOTS)
    filled: I64  # (2,) how many there are
    values: I64  # (2,) how many of them are values


@compiled
def scratch() -> Any:
    """Room for one pair."""
    similar = np.zeros((CHANNELS, SLOTS, SLOTS), np.float32)
    slots, keys, hashes = (
        np.zeros((2, SLOTS), np.int64),
        np.zeros((2, SLOTS), np.int64),
        np.zeros((2, SLOTS), np.int64),
    )
    return Compared(similar, slots, keys, hashes, np.zeros(2, np.int64), np.zeros(2, np.int64))


@compiled(fastmath=IN_ORDER, error_model="numpy")
def compare(left: EntitySlots, e: Any, right: EntitySlots, f: Any, pair: Compared) -> None:
    """Everything but what neighbours have around them: exact."""
    similar, slots, hashes, filled, values = pair.similar, pair.slots, pair.hashes, pair.filled, pair.values
    for side in range(2):
        entity = e if side == 0 else f
        entity_keys = left.key if side == 0 else right.key
        entity_hashes = left.hash if side == 0 else right.hash
        found = 0
        values[side] = 0
        for slot in range(SLOTS):
            if entity_keys[entity, slot] != 0:
                slots[side, found] = slot
                pair.keys[side, found] = entity_keys[entity, slot]
                hashes[side, found] = entity_hashes[entity, slot]
                values[side] += slot < OWN
                found += 1
        filled[side] = found
    for x in range(filled[0]):
        is_value, i_hash = x < values[0], hashes[0, x] >> RARITY_BITS
        vectors, at = left.items if is_value else left.names, left.at[e, slots[0, x]]
        for y in range(values[1]):
            similar[0, x, y] = dot(vectors, at, right.items, right.at[f, slots[1, y]], DIM) * _UNIT
        for y in range(values[1], filled[1]):
            similar[0, x, y] = dot(vectors, at, right.names, right.at[f, slots[1, y]], DIM) * _UNIT
        for y in range(filled[1]):
            is_same = i_hash != 0 and i_hash == hashes[1, y] >> RARITY_BITS
            similar[2, x, y] = np.float32(is_same)
            similar[1, x, y] = similar[3, x, y] = similar[4, x, y] = np.float32(0)
        if not is_value:
            at = at // LEVELS_PER_NAME
            for y in range(values[1], filled[1]):
                to = right.at[f, slots[1, y]] // LEVELS_PER_NAME
                similar[3, x, y] = dot(left.level0, at, right.level0, to, LEVEL) * _LEVEL_UNIT
                similar[4, x, y] = dot(left.level1, at, right.level1, to, LEVEL) * _LEVEL_UNIT


@compiled(fastmath=IN_ORDER)
def summarise(pair: Compared, context: Any, seen: Any) -> None:
    """What trees see of a pair (`model/scoring/trees.py`), from the similarities of its filled slots."""
    f32 = np.float32
    similar, filled, values = pair.similar, pair.filled, pair.values
    contexts = len(context)
    for column in range(contexts):
        seen[column] = context[column]
    seen[contexts:] = f32(0)
    for side in range(2):
        start = contexts + CLOSEST + side * OF_SIDE
        for x in range(filled[side]):
            block = np.int64(x >= values[side])
            best, equal = f32(0), f32(0)
            near, around = f32(0), f32(0)
            for y in range(filled[1 - side]):
                i, j = (x, y) if side == 0 else (y, x)
                value = similar[0, i, j]
                best, equal = max(best, value), max(equal, similar[2, i, j])
                near, around = max(near, similar[3, i, j]), max(around, similar[4, i, j])
                if side == 0:
                    kind = contexts + 2 * block + np.int64(y >= values[1])
                    seen[kind] = max(seen[kind], value)
            seen[start] += best
            seen[start + 1] += equal
            seen[start + 2] += f32(1)
            seen[start + 3] += f32(best > AGREES)
            seen[start + 4] += near
            seen[start + 5] += around
            if side == 0:
                seen[contexts + 4] = max(seen[contexts + 4], near)
                seen[contexts + 5] = max(seen[contexts + 5], around)


@compiled
def seen_by_trees(left: EntitySlots, right: EntitySlots, left_of: Any, right_of: Any, context: Any) -> Any:
    """(P, C + SUMMARY) the features of P pairs (`model/scoring/trees.py`)."""
    seen = np.empty((len(left_of), context.shape[1] + SUMMARY), np.float32)
    pair = scratch()
    for p in range(len(left_of)):
        compare(left, left_of[p], right, right_of[p], pair)
        summarise(pair, context[p], seen[p])
    return seen
