"""From slots of pairs to the arrays that the model scores."""

from typing import Any

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.arrays import MISSING, Pairs, Slots, sorted_distinct
from model.encoding.levels import with_degree
from model.scoring.comparing import I64, EntitySlots
from model.scoring.pairs import PairInputs, Side
from model.shapes import DIM, I8, LEVEL, OWN, SLOTS
from stream.engine.node_table import NodeTable


def slots_of_pairs(table: NodeTable, pairs: Pairs) -> tuple[EntitySlots, EntitySlots, tuple[I64, I64]]:
    """What the network sees of P pairs' entities, each once, and which of them each pair consists of."""
    (left, left_of), (right, right_of) = (_numbered(slots) for slots in pairs)
    return _slots(table, left), _slots(table, right), (left_of, right_of)


def pair_inputs(table: NodeTable, pairs: Pairs, context: npt.NDArray[np.float32]) -> PairInputs:
    """The same for training: everything about each pair, copied."""

    def side(entities: Slots) -> Side:
        slots = _slots(table, entities)
        row = slots.at // DIM
        own, around = row[:, :OWN], row[:, OWN:]
        vec = np.concatenate([_rows(slots.items, DIM)[own], _rows(slots.names, DIM)[around]], axis=1)
        nbr, level0, level1 = (np.zeros((*row.shape, width), np.int8) for width in (DIM, LEVEL, LEVEL))
        nbr[:, OWN:] = _rows(slots.around, DIM)[around]
        level0[:, OWN:] = _rows(slots.level0, LEVEL)[around]
        level1[:, OWN:] = _rows(slots.level1, LEVEL)[around]
        for vectors in (vec, nbr, level0, level1):
            vectors[slots.key == 0] = 0
        return Side(vec, nbr, level0, level1, slots.key, slots.hash)

    return PairInputs(side(pairs.left), side(pairs.right), context)


def _rows(buffer: I8, width: int) -> I8:
    return buffer.reshape(-1, width)


def _numbered(slots: Slots) -> tuple[Slots, I64]:
    """The distinct slots in order, and the place of each given one among them."""
    distinct = sorted_distinct([slots])
    return distinct, np.searchsorted(distinct, slots)


def _slots(table: NodeTable, entities: Slots) -> EntitySlots:
    """The filled slots of entities: their own values, then the sampled neighbours that exist."""
    rows, items = table.rows, table.items
    filled = _fill(
        entities,
        items.shape[1],
        *(rows[field] for field in ("item_keys", "item_hashes", "sample", "sample_keys")),
        *(rows[field] for field in ("exists", "name_hash", "degree")),
    )
    names, around, level0, level1 = (
        rows[field].reshape(-1) for field in ("name", "neighbourhood", "level0", "level1")
    )
    return EntitySlots(items.reshape(-1), names, around, level0, level1, *filled)


@compiled
def _fill(
    entities: Any,
    room: int,
    item_keys: Any,
    item_hashes: Any,
    sample: Any,
    sample_keys: Any,
    exists: Any,
    name_hash: Any,
    degree: Any,
) -> tuple[Any, Any, Any]:
    """Where the vectors of n entities' slots begin, keys and hashes (n, SLOTS); `room` for so many rows."""
    n = len(entities)
    at, hashes = np.zeros((n, SLOTS), np.int64), np.zeros((n, SLOTS), np.int64)
    keys = np.zeros((n, SLOTS), np.int16)
    for i in range(n):
        entity = np.int64(entities[i])
        for place in range(OWN):
            at[i, place] = (place * room + entity) * DIM
            keys[i, place], hashes[i, place] = item_keys[entity, place], item_hashes[entity, place]
        for place in range(SLOTS - OWN):
            neighbour = np.int64(sample[entity, place])
            if neighbour != MISSING and exists[neighbour]:
                at[i, OWN + place] = neighbour * DIM
                keys[i, OWN + place] = sample_keys[entity, place]
                hashes[i, OWN + place] = with_degree(name_hash[neighbour], degree[neighbour])
    return at, keys, hashes
