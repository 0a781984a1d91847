"""The serving path: pairs to calibrated probabilities, and to what the network attended to.

`model/scoring/network.py` trains on ragged graphs with DGL; `model/scoring/kernel.py` computes the same for
one pair after the other, and adds what the trees of `model/scoring/trees.py` say.
"""

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.scoring.kernel import I64, EntitySlots, score_pairs, slots_of, weights_of
from model.scoring.network import AlignmentNetwork
from model.scoring.pairs import PairInputs, check
from model.scoring.trees import NO_TREES, Trees
from model.shapes import SLOTS

_ROUND: Final = 1e6
_UNEXPLAINED: Final = (np.zeros((0, SLOTS), np.int64), np.zeros((0, SLOTS)))


class DenseScorer:
    """Scores pairs with a trained network.

    Args:
        network: its parameters are copied.
        trees: what they say is added to the network's logit.
        slope, offset: calibration, probability = 1 / (1 + exp(-(slope * logit + offset))), slope > 0.
    """

    def __init__(
        self, network: AlignmentNetwork, trees: Trees = NO_TREES, slope: float = 1.0, offset: float = 0.0
    ) -> None:
        if not slope > 0:
            raise ValueError(f"slope {slope}: a calibration must not turn the order around")
        self._weights = weights_of(network)
        self._trees = trees
        self._slope, self._offset = slope, offset

    def score(
        self, left: EntitySlots, right: EntitySlots, pairs: tuple[I64, I64], context: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (P,), in millionths.

        Args:
            pairs: (P,) and (P,), which entities of `left` and of `right`.
            context: (P, C) what retrieval knows of the pairs.
        """
        return self.probabilities(
            score_pairs(left, right, *pairs, context, self._weights, self._trees, *_UNEXPLAINED)
        )

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrates logits (P,)."""
        probabilities: npt.NDArray[np.float64] = _probabilities(logits, self._slope, self._offset)
        return probabilities

    def logits(self, inputs: PairInputs) -> npt.NDArray[np.float32]:
        """Uncalibrated logits (P,)."""
        check(inputs)
        every = np.arange(len(inputs.context))
        left, right = slots_of(inputs.left), slots_of(inputs.right)
        logits: npt.NDArray[np.float32] = score_pairs(
            left, right, every, every, inputs.context, self._weights, self._trees, *_UNEXPLAINED
        )
        return logits

    def attention(
        self, left: EntitySlots, right: EntitySlots, pairs: tuple[I64, I64], context: npt.NDArray[np.float32]
    ) -> tuple[I64, npt.NDArray[np.float64]]:
        """For evidence: every left slot's best partner (P, SLOTS), -1 for none, and how much it counts.

        The weight is alpha_ij beta_i: the share of slot i among its like, times the share that j has of it.
        """
        partner = np.empty((len(context), SLOTS), np.int64)
        weight = np.empty((len(context), SLOTS))
        score_pairs(left, right, *pairs, context, self._weights, self._trees, partner, weight)
        return partner, weight


@compiled
def _probabilities(logits: Any, slope: float, offset: float) -> Any:
    """One after the other: vectors of exponentials may differ in the last bit by where they stand."""
    probabilities = np.empty(len(logits), np.float64)
    for p in range(len(logits)):
        z = min(max(slope * np.float64(logits[p]) + offset, -700.0), 700.0)
        probabilities[p] = np.rint(_ROUND / (1.0 + math.exp(-z))) / _ROUND
    return probabilities
