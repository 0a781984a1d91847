"""The serving path of the network and of the trees as one compiled loop over pairs.

Invariant: a pair's score has the same bits whatever else is in its batch and wherever it stands, since every
pair goes through the loop alone. Empty slots cost nothing, and vectors are read where they lie.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from index.compiled import compiled
from model.encoding.exact import IN_ORDER, exp
from model.scoring.comparing import F32, EntitySlots, compare, dot, scratch, summarise
from model.scoring.network import (
    AGREEMENT,
    ATTENTION,
    BINS,
    BLOCKS,
    CHANNELS,
    HEAD,
    HIDDEN,
    ITEM,
    LEVELS,
    MAX_LOGIT,
    POOLED,
    SUM_SCALE,
    AlignmentNetwork,
)
from model.scoring.trees import SUMMARY, Trees, say
from model.shapes import DIM, RARITY_BITS, SLOTS, UNIT

_MOST: Final = np.float32(MAX_LOGIT)
_UNIT: Final = np.float32(1 / UNIT)
_SUM_SCALE: Final = np.float32(SUM_SCALE)
_RARITY: Final = np.int64((1 << RARITY_BITS) - 1)


class Weights(NamedTuple):
    """The parameters of a network as arrays, as the loop wants them; a part that was left out has zeros."""

    mutual: bool
    attend: F32  # (LEVELS, BLOCKS * BLOCKS, CHANNELS)
    null: F32  # (LEVELS, BLOCKS, keys) exp(null)
    query: F32  # (keys, ATTENTION)
    key: F32  # (keys, ATTENTION)
    scale: F32  # (keys, HIDDEN)
    bias: F32  # (keys, HIDDEN)
    item_in: F32  # (BLOCKS, LEVELS * AGREEMENT + RARITY_FEATURES, HIDDEN)
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


def weights_of(network: AlignmentNetwork, *, alone: bool) -> Weights:
    """Copies the parameters.

    Args:
        alone: as the network is without trees.
    """

    def array(tensor: Any) -> F32:
        return np.array(tensor.detach().numpy(), np.float32, order="C")

    def stacked(layers: Any, name: str) -> F32:
        return np.stack([np.ascontiguousarray(array(getattr(layer, name)).T) for layer in layers])

    net, options = network, network.options
    compared = options.attention != "uniform"
    crossing, attending = np.float32(compared), np.float32(options.self_attention)
    null = array(net.null)[:, :, None] + array(net.key_null.weight)[:, 0]
    null = np.clip(null, -_MOST, _MOST) if compared else np.full_like(null, -_MOST)
    signs = array(net.key_signs) * crossing
    embedded = array(net.key_attention.weight)
    item_out, item_out_bias = stacked(net.item_out, "weight"), stacked(net.item_out, "bias")
    gate = stacked(net.gate, "weight")[:, :, 0] * attending
    gate_bias = stacked(net.gate, "bias")[:, 0] * attending
    head_in = np.ascontiguousarray(array(net.head_in.weight).T)
    binned = head_in[2 * POOLED :].reshape(-1, BINS, HEAD) * np.float32(options.features)
    return Weights(
        mutual=options.attention == "mutual",
        attend=array(net.attend) * crossing,
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
        head_in_bias=array(net.head_in.bias) + array(net.alone) * np.float32(alone),
        head_out=array(net.head_out.weight)[0],
        head_out_bias=array(net.head_out.bias),
    )


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
        trees: what they say is the logit, to which that of the network is added if the former is not below
            `least`.
        partner, weight: (P, SLOTS) to be filled with every left slot's best partner of its kind (-1 for none)
            and their attention, at the level where it is larger; or with no rows at all.

    Returns:
        (P,) float32, uncalibrated.
    """
    f32 = np.float32
    logits = np.empty(len(left_of), np.float32)
    contexts = context.shape[1]
    pair = scratch()
    similar, slots, keys, hashes, count, values = pair
    attention = np.empty((LEVELS, SLOTS, SLOTS), np.float32)
    mass_of = np.empty((LEVELS, 2, SLOTS), np.float32)  # of a slot's attention, 'no partner' included
    alpha, logit_of = np.empty(SLOTS, np.float32), np.empty(SLOTS, np.float32)
    by_key = np.empty(SLOTS, np.float32)
    agreed = np.empty((2, LEVELS, AGREEMENT, SLOTS), np.float32)
    hidden, gated = np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.float32)
    right_key = np.empty((ATTENTION, SLOTS), np.float32)
    pooled = np.empty((2, BLOCKS, 2, HIDDEN), np.float32)
    mass = np.empty((2, BLOCKS), np.float32)
    both, apart = np.empty(POOLED, np.float32), np.empty(POOLED, np.float32)
    one, other = np.empty(ITEM, np.float32), np.empty(ITEM, np.float32)
    head = np.empty(HEAD, np.float32)
    seen = np.empty(contexts + SUMMARY, np.float32)  # by the trees, as in `model/scoring/trees.py`

    for p in range(len(left_of)):
        e, f = left_of[p], right_of[p]
        compare(left, e, right, f, pair)
        nl, nr, values_right = count[0], count[1], values[1]

        said = f32(0)
        if len(trees.feature):
            summarise(pair, context[p], seen)
            said = f32(say(trees, seen))
            if said < trees.least[0] and not len(partner):
                logits[p] = said
                continue

        for x in range(values[0], nl):
            at = left.at[e, slots[0, x]]
            for y in range(values_right, nr):
                similar[1, x, y] = dot(left.around, at, right.around, right.at[f, slots[1, y]], DIM) * _UNIT

        # cross-graph attention at either level: exp(logit), and its sums both ways
        for y in range(nr):
            block = np.int64(y >= values_right)
            for level in range(LEVELS):
                mass_of[level, 1, y] = w.null[level, block, keys[1, y]]
            for d in range(ATTENTION):
                right_key[d, y] = w.key[keys[1, y], d]
        for x in range(nl):
            i_key, i_block = keys[0, x], np.int64(x >= values[0])
            by_key[:nr] = f32(0)
            for d in range(ATTENTION):
                query = w.query[i_key, d]
                for y in range(nr):
                    by_key[y] += query * right_key[d, y]
            for level in range(LEVELS):
                for j_block in range(BLOCKS):
                    start, stop = (values_right, nr) if j_block else (0, values_right)
                    weigh = w.attend[level, 2 * i_block + j_block]
                    for y in range(start, stop):
                        logit_of[y] = weigh[0] * similar[0, x, y] + weigh[2] * similar[2, x, y] + by_key[y]
                    if i_block and j_block:
                        for y in range(start, stop):
                            logit_of[y] += (
                                weigh[1] * similar[1, x, y]
                                + weigh[3] * similar[3, x, y]
                                + weigh[4] * similar[4, x, y]
                            )
                total = w.null[level, i_block, i_key]
                for y in range(nr):
                    value = exp(min(max(logit_of[y], f32(-80)), _MOST))
                    attention[level, x, y] = value
                    mass_of[level, 1, y] += value
                for y in range(nr):
                    total += attention[level, x, y]
                mass_of[level, 0, x] = total

        # the agreement of each slot with its partners
        agreed[:, :, :, :] = f32(0)
        for level in range(LEVELS):
            for y in range(nr):
                mass_of[level, 1, y] = f32(1) / mass_of[level, 1, y]
            for x in range(nl):
                inverse = f32(1) / mass_of[level, 0, x]
                for y in range(nr):
                    alpha[y] = attention[level, x, y] * inverse
                    attention[level, x, y] *= mass_of[level, 1, y]
                if w.mutual:
                    for y in range(nr):
                        alpha[y] *= attention[level, x, y]
                        attention[level, x, y] = alpha[y]
                first = values_right if x >= values[0] else nr  # around what both surround
                for channel in range(AGREEMENT):
                    start = 0 if channel in (0, 2, 5) else first
                    total = f32(0)
                    if channel == CHANNELS:
                        for y in range(nr):
                            total += alpha[y]
                            agreed[1, level, channel, y] += attention[level, x, y]
                    else:
                        for y in range(start, nr):
                            total += alpha[y] * similar[channel, x, y]
                        for y in range(start, nr):
                            agreed[1, level, channel, y] += attention[level, x, y] * similar[channel, x, y]
                    agreed[0, level, channel, x] = total

        # what each slot means, and self-attention over the slots of each block: up to the last layer, which
        # is linear, so that it is applied to the sums and not to every slot
        pooled[:, :, :, :] = f32(0)
        mass[:, :] = f32(0)
        for side in range(2):
            for x in range(count[side]):
                key, rarity = keys[side, x], hashes[side, x] & _RARITY
                block = np.int64(x >= values[side])
                layer, bias = w.item_in[block], w.item_in_bias[block]
                key_scale, key_bias, gate_of = w.scale[key], w.bias[key], w.gate[block]
                rare, rarer, rarest = (
                    f32(rarity >> 8 & 15) * f32(1 / 15),
                    f32(rarity >> 4 & 15) * f32(1 / 15),
                    f32(rarity & 15) * f32(1 / 15),
                )
                for h in range(HIDDEN):
                    hidden[h] = bias[h] + rare * layer[-3, h] + rarer * layer[-2, h] + rarest * layer[-1, h]
                for level in range(LEVELS):
                    agrees, rows = agreed[side, level], layer[level * AGREEMENT : (level + 1) * AGREEMENT]
                    a0, a1, a2 = agrees[0, x], agrees[1, x], agrees[2, x]
                    a3, a4, a5 = agrees[3, x], agrees[4, x], agrees[5, x]
                    for h in range(HIDDEN):
                        value = a0 * rows[0, h] + a1 * rows[1, h] + a2 * rows[2, h]
                        hidden[h] += value + (a3 * rows[3, h] + a4 * rows[4, h] + a5 * rows[5, h])
                for h in range(HIDDEN):
                    value = max(hidden[h] * key_scale[h] + key_bias[h], f32(0))
                    hidden[h] = value
                    gated[h] = value * gate_of[h]
                gate = w.gate_bias[block] + _sum(gated)
                gate = exp(min(max(gate, -_MOST), _MOST))
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
        logits[p] = said if said < trees.least[0] else said + (w.head_out_bias[0] + _sum(head))

        if len(partner):
            partner[p, :] = -1
            weight[p, :] = 0
            for x in range(nl):
                i = slots[0, x]
                # a value and a neighbour have something in common, but nothing that could be shown
                start, stop = (0, values_right) if x < values[0] else (values_right, nr)
                for y in range(start, stop):
                    value = max(attention[0, x, y], attention[1, x, y])
                    if partner[p, i] < 0 or value > weight[p, i]:
                        weight[p, i], partner[p, i] = value, slots[1, y]
    return logits
