"""The serving path: pairs to calibrated probabilities, and to what the network attended to.

`model/scoring/network.py` trains on ragged graphs with DGL; `model/scoring/kernel.py` computes the same for
one pair after the other, where the trees of `model/scoring/trees.py` are undecided.
"""

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.scoring.comparing import I64, EntitySlots, slots_of
from model.scoring.kernel import score_pairs, weights_of
from model.scoring.network import AlignmentNetwork
from model.scoring.pairs import PairInputs, check
from model.scoring.trees import NO_TREES, Trees
from model.shapes import SLOTS

_ROUND: Final = 1e6
_UNEXPLAINED: Final = (np.zeros((0, SLOTS), np.int64), np.zeros((0, SLOTS)))


class Calibration(NamedTuple):
    """Makes a logit a probability: 1 / (1 + exp(-(slope * logit + offset))), slope > 0."""

    slope: float = 1.0
    offset: float = 0.0


UNCALIBRATED: Final = Calibration()


class DenseScorer:
    """Scores pairs with a trained network.

    Args:
        network: its parameters are copied.
        trees: they come before it; without any the network does without.
    """

    def __init__(
        self,
        network: AlignmentNetwork,
        trees: Trees = NO_TREES,
        calibration: Calibration = UNCALIBRATED,
    ) -> None:
        if not calibration.slope > 0:
            raise ValueError(f"slope {calibration.slope}: a calibration must not turn the order around")
        self._weights = weights_of(network, alone=not len(trees.feature))
        self._trees = trees
        self._calibration = calibration

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
        probabilities: npt.NDArray[np.float64] = _probabilities(logits, *self._calibration)
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
        """For evidence: every left slot's best partner (P, SLOTS), and their attention A_ij.

        Partners are of one kind, values or neighbours; -1 stands where there is none of its kind. The
        attention is that of the level where it is larger.
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
