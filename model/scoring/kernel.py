"""The serving path of the network and of the trees as one compiled loop over pairs.

Invariant: a pair's score has the same bits whatever else is in its batch and wherever it stands, since every
pair goes through the loop alone. Empty slots cost nothing, and vectors are read where they lie.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.encoding.exact import IN_ORDER, exp
from model.scoring.network import (
    AGREEMENT,
    ATTENTION,
    BINS,
    BLOCKS,
    HEAD,
    HIDDEN,
    ITEM,
    MAX_LOGIT,
    POOLED,
    SUM_SCALE,
    AlignmentNetwork,
)
from model.scoring.pairs import Side
from model.scoring.trees import AGREES, SUMMARY, Trees, say
from model.shapes import DIM, I8, OWN, RARITY_BITS, RARITY_FEATURES, SLOTS, UNIT

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

FEATURES: Final = AGREEMENT + RARITY_FEATURES
_MOST: Final = np.float32(MAX_LOGIT)
_UNIT: Final = np.float32(1 / UNIT)
_SUM_SCALE: Final = np.float32(SUM_SCALE)
_RARITY: Final = np.int64((1 << RARITY_BITS) - 1)


class EntitySlots(NamedTuple):
    """The filled and empty slots of n entities, and where their vectors lie in buffers of bytes."""

    items: I8  # one-dimensional: vectors of values
    names: I8  # neighbours' names
    around: I8  # neighbours' neighbourhoods, which begin where their names do
    at: I64  # (n, SLOTS) where the vector begins
    key: npt.NDArray[np.int16]  # (n, SLOTS) attribute or relation key; 0 is an empty slot
    hash: I64  # (n, SLOTS) of the value, of the neighbour's name


def slots_of(side: Side) -> EntitySlots:
    """The slots of `side`, whose vectors lie there."""
    at = np.arange(side.key.size, dtype=np.int64).reshape(side.key.shape) * DIM
    vectors = np.ascontiguousarray(side.vec).reshape(-1)
    return EntitySlots(vectors, vectors, np.ascontiguousarray(side.nbr).reshape(-1), at, side.key, side.hash)


class Weights(NamedTuple):
    """The parameters of a network as arrays, as the loop wants them; a part that was left out has zeros."""

    own: F32  # (BLOCKS * BLOCKS,)
    neighbourhood: F32  # (1,)
    equal: F32  # (BLOCKS * BLOCKS,)
    null: F32  # (BLOCKS, keys) exp(null)
    query: F32  # (keys, ATTENTION)
    key: F32  # (keys, ATTENTION)
    scale: F32  # (keys, HIDDEN)
    bias: F32  # (keys, HIDDEN)
    item_in: F32  # (BLOCKS, FEATURES, HIDDEN)
    item_in_bias: F32  # (BLOCKS, HIDDEN)
    item_out: F32  # (BLOCKS, HIDDEN, ITEM)
    item_out_bias: F32  # (BLOCKS, ITEM)
    gate: F32  # (BLOCKS, HIDDEN) of the last layer but one: the last one is linear
    gate_bias: F32  # (BLOCKS,)
    bin_low: F32  # (C, BINS)
    bin_width: F32  # (C, BINS)
    binned: F32  # (C, BINS, HEAD) what a full bin adds
    beyond: F32  # (C, BINS + 1, HEAD) what so many full bins add together
    head_in: F32  # (2 * POOLED, HEAD)
    head_in_bias: F32  # (HEAD,)
    head_out: F32  # (HEAD,)
    head_out_bias: F32  # (1,)


def weights_of(network: AlignmentNetwork) -> Weights:
    """Copies the parameters."""

    def array(tensor: Any) -> F32:
        return np.array(tensor.detach().numpy(), np.float32, order="C")

    def stacked(layers: Any, name: str) -> F32:
        return np.stack([np.ascontiguousarray(array(getattr(layer, name)).T) for layer in layers])

    net, options = network, network.options
    crossing, attending = np.float32(options.cross_attention), np.float32(options.self_attention)
    null = array(net.null)[:, None] + array(net.key_null.weight)[None, :, 0]
    null = np.clip(null, -_MOST, _MOST) if options.cross_attention else np.full_like(null, -_MOST)
    signs = array(net.key_signs) * crossing
    embedded = array(net.key_attention.weight)
    item_out, item_out_bias = stacked(net.item_out, "weight"), stacked(net.item_out, "bias")
    gate = stacked(net.gate, "weight")[:, :, 0] * attending
    gate_bias = stacked(net.gate, "bias")[:, 0] * attending
    head_in = np.ascontiguousarray(array(net.head_in.weight).T)
    binned = head_in[2 * POOLED :].reshape(-1, BINS, HEAD) * np.float32(options.features)
    return Weights(
        own=array(net.own) * crossing,
        neighbourhood=array(net.neighbourhood).reshape(1) * crossing,
        equal=array(net.equal) * crossing,
        # rounded from 64 bits: in 32 the libraries of different processors differ in the last one
        null=np.exp(null.astype(np.float64)).astype(np.float32),
        query=embedded * signs,
        key=embedded,
        scale=array(net.key_scale.weight),
        bias=array(net.key_bias.weight),
        item_in=stacked(net.item_in, "weight"),
        item_in_bias=stacked(net.item_in, "bias"),
        item_out=item_out,
        item_out_bias=item_out_bias,
        gate=np.einsum("bho,bo->bh", item_out, gate),
        gate_bias=gate_bias + np.einsum("bo,bo->b", item_out_bias, gate),
        bin_low=array(net.get_buffer("bin_low")),
        bin_width=array(net.get_buffer("bin_width")),
        binned=binned,
        beyond=np.pad(binned, ((0, 0), (1, 0), (0, 0))).cumsum(axis=1, dtype=np.float32),
        head_in=head_in[: 2 * POOLED].copy(),
        head_in_bias=array(net.head_in.bias),
        head_out=array(net.head_out.weight)[0],
        head_out_bias=array(net.head_out.bias),
    )


@compiled(fastmath=IN_ORDER, inline="always")
def _dot(a: Any, i: Any, b: Any, j: Any) -> Any:
    """The inner product of two stored vectors, in units of equality. Exact: it is a whole number first.

    Signed positions might count from the end; that question in the loop would cost most of its speed. And
    Numba would add up in 64 bits, for which the processor has no instruction that takes 32 products at once.
    """
    total = np.int32(0)
    x, y = np.uint64(i), np.uint64(j)
    for d in range(DIM):
        product = np.int32(a[x + np.uint64(d)]) * np.int32(b[y + np.uint64(d)])
        total = np.int32(total + product)
    return np.float32(total) * _UNIT


@compiled(fastmath=IN_ORDER, inline="always")
def _sum(numbers: Any) -> Any:
    """The sum of 2^n numbers, which are overwritten: one half is added to the other, many at once."""
    width = len(numbers) // 2
    while width > 0:
        for n in range(width):
            numbers[n] += numbers[n + width]
        width //= 2
    return numbers[0]


@compiled(fastmath=IN_ORDER, error_model="numpy")
def score_pairs(
    left: EntitySlots,
    right: EntitySlots,
    left_of: Any,
    right_of: Any,
    context: Any,
    w: Weights,
    trees: Trees,
    partner: Any,
    weight: Any,
) -> Any:
    """Logits of P pairs.

    Args:
        left_of, right_of: (P,) which entities of `left` and `right`.
        context: (P, C) float32.
        trees: what they say is added to the network's logit.
        partner, weight: (P, SLOTS) to be filled with every left slot's best partner (-1 for none) and how
            much it counts, alpha_ij beta_i; or with no rows at all.

    Returns:
        (P,) float32, uncalibrated.
    """
    f32 = np.float32
    logits = np.empty(len(left_of), np.float32)
    contexts = context.shape[1]
    own, around = np.zeros((SLOTS, SLOTS), np.float32), np.zeros((SLOTS, SLOTS), np.float32)
    attention = np.empty((SLOTS, SLOTS), np.float32)
    same, logit_of = np.empty(SLOTS, np.float32), np.empty(SLOTS, np.float32)
    agreed = np.empty((2, AGREEMENT, SLOTS), np.float32)
    slots = np.empty((2, SLOTS), np.int64)
    keys = np.empty((2, SLOTS), np.int64)
    hashes = np.empty((2, SLOTS), np.int64)
    count, values = np.empty(2, np.int64), np.empty(2, np.int64)  # filled slots, and those that are values
    hidden, gated = np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.float32)
    right_key = np.empty((ATTENTION, SLOTS), np.float32)
    pooled = np.empty((2, BLOCKS, 2, HIDDEN), np.float32)
    mass = np.empty((2, BLOCKS), np.float32)
    gates = np.empty((2, SLOTS), np.float32)
    both, apart = np.empty(POOLED, np.float32), np.empty(POOLED, np.float32)
    one, other = np.empty(ITEM, np.float32), np.empty(ITEM, np.float32)
    head = np.empty(HEAD, np.float32)
    seen = np.empty(contexts + SUMMARY, np.float32)  # by the trees, as in `model/scoring/trees.py`
    closest = np.empty(BLOCKS * BLOCKS + 1, np.float32)
    best_of = np.empty((2, SLOTS), np.float32)
    equals = np.empty((2, SLOTS), np.float32)

    for p in range(len(left_of)):
        e, f = left_of[p], right_of[p]
        for side in range(2):
            entity = e if side == 0 else f
            entity_keys = left.key if side == 0 else right.key
            entity_hashes = left.hash if side == 0 else right.hash
            filled = 0
            values[side] = 0
            for slot in range(SLOTS):
                if entity_keys[entity, slot] != 0:
                    slots[side, filled] = slot
                    keys[side, filled] = entity_keys[entity, slot]
                    hashes[side, filled] = entity_hashes[entity, slot]
                    values[side] += slot < OWN
                    filled += 1
            count[side] = filled
        nl, nr, values_right = count[0], count[1], values[1]
        agreed[:, :, :] = f32(0)
        best_of[:, :] = f32(0)
        equals[:, :] = f32(0)
        closest[:] = f32(0)

        for y in range(nr):
            for d in range(ATTENTION):
                right_key[d, y] = w.key[keys[1, y], d]

        # cross-graph attention: both directions share exp(logit)
        for x in range(nl):
            i, i_key, i_hash = slots[0, x], keys[0, x], hashes[0, x] >> RARITY_BITS
            i_block = np.int64(x >= values[0])
            vectors, at = left.items if i_block == 0 else left.names, left.at[e, i]
            for y in range(values_right):
                own[x, y] = _dot(vectors, at, right.items, right.at[f, slots[1, y]])
            for y in range(values_right, nr):
                own[x, y] = _dot(vectors, at, right.names, right.at[f, slots[1, y]])
            if i_block == 1:
                for y in range(values_right, nr):
                    around[x, y] = _dot(left.around, at, right.around, right.at[f, slots[1, y]])
            for y in range(nr):
                block = 2 * i_block + np.int64(y >= values_right)
                near = around[x, y] if block == 3 else f32(0)
                is_same = f32(i_hash != 0 and i_hash == hashes[1, y] >> RARITY_BITS)
                same[y] = is_same
                closest[block] = max(closest[block], own[x, y])
                closest[4] = max(closest[4], near)
                best_of[0, x] = max(best_of[0, x], own[x, y])
                best_of[1, y] = max(best_of[1, y], own[x, y])
                equals[0, x] = max(equals[0, x], is_same)
                equals[1, y] = max(equals[1, y], is_same)
                logit_of[y] = w.own[block] * own[x, y] + w.neighbourhood[0] * near + w.equal[block] * is_same
            for d in range(ATTENTION):
                query = w.query[i_key, d]
                for y in range(nr):
                    logit_of[y] += query * right_key[d, y]
            for y in range(nr):
                attention[x, y] = exp(min(max(logit_of[y], f32(-80)), _MOST))
            for y in range(nr):
                alpha = attention[x, y]
                agreed[0, 0, x] += alpha * own[x, y]
                agreed[0, 2, x] += alpha * same[y]
                agreed[0, 3, x] += alpha
                agreed[1, 0, y] += alpha * own[x, y]
                agreed[1, 2, y] += alpha * same[y]
                agreed[1, 3, y] += alpha
            if i_block == 1:
                for y in range(values_right, nr):
                    agreed[0, 1, x] += attention[x, y] * around[x, y]
                    agreed[1, 1, y] += attention[x, y] * around[x, y]

        # what each slot means, and self-attention over the slots of each block: up to the last layer, which
        # is linear, so that it is applied to the sums and not to every slot
        pooled[:, :, :, :] = f32(0)
        mass[:, :] = f32(0)
        for side in range(2):
            for x in range(count[side]):
                key, rarity = keys[side, x], hashes[side, x] & _RARITY
                block = np.int64(x >= values[side])
                scale = f32(1) / (agreed[side, 3, x] + w.null[block, key])
                a, b = agreed[side, 0, x] * scale, agreed[side, 1, x] * scale
                c, d = agreed[side, 2, x] * scale, agreed[side, 3, x] * scale
                rare, rarer, rarest = (
                    f32(rarity >> 8 & 15) * f32(1 / 15),
                    f32(rarity >> 4 & 15) * f32(1 / 15),
                    f32(rarity & 15) * f32(1 / 15),
                )
                layer, bias = w.item_in[block], w.item_in_bias[block]
                key_scale, key_bias, gate_of = w.scale[key], w.bias[key], w.gate[block]
                for h in range(HIDDEN):
                    value = bias[h] + a * layer[0, h] + b * layer[1, h] + c * layer[2, h] + d * layer[3, h]
                    value += rare * layer[4, h] + rarer * layer[5, h] + rarest * layer[6, h]
                    value = max(value * key_scale[h] + key_bias[h], f32(0))
                    hidden[h] = value
                    gated[h] = value * gate_of[h]
                gate = w.gate_bias[block] + _sum(gated)
                gate = exp(min(max(gate, -_MOST), _MOST))
                gates[side, x] = gate
                mass[side, block] += gate
                for h in range(HIDDEN):
                    pooled[side, block, 0, h] += gate * hidden[h]
                    pooled[side, block, 1, h] += hidden[h]

        # the classifier
        for part in range(BLOCKS):
            for kind in range(2):
                for side in range(2):
                    out = one if side == 0 else other
                    number = f32(count[side] - values[side] if part else values[side])
                    if kind == 0:
                        scale, share = f32(1) / max(mass[side, part], f32(1e-30)), f32(min(number, f32(1)))
                    else:
                        scale, share = _SUM_SCALE, number * _SUM_SCALE
                    for o in range(ITEM):
                        out[o] = share * w.item_out_bias[part, o]
                    for h in range(HIDDEN):
                        value = pooled[side, part, kind, h] * scale
                        for o in range(ITEM):
                            out[o] += value * w.item_out[part, h, o]
                row = (part * 2 + kind) * ITEM
                for o in range(ITEM):
                    both[row + o], apart[row + o] = one[o] + other[o], abs(one[o] - other[o])
        for h in range(HEAD):
            head[h] = w.head_in_bias[h]
        for row in range(0, POOLED, 4):  # four at a time: fewer sums have to be stored
            b0, b1, b2, b3 = both[row], both[row + 1], both[row + 2], both[row + 3]
            a0, a1, a2, a3 = apart[row], apart[row + 1], apart[row + 2], apart[row + 3]
            of_both, of_apart = w.head_in[row : row + 4], w.head_in[POOLED + row : POOLED + row + 4]
            for h in range(HEAD):
                value = b0 * of_both[0, h] + b1 * of_both[1, h] + b2 * of_both[2, h] + b3 * of_both[3, h]
                value += a0 * of_apart[0, h] + a1 * of_apart[1, h] + a2 * of_apart[2, h] + a3 * of_apart[3, h]
                head[h] += value
        for column in range(contexts):
            full = 0  # bins that the value is beyond
            while full < BINS and context[p, column] >= w.bin_low[column, full] + w.bin_width[column, full]:
                full += 1
            for h in range(HEAD):
                head[h] += w.beyond[column, full, h]
            while (
                full < BINS and context[p, column] > w.bin_low[column, full]
            ):  # one bin, or several that coincide
                within = (context[p, column] - w.bin_low[column, full]) / w.bin_width[column, full]
                for h in range(HEAD):
                    head[h] += within * w.binned[column, full, h]
                full += 1
        for h in range(HEAD):
            head[h] = max(head[h], f32(0)) * w.head_out[h]
        logit = w.head_out_bias[0] + _sum(head)

        if len(trees.feature):
            for column in range(contexts):
                seen[column] = context[p, column]
            seen[contexts:] = f32(0)
            for kind in range(len(closest)):
                seen[contexts + kind] = closest[kind]
            for side in range(2):
                at = contexts + len(closest) + 4 * side
                seen[at + 2] = f32(count[side])
                for x in range(count[side]):
                    best = best_of[side, x]
                    seen[at] += best
                    seen[at + 1] += equals[side, x]
                    seen[at + 3] += f32(best > AGREES)
            logit += f32(say(trees, seen))
        logits[p] = logit

        if len(partner):
            partner[p, :] = -1
            weight[p, :] = 0
            for x in range(nl):
                i, block = slots[0, x], np.int64(x >= values[0])
                null = w.null[block, keys[0, x]]
                best, best_at = f32(-1), -1
                for y in range(nr):
                    if attention[x, y] > best:
                        best, best_at = attention[x, y], slots[1, y]
                beta = gates[0, x] / max(mass[0, block], f32(1e-30))
                if best > null:
                    partner[p, i] = best_at
                if best_at >= 0:
                    weight[p, i] = best / (agreed[0, 3, x] + null) * beta
    return logits
