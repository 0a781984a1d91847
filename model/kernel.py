"""The serving path of `model/network.py` and `model/trees.py` as one compiled loop over pairs.

Invariant: a pair's score has the same bits whatever else is in its batch and wherever it stands, since every
pair goes through the loop alone. Empty slots cost nothing, and vectors are read where they lie.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from model.encoder import OWN
from model.items import RARITY_BITS
from model.network import AGREEMENT, BLOCKS, MAX_LOGIT, SUM_SCALE, AlignmentNetwork
from model.pairs import RARITY_FEATURES, SLOTS, Side
from model.trees import AGREES, SUMMARY, Trees, say
from model.vectors import DIM, I8, UNIT

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

FEATURES: Final = AGREEMENT + RARITY_FEATURES
_LOG2E: Final = np.float32(1.4426950408889634)
_MOST: Final = np.float32(MAX_LOGIT)
_UNIT: Final = np.float32(1 / UNIT)
_SUM_SCALE: Final = np.float32(SUM_SCALE)
_POWERS: Final = 2.0 ** np.arange(-126, 128).astype(np.float32)
_RARITY: Final = np.int64((1 << RARITY_BITS) - 1)


class EntitySlots(NamedTuple):
    """The filled and empty slots of n entities, and where their vectors lie in one buffer of bytes."""

    buffer: I8  # one-dimensional
    vec: I64  # (n, SLOTS) where the vector of a value or of a neighbour's name begins
    nbr: I64  # (n, SLOTS) where the vector of a neighbour's neighbourhood begins; of no use for values
    key: npt.NDArray[np.int16]  # (n, SLOTS) attribute or relation key; 0 is an empty slot
    hash: I64  # (n, SLOTS) of the value, of the neighbour's name


def slots_of(side: Side) -> EntitySlots:
    """The slots of `side`, whose vectors are copied into one buffer."""
    begin = np.arange(side.key.size, dtype=np.int64).reshape(side.key.shape) * DIM
    buffer = np.concatenate([side.vec.reshape(-1), side.nbr.reshape(-1)])
    return EntitySlots(buffer, begin, begin + side.vec.size, side.key, side.hash)


class Weights(NamedTuple):
    """The parameters of a network as arrays; a part that was left out has zeros."""

    own: F32  # (BLOCKS * BLOCKS,)
    neighbourhood: F32  # (1,)
    equal: F32  # (BLOCKS * BLOCKS,)
    null: F32  # (BLOCKS, keys)
    query: F32  # (keys, attention_dim)
    key: F32  # (keys, attention_dim)
    scale: F32  # (keys, hidden)
    bias: F32  # (keys, hidden)
    item_in: F32  # (BLOCKS, FEATURES, hidden)
    item_in_bias: F32  # (BLOCKS, hidden)
    item_out: F32  # (BLOCKS, hidden, item_dim)
    item_out_bias: F32  # (BLOCKS, item_dim)
    gate: F32  # (BLOCKS, item_dim)
    gate_bias: F32  # (BLOCKS,)
    bin_low: F32  # (C, bins)
    bin_scale: F32  # (C, bins)
    head_in: F32  # (4 * BLOCKS * item_dim + C * bins, head)
    head_in_bias: F32  # (head,)
    head_out: F32  # (head,)
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
    signs = array(net.key_signs) * crossing
    embedded = array(net.key_attention.weight)
    head_in = np.ascontiguousarray(array(net.head_in.weight).T)
    if not options.features:
        head_in[4 * BLOCKS * options.item_dim :] = 0
    return Weights(
        own=array(net.own) * crossing,
        neighbourhood=array(net.neighbourhood).reshape(1) * crossing,
        equal=array(net.equal) * crossing,
        null=np.clip(null, -_MOST, _MOST) if options.cross_attention else np.full_like(null, -_MOST),
        query=embedded * signs,
        key=embedded,
        scale=array(net.key_scale.weight),
        bias=array(net.key_bias.weight),
        item_in=stacked(net.item_in, "weight"),
        item_in_bias=stacked(net.item_in, "bias"),
        item_out=stacked(net.item_out, "weight"),
        item_out_bias=stacked(net.item_out, "bias"),
        gate=stacked(net.gate, "weight")[:, :, 0] * attending,
        gate_bias=stacked(net.gate, "bias")[:, 0] * attending,
        bin_low=array(net.get_buffer("bin_low")),
        bin_scale=np.float32(1) / array(net.get_buffer("bin_width")),
        head_in=head_in,
        head_in_bias=array(net.head_in.bias),
        head_out=array(net.head_out.weight)[0],
        head_out_bias=array(net.head_out.bias),
    )


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _exp(x: Any) -> Any:
    """e^x for -80 < x < 80, to float32's last bits: 2^k times a polynomial (Taylor) of the rest."""
    y = x * _LOG2E
    k = np.floor(y + np.float32(0.5))
    f = y - k
    p = np.float32(1.5403530e-4)
    for c in (1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0):
        p = p * f + np.float32(c)
    return p * _POWERS[np.int64(k) + 126]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _dot(a: Any, i: Any, b: Any, j: Any) -> Any:
    """The inner product of two stored vectors, in units of equality. Exact: it is a whole number first.

    Signed positions might count from the end; that question in the loop would cost most of its speed.
    """
    total = np.int32(0)
    x, y = np.uint64(i), np.uint64(j)
    for d in range(DIM):
        total += np.int32(a[x + np.uint64(d)]) * np.int32(b[y + np.uint64(d)])
    return np.float32(total) * _UNIT


