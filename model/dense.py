"""The serving path: the network of `model/network.py` with padded slots in chunks of one fixed shape.

Invariant: a pair's score has the same bits whatever else is in its batch and wherever it stands. Stage 1
is exact. Stage 2 runs every operation on CHUNK pairs, a multiple of the vector width, so that each pair
goes through the same instructions in the same order; a short last chunk is padded with empty pairs. How
many slots are computed depends on the pair alone (`SHAPES`).
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from model.network import AGREEMENT, BLOCKS, MAX_LOGIT, SUM_SCALE, AlignmentNetwork
from model.pairs import (
    FULL,
    RARITY_FEATURES,
    SHAPES,
    SLOTS,
    PairInputs,
    Shape,
    Similarities,
    by_shape,
    similarities,
)

CHUNK: Final = 128
_LOG2E: Final = math.log2(math.e)  # attention is taken to base 2: several times faster in torch on CPUs
_NEVER: Final = -115.0  # 2^-115 is nothing, but not below what float32 computes fast
_ROUND: Final = 1e6


class _SlotWeights:
    """The network's weights of pairs of slots, laid out for one shape."""

    def __init__(self, network: AlignmentNetwork, shape: Shape) -> None:
        blocks = torch.tensor([0] * shape.own + [1] * shape.neighbours)
        pairs = BLOCKS * blocks[:, None] + blocks
        self.own = network.own[pairs] * _LOG2E  # (slots, slots)
        self.equal = network.equal[pairs] * _LOG2E
        self.null = network.null[blocks]  # (slots,)


