"""The serving path: the network of `model/network.py` with padded slots in chunks of one fixed shape.

Invariant: a pair's score has the same bits whatever else is in its batch and wherever it stands. Stage 1
is exact. Stage 2 runs every operation on CHUNK pairs, a multiple of the vector width, so that each pair
goes through the same instructions in the same order; a short last chunk is padded with empty pairs.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from model.encoder import OWN
from model.network import AGREEMENT, BLOCKS, MAX_LOGIT, SUM_SCALE, AlignmentNetwork
from model.pairs import SLOTS, PairInputs, Similarities, similarities

CHUNK: Final = 128
_NEVER: Final = -80.0  # exp of it is 2e-35: nothing, but not below what float32 computes fast
_BLOCK_SLICES: Final = (slice(0, OWN), slice(OWN, SLOTS))
_ROUND: Final = 1e6


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
        blocks = torch.tensor([0] * OWN + [1] * (SLOTS - OWN))
        pairs = BLOCKS * blocks[:, None] + blocks
        with torch.no_grad():
            self._own = network.own[pairs]
            self._equal = network.equal[pairs]
            self._null = network.null[blocks]

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
        parts = []
        for start in range(0, len(inputs.context), CHUNK):
            part = inputs.take(slice(start, start + CHUNK))
            parts.append(self.chunk_logits(_padded(similarities(part)))[: len(part.context)].numpy())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

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
            attention = self._attention(pairs)
            null = self._nulls(pairs.left_key)
            total = attention.sum(2) + null
            best, partner = attention.max(2)
            _, beta = self._slots(pairs, attention, left=True)
            weight = best / total * torch.cat(beta, dim=1) * (pairs.left_key != 0)
            partner = torch.where((best > null) & (pairs.left_key != 0), partner, -1)
            partners.append(partner[: len(part.context)].numpy())
            weights.append(weight[: len(part.context)].double().numpy())
        return np.concatenate(partners), np.concatenate(weights)

    def chunk_logits(self, pairs: Similarities) -> torch.Tensor:
        """Stage 2 on exactly CHUNK pairs: (CHUNK,)."""
        attention = self._attention(pairs)
        left, _ = self._slots(pairs, attention, left=True)
        right, _ = self._slots(pairs, attention, left=False)
        return self._net.classify(left, right, pairs.context)

    def _attention(self, pairs: Similarities) -> torch.Tensor:
        """exp(logit_ij) (CHUNK, SLOTS, SLOTS), nothing for empty slots. Both directions share it."""
        key_left = self._keys(pairs.left_key, left=True)
        key_right = self._keys(pairs.right_key, left=False)
        logits = torch.bmm(key_left, key_right.mT)
        logits.addcmul_(pairs.own, self._own).addcmul_(pairs.equal, self._equal)
        logits[:, OWN:, OWN:].addcmul_(pairs.neighbourhood, self._net.neighbourhood)
        return logits.clamp_(_NEVER, MAX_LOGIT).exp_()

    def _keys(self, key: torch.Tensor, left: bool) -> torch.Tensor:
        """Key embeddings with two more dimensions that forbid attention from and to empty slots."""
        embedded = self._net.key_attention(key)
        empty = (key == 0).float().mul_(_NEVER)[:, :, None]
        one = torch.ones_like(empty)
        if left:
            return torch.cat([embedded * self._net.key_signs, empty, one], dim=2)
        return torch.cat([embedded, one, empty], dim=2)

    def _nulls(self, key: torch.Tensor) -> torch.Tensor:
        return self._net.null_logits(key, self._null).exp()

    def _slots(
        self, pairs: Similarities, attention: torch.Tensor, left: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One side's pooled slots (CHUNK, BLOCKS * 2 * item_dim), and beta for each block."""
        key, rarity, axis = (
            (pairs.left_key, pairs.left_rarity, 2) if left else (pairs.right_key, pairs.right_rarity, 1)
        )
        mass = attention.sum(axis)
        scale = 1 / (mass + self._nulls(key))
        features = torch.zeros(*key.shape, AGREEMENT + rarity.shape[2])
        features[:, :, 0] = (attention * pairs.own).sum(axis) * scale
        between = attention[:, OWN:, OWN:] * pairs.neighbourhood
        features[:, OWN:, 1] = between.sum(axis) * scale[:, OWN:]
        features[:, :, 2] = (attention * pairs.equal).sum(axis) * scale
        features[:, :, 3] = mass * scale
        features[:, :, AGREEMENT:] = rarity
        pooled, betas = [], []
        for block, slots in enumerate(_BLOCK_SLICES):
            filled = (key[:, slots] != 0).float()
            out, gate = self._net.item(block, features[:, slots], key[:, slots])
            out = out * filled[:, :, None]
            weight = gate.squeeze(2).exp() * filled
            beta = weight / weight.sum(1, keepdim=True).clamp(min=1e-30)
            pooled += [(out * beta[:, :, None]).sum(1), out.sum(1) * SUM_SCALE]
            betas.append(beta)
        return torch.cat(pooled, dim=1), betas


def _padded(pairs: Similarities) -> Similarities:
    """The same with empty pairs at the end, CHUNK in all."""
    missing = CHUNK - len(pairs.context)
    if not missing:
        return pairs
    return Similarities(*(torch.cat([t, t.new_zeros(missing, *t.shape[1:])]) for t in pairs))


def _sigmoid(x: float) -> float:
    """Without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= -700 else 0.0
