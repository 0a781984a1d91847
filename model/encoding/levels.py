"""Levels 0 and 1 of the network: what an entity and its neighbourhood say, as learned vectors.

Neither depends on a pair, so both are made once for an entity. For an entity i with texts v of tokens t, and
its sampled neighbours j over relations r:

    e0_i    = norm(sum_v w_v norm(sum_t idf_t T[t]))                      level 0: the entity by itself
    m_ij    = g_r * (W e0_j) + u_r                                        what a neighbour says over r
    beta_ij = softmax_j(a tanh(m_ij) + b_r + c [degree_j, rarity_j])      relation-aware self-attention
    e1_i    = norm(sum_j beta_ij m_ij)                                    level 1: its neighbourhood

T has a learned vector for every bucket of tokens (`model/encoding/tokens.py`), w is the weight of a key, idf
the weight of a token. A token that was never seen in training has a vector of pseudo-random signs, so that
what consists of such tokens is found by them. `model/contrastive.py` learns all of these from links.

A relation with more than `HUB_COUNT` neighbours is left out of level 1 (`model/encoding/neighbourhood.py`).

The sums of level 0 are of whole numbers. Those of level 1 are of float32 in one order, each entity by itself,
so both have the same bits in any batch and on any processor.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from index.search.arrays import Slots
from model.encoding.exact import IN_ORDER, exp, tanh
from model.encoding.tokens import TEXT_BUCKETS, Bags
from model.encoding.vectors import signs, to_int8
from model.shapes import I8, LEVEL, LEVEL_NORM, RARITY_FEATURES

TOKEN_UNIT: Final = 90  # of a token's vector in its bytes: 1 as a float
_UNLEARNED: Final = 16  # of each component of a token's vector, before training: a norm of 1
_SCALE: Final = np.float32(1 / LEVEL_NORM)
_FRACTION, _LARGEST = np.float32(1 << 12), np.float32(1 << 20)  # of a component of level 1 as a whole number
_MOST: Final = np.float32(30)  # of a logit of the attention, either way

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


class Levels(NamedTuple):
    """What is learned."""

    tokens: I8  # (TEXT_BUCKETS, LEVEL) T, in units of 1 / TOKEN_UNIT
    transform: F32  # (LEVEL, LEVEL) W, by the dimension of e0
    scale: F32  # (keys, LEVEL) g
    shift: F32  # (keys, LEVEL) u
    attention: F32  # (LEVEL,) a
    key: F32  # (keys,) b
    about: F32  # (RARITY_FEATURES,) c


def unlearned(keys: int) -> Levels:
    """With these, level 0 is a projection by pseudo-random signs, and level 1 the mean of the neighbours."""
    return Levels(
        tokens=signs()[:TEXT_BUCKETS, :LEVEL] * np.int8(_UNLEARNED),
        transform=np.eye(LEVEL, dtype=np.float32),
        scale=np.ones((keys, LEVEL), np.float32),
        shift=np.zeros((keys, LEVEL), np.float32),
        attention=np.zeros(LEVEL, np.float32),
        key=np.zeros(keys, np.float32),
        about=np.zeros(RARITY_FEATURES, np.float32),
    )


class Entities(NamedTuple):
    """What level 1 rests on, of n entities."""

    level0: I8  # (n, LEVEL)
    exists: npt.NDArray[np.bool_]  # (n,)
    hash: I64  # (n,) of the name, whose lowest bits tell its rarity
    degree: I64  # (n,)


def add_tokens(
    bags: Bags, rows: I64, weights: npt.NDArray[np.uint8], tokens: I8, sums: npt.NDArray[np.int32]
) -> None:
    """Adds the weighted sum of the tokens of each of m texts to a row (m,) of `sums` (n, LEVEL)."""
    _add_tokens(*bags, rows, weights, tokens, sums)


@compiled
def _add_tokens(buckets: Any, starts: Any, rows: Any, weights: Any, tokens: Any, sums: Any) -> None:
    for m in range(len(starts)):
        end = starts[m + 1] if m + 1 < len(starts) else len(buckets)
        out = sums[rows[m]]
        for bucket in buckets[starts[m] : end]:
            token, weight = tokens[bucket], np.int32(weights[bucket])
            for d in range(LEVEL):
                out[d] += weight * np.int32(token[d])


@compiled
def with_degree(name_hash: Any, degree: Any) -> Any:
    """A neighbour's name hash that also tells how many neighbours it has itself (in powers of two).

    What thousands share says little about each of them. The degree takes no part in equality.
    """
    exponent = 0
    while exponent < 15 and 1 << exponent < degree:
        exponent += 1
    return name_hash | exponent << 8


def level1(entities: Entities, members: Slots, keys: npt.NDArray[np.int16], levels: Levels) -> I8:
    """(B, LEVEL) of entities with such neighbours; zero where there are none.

    Args:
        members: (B, SAMPLE) which of the entities are neighbours of each, negative for none.
        keys: (B, SAMPLE) of the relations.
    """
    return to_int8(_attended(entities, members, keys, levels), LEVEL_NORM)


@compiled(fastmath=IN_ORDER, error_model="numpy")
def _attended(entities: Entities, members: Any, keys: Any, levels: Levels) -> Any:
    """(B, LEVEL) sum_j beta_ij m_ij, rounded to whole numbers: so are sums of their squares."""
    f32 = np.float32
    out = np.zeros((len(members), LEVEL), np.float32)
    said, message = np.empty(LEVEL, np.float32), np.empty(LEVEL, np.float32)
    for b in range(len(members)):
        total = f32(0)
        for place in range(members.shape[1]):
            member, key = np.int64(members[b, place]), np.int64(keys[b, place])
            if member < 0 or not entities.exists[member]:
                continue
            said[:] = f32(0)
            for k in range(LEVEL):
                component = f32(entities.level0[member, k]) * _SCALE
                for d in range(LEVEL):
                    said[d] += component * levels.transform[k, d]
            for d in range(LEVEL):
                message[d] = levels.scale[key, d] * said[d] + levels.shift[key, d]
                said[d] = levels.attention[d] * tanh(message[d])
            low = with_degree(entities.hash[member], entities.degree[member])
            logit = levels.key[key]
            for feature in range(RARITY_FEATURES):
                shift = 4 * (RARITY_FEATURES - 1 - feature)
                logit += levels.about[feature] * (f32(low >> shift & 15) * f32(1 / 15))
            for d in range(LEVEL):
                logit += said[d]
            weight = exp(min(max(logit, -_MOST), _MOST))
            total += weight
            for d in range(LEVEL):
                out[b, d] += weight * message[d]
        if total > 0:
            for d in range(LEVEL):
                mean = np.rint(out[b, d] / total * _FRACTION)
                out[b, d] = min(max(mean, -_LARGEST), _LARGEST)
    return out