class DenseScorer:
    """Scores pairs with a trained network.

    Args:
        network: its parameters are copied by reference; do not train it further.
        slope, offset: calibration, probability = 1 / (1 + exp(-(slope * logit + offset))), slope > 0.
    """

    def __init__(self, network: AlignmentNetwork, slope: float = 1.0, offset: float = 0.0) -> None:
        if not slope > 0:
            raise ValueError(f"slope {slope}: a calibration must not turn the order around")
        self._net = network.eval()
        self._slope, self._offset = slope, offset
        with torch.no_grad():
            self._neighbourhood = network.neighbourhood * _LOG2E
            self._key_signs = network.key_signs * _LOG2E
            self._weights = {shape: _SlotWeights(network, shape) for shape in SHAPES}

    def score(self, inputs: PairInputs) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (P,), in millionths."""
        return self.probabilities(self.logits(inputs))

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrates logits (P,)."""
        z = (self._slope * logits.astype(np.float64) + self._offset).tolist()
        return np.array([round(_sigmoid(x) * _ROUND) / _ROUND for x in z], np.float64)

    @torch.no_grad()
    def logits(self, inputs: PairInputs) -> npt.NDArray[np.float32]:
        """Uncalibrated logits (P,)."""
        logits = np.zeros(len(inputs.context), np.float32)
        for shape, rows, cut in by_shape(inputs):
            for start in range(0, len(rows), CHUNK):
                part = cut.take(slice(start, start + CHUNK))
                chunk = self.chunk_logits(_padded(similarities(part, shape)), shape)
                logits[rows[start : start + CHUNK]] = chunk[: len(part.context)].numpy()
        return logits

    @torch.no_grad()
    def attention(self, inputs: PairInputs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """For evidence: every left slot's best partner (P, SLOTS), -1 for none, and how much it counts.

        The weight is alpha_ij beta_i: the share of slot i among its like, times the share that j has of it.
        """
        partners = [np.zeros((0, SLOTS), np.int64)]
        weights = [np.zeros((0, SLOTS))]
        for start in range(0, len(inputs.context), CHUNK):
            part = inputs.take(slice(start, start + CHUNK))
            pairs = _padded(similarities(part))
            key = torch.cat([pairs.left_key, pairs.right_key])
            attention = self._attention(pairs, key, FULL)
            null = self._nulls(key, FULL)[:CHUNK]
            best, partner = attention.max(2)
            _, beta = self._slots(pairs, key, attention, FULL)
            weight = best / (attention.sum(2) + null) * beta[:CHUNK]
            partner = torch.where((best > null) & (pairs.left_key != 0), partner, -1)
            partners.append(partner[: len(part.context)].numpy())
            weights.append(weight[: len(part.context)].double().numpy())
        return np.concatenate(partners), np.concatenate(weights)

    def chunk_logits(self, pairs: Similarities, shape: Shape = FULL) -> torch.Tensor:
        """Stage 2 on exactly CHUNK pairs with so many slots: (CHUNK,)."""
        key = torch.cat([pairs.left_key, pairs.right_key])
        pooled, _ = self._slots(pairs, key, self._attention(pairs, key, shape), shape)
        return self._net.classify(pooled[:CHUNK], pooled[CHUNK:], pairs.context)

    def _attention(self, pairs: Similarities, key: torch.Tensor, shape: Shape) -> torch.Tensor:
        """exp(logit_ij) (CHUNK, slots, slots), nothing for empty slots. Both directions share it."""
        embedded = self._net.key_attention(key)
        # Two more dimensions forbid attention from and to empty slots.
        empty = (key == 0).float().mul_(_NEVER)[:, :, None]
        one = torch.ones_like(empty)
        left = torch.cat([embedded[:CHUNK] * self._key_signs, empty[:CHUNK], one[:CHUNK]], dim=2)
        right = torch.cat([embedded[CHUNK:], one[CHUNK:], empty[CHUNK:]], dim=2)
        if not self._net.options.cross_attention:
            return torch.bmm(left[:, :, -2:], right[:, :, -2:].mT).clamp_(_NEVER).exp2_()
        logits = torch.bmm(left, right.mT)
        weights, n = self._weights[shape], shape.own
        logits.addcmul_(pairs.own, weights.own).addcmul_(pairs.equal, weights.equal)
        logits[:, n:, n:].addcmul_(pairs.neighbourhood, self._neighbourhood)
        return logits.clamp_(_NEVER, MAX_LOGIT * _LOG2E).exp2_()

    def _nulls(self, key: torch.Tensor, shape: Shape) -> torch.Tensor:
        return self._net.null_logits(key, self._weights[shape].null).exp()

    def _slots(
        self, pairs: Similarities, key: torch.Tensor, attention: torch.Tensor, shape: Shape
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both sides' pooled slots (2 * CHUNK, BLOCKS * 2 * item_dim), and beta (2 * CHUNK, slots)."""
        n = shape.own
        mass = _both(attention)
        scale = 1 / (mass + self._nulls(key, shape))
        features = torch.zeros(*key.shape, AGREEMENT + RARITY_FEATURES)
        features[:, :, 0] = _both(attention * pairs.own) * scale
        between = attention[:, n:, n:] * pairs.neighbourhood
        features[:, n:, 1] = _both(between) * scale[:, n:]
        features[:, :, 2] = _both(attention * pairs.equal) * scale
        features[:, :, 3] = mass * scale
        features[:CHUNK, :, AGREEMENT:], features[CHUNK:, :, AGREEMENT:] = (
            pairs.left_rarity,
            pairs.right_rarity,
        )
        filled = (key != 0).float()
        pooled, betas = [], []
        for block, slots in enumerate((slice(0, n), slice(n, shape.slots))):
            out, gate = self._net.item(block, features[:, slots], key[:, slots])
            weight = gate.squeeze(2).exp() * filled[:, slots]
            beta = weight / weight.sum(1, keepdim=True).clamp(min=1e-30)
            weights = torch.stack([beta, filled[:, slots] * SUM_SCALE], dim=1)
            pooled.append(torch.bmm(weights, out).flatten(1))
            betas.append(beta)
        return torch.cat(pooled, dim=1), torch.cat(betas, dim=1)


def _both(matrix: torch.Tensor) -> torch.Tensor:
    """Sums of (CHUNK, n, n) over columns for the left side, then over rows for the right: (2 * CHUNK, n)."""
    return torch.cat([matrix.sum(2), matrix.sum(1)])


def _padded(pairs: Similarities) -> Similarities:
    """The same with empty pairs at the end, CHUNK in all."""
    missing = CHUNK - len(pairs.context)
    if not missing:
        return pairs
    return Similarities(*(torch.cat([t, t.new_zeros(missing, *t.shape[1:])]) for t in pairs))


def _sigmoid(x: float) -> float:
    """Without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= -700 else 0.0