@njit(cache=True, nogil=True, fastmath=True)
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
    pairs = len(left_of)
    explain = len(partner) > 0
    logits = np.empty(pairs, np.float32)
    hidden_size, item_size = w.item_out.shape[1], w.item_out.shape[2]
    head_size, bins = len(w.head_out), w.bin_low.shape[1]
    sides = 2 * BLOCKS * item_size  # what is pooled of one side
    il, ir = np.empty(SLOTS, np.int64), np.empty(SLOTS, np.int64)
    attention = np.empty((SLOTS, SLOTS), np.float32)
    agreed = np.empty((2, SLOTS, AGREEMENT), np.float32)
    hidden = np.empty(hidden_size, np.float32)
    out = np.empty(item_size, np.float32)
    pooled = np.empty((2, BLOCKS, 2, item_size), np.float32)
    mass = np.empty((2, BLOCKS), np.float32)
    gates = np.empty(SLOTS, np.float32)
    head = np.empty(head_size, np.float32)
    contexts = context.shape[1]
    seen = np.empty(contexts + SUMMARY, np.float32)  # by the trees, as in `model/trees.py`
    closest = np.empty(BLOCKS * BLOCKS + 1, np.float32)
    best_of = np.empty((2, SLOTS), np.float32)
    equals = np.empty((2, SLOTS), np.float32)

    for p in range(pairs):
        e, f = left_of[p], right_of[p]
        nl = nr = 0
        for slot in range(SLOTS):
            if left.key[e, slot] != 0:
                il[nl] = slot
                nl += 1
            if right.key[f, slot] != 0:
                ir[nr] = slot
                nr += 1
        agreed[:, :, :] = f32(0)
        best_of[:, :] = f32(0)
        equals[:, :] = f32(0)
        closest[:] = f32(0)

        # cross-graph attention: both directions share exp(logit)
        for x in range(nl):
            i = il[x]
            i_key, i_hash = left.key[e, i], left.hash[e, i] >> RARITY_BITS
            i_block = np.int64(i >= OWN)
            for y in range(nr):
                j = ir[y]
                block = 2 * i_block + np.int64(j >= OWN)
                own = _dot(left.buffer, left.vec[e, i], right.buffer, right.vec[f, j])
                around = f32(0)
                if block == 3:
                    around = _dot(left.buffer, left.nbr[e, i], right.buffer, right.nbr[f, j])
                    closest[4] = max(closest[4], around)
                closest[block] = max(closest[block], own)
                best_of[0, x] = max(best_of[0, x], own)
                best_of[1, y] = max(best_of[1, y], own)
                same = i_hash != 0 and i_hash == right.hash[f, j] >> RARITY_BITS
                logit = w.own[block] * own + w.neighbourhood[0] * around
                if same:
                    logit += w.equal[block]
                    equals[0, x] = f32(1)
                    equals[1, y] = f32(1)
                j_key = right.key[f, j]
                for d in range(w.key.shape[1]):
                    logit += w.query[i_key, d] * w.key[j_key, d]
                alpha = _exp(min(max(logit, f32(-80)), _MOST))
                attention[x, y] = alpha
                equal = alpha if same else f32(0)
                agreed[0, x, 0] += alpha * own
                agreed[0, x, 1] += alpha * around
                agreed[0, x, 2] += equal
                agreed[0, x, 3] += alpha
                agreed[1, y, 0] += alpha * own
                agreed[1, y, 1] += alpha * around
                agreed[1, y, 2] += equal
                agreed[1, y, 3] += alpha

        # what each slot means, and self-attention over the slots of each block
        pooled[:, :, :, :] = f32(0)
        mass[:, :] = f32(0)
        for side in range(2):
            for x in range(nl if side == 0 else nr):
                if side == 0:
                    slot = il[x]
                    key, rarity = left.key[e, slot], left.hash[e, slot] & _RARITY
                else:
                    slot = ir[x]
                    key, rarity = right.key[f, slot], right.hash[f, slot] & _RARITY
                block = np.int64(slot >= OWN)
                scale = f32(1) / (agreed[side, x, 3] + _exp(w.null[block, key]))
                for h in range(hidden_size):
                    hidden[h] = w.item_in_bias[block, h]
                for feature in range(AGREEMENT):
                    value = agreed[side, x, feature] * scale
                    for h in range(hidden_size):
                        hidden[h] += value * w.item_in[block, feature, h]
                for feature in range(RARITY_FEATURES):
                    value = f32(rarity >> (8 - 4 * feature) & 15) * f32(1 / 15)
                    for h in range(hidden_size):
                        hidden[h] += value * w.item_in[block, AGREEMENT + feature, h]
                for h in range(hidden_size):
                    hidden[h] = max(hidden[h] * w.scale[key, h] + w.bias[key, h], f32(0))
                for o in range(item_size):
                    out[o] = w.item_out_bias[block, o]
                for h in range(hidden_size):
                    value = hidden[h]
                    for o in range(item_size):
                        out[o] += value * w.item_out[block, h, o]
                gate = w.gate_bias[block]
                for o in range(item_size):
                    gate += out[o] * w.gate[block, o]
                gate = _exp(min(max(gate, -_MOST), _MOST))
                mass[side, block] += gate
                for o in range(item_size):
                    pooled[side, block, 0, o] += gate * out[o]
                    pooled[side, block, 1, o] += _SUM_SCALE * out[o]
                if side == 0:
                    gates[x] = gate
        for side in range(2):
            for part in range(BLOCKS):
                scale = f32(1) / max(mass[side, part], f32(1e-30))
                for o in range(item_size):
                    pooled[side, part, 0, o] *= scale

        # the classifier
        for h in range(head_size):
            head[h] = w.head_in_bias[h]
        for part in range(BLOCKS):
            for kind in range(2):
                for o in range(item_size):
                    one, other = pooled[0, part, kind, o], pooled[1, part, kind, o]
                    both, apart = one + other, abs(one - other)
                    row = (part * 2 + kind) * item_size + o
                    for h in range(head_size):
                        head[h] += both * w.head_in[row, h] + apart * w.head_in[sides + row, h]
        for c in range(context.shape[1]):
            for b in range(bins):
                value = (context[p, c] - w.bin_low[c, b]) * w.bin_scale[c, b]
                if value > 0:
                    value = min(value, f32(1))
                    row = 2 * sides + c * bins + b
                    for h in range(head_size):
                        head[h] += value * w.head_in[row, h]
        logit = w.head_out_bias[0]
        for h in range(head_size):
            logit += max(head[h], f32(0)) * w.head_out[h]

        if len(trees.feature):
            seen[:contexts] = context[p]
            seen[contexts:] = f32(0)
            seen[contexts : contexts + len(closest)] = closest
            for side in range(2):
                at = contexts + len(closest) + 4 * side
                count = nl if side == 0 else nr
                seen[at + 2] = f32(count)
                for x in range(count):
                    best = best_of[side, x]
                    seen[at] += best
                    seen[at + 1] += equals[side, x]
                    if best > AGREES:
                        seen[at + 3] += f32(1)
            logit += f32(say(trees, seen))
        logits[p] = logit

        if explain:
            partner[p, :] = -1
            weight[p, :] = 0
            for x in range(nl):
                i = il[x]
                block = np.int64(i >= OWN)
                null = _exp(w.null[block, left.key[e, i]])
                best, best_at = f32(-1), -1
                for y in range(nr):
                    if attention[x, y] > best:
                        best, best_at = attention[x, y], ir[y]
                beta = gates[x] / max(mass[0, block], f32(1e-30))
                if best > null:
                    partner[p, i] = best_at
                if best_at >= 0:
                    weight[p, i] = best / (agreed[0, x, 3] + null) * beta
    return logits
