"""How good scored pairs are, against known links.

The P scored pairs are always the candidates of the left entities that have a link in the tested part. Other
left entities do not count, because it is unknown whether they have a partner; unless it is known that they
have none ("open world"), when each of their pairs is wrong. `links` counts all tested links, also those that
retrieval did not propose: they are lost recall.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class ScoredPairs(NamedTuple):
    """P pairs with scores, answers, and numbers for their entities."""

    score: F64  # (P,)
    label: Bools  # (P,) whether the pair is a link
    left: I64  # (P,)
    right: I64  # (P,)
    links: int  # all tested links, proposed or not


class AtThreshold(NamedTuple):
    """The decisions at a threshold. precision = true / accepted (1 if nothing is); recall = true / links."""

    precision: float
    recall: float
    f1: float
    accepted: int


class CalibrationBin(NamedTuple):
    """Pairs whose score lies in [low, high): how many, their mean score, the share that are links."""

    low: float
    high: float
    pairs: int
    score: float
    links: float


@dataclass(frozen=True)
class Quality:
    """All figures of one evaluation. The functions of the same names define them."""

    links: int
    retrieval_recall: float
    prauc: float
    recall_at_precision_95: float
    hits_at_1: float
    threshold: float
    one_to_one: bool
    precision: float
    recall: float
    f1: float
    calibration_error: float
    calibration: Sequence[CalibrationBin]

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values."""
        return {**asdict(self), "calibration": [row._asdict() for row in self.calibration]}


def evaluate(pairs: ScoredPairs, threshold: float, *, one_to_one: bool = True) -> Quality:
    """All figures at once."""
    decision = decide(pairs, threshold, one_to_one=one_to_one)
    return Quality(
        links=pairs.links,
        retrieval_recall=retrieval_recall(pairs),
        prauc=prauc(pairs),
        recall_at_precision_95=recall_at_precision(pairs, 0.95),
        hits_at_1=hits_at_1(pairs),
        threshold=threshold,
        one_to_one=one_to_one,
        precision=decision.precision,
        recall=decision.recall,
        f1=decision.f1,
        calibration_error=calibration_error(pairs),
        calibration=calibration_table(pairs),
    )


def retrieval_recall(pairs: ScoredPairs) -> float:
    """The share of links that are candidates. No decision can have a higher recall."""
    return int(pairs.label.sum()) / pairs.links if pairs.links else 0.0


def precision_recall(pairs: ScoredPairs) -> tuple[F64, F64, F64]:
    """Precision, recall and score, each (T,), by falling score: those of accepting all pairs down to it."""
    order = np.argsort(-pairs.score, kind="stable")
    score, label = pairs.score[order], pairs.label[order]
    last_of_score = np.flatnonzero(np.append(np.diff(score) != 0, np.ones(min(len(score), 1), bool)))
    true = np.cumsum(label)[last_of_score]
    return true / (last_of_score + 1), true / max(pairs.links, 1), score[last_of_score]


def prauc(pairs: ScoredPairs) -> float:
    """Area under the precision-recall curve as average precision: sum of P_n (R_n - R_{n-1}).

    Without interpolation; equal scores are one step. Where links are no candidates, the curve ends early.
    """
    precision, recall, _ = precision_recall(pairs)
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def recall_at_precision(pairs: ScoredPairs, floor: float) -> float:
    """The largest recall at which the precision is at least `floor`."""
    precision, recall, _ = precision_recall(pairs)
    return float(recall[precision >= floor].max(initial=0.0))


def hits_at_1(pairs: ScoredPairs) -> float:
    """The share of links with a score above that of every wrong candidate of their left entity.

    With one link for each left entity this is the usual hits@1.
    """
    lefts, left = np.unique(pairs.left, return_inverse=True)
    best_wrong = np.full(len(lefts), -np.inf)
    np.maximum.at(best_wrong, left[~pairs.label], pairs.score[~pairs.label])
    hits = pairs.label & (pairs.score > best_wrong[left])
    return int(hits.sum()) / pairs.links if pairs.links else 0.0


def one_to_one(pairs: ScoredPairs) -> Bools:
    """Which pairs (P,) remain when the best go first and take both entities; ties by left, then right."""
    order = np.lexsort((pairs.right, pairs.left, -pairs.score))
    kept = np.zeros(len(order), bool)
    lefts: set[int] = set()
    rights: set[int] = set()
    for pair, left, right in zip(
        order.tolist(), pairs.left[order].tolist(), pairs.right[order].tolist(), strict=True
    ):
        if left not in lefts and right not in rights:
            lefts.add(left)
            rights.add(right)
            kept[pair] = True
    return kept


def decide(pairs: ScoredPairs, threshold: float, *, one_to_one: bool = True) -> AtThreshold:
    """Accepts pairs with scores of at least `threshold`."""
    accepted = pairs.score >= threshold
    if one_to_one:
        accepted &= _one_to_one(pairs)
    true, count = int((accepted & pairs.label).sum()), int(accepted.sum())
    return AtThreshold(
        precision=true / count if count else 1.0,
        recall=true / pairs.links if pairs.links else 0.0,
        f1=2 * true / (count + pairs.links) if count + pairs.links else 0.0,
        accepted=count,
    )


def best_threshold(pairs: ScoredPairs, *, one_to_one: bool = True) -> float:
    """The score at which F1 is largest (see `decide`), half way to the next lower one; .5 without pairs.

    The threshold only cuts the list of one-to-one decisions, so all thresholds are tried at once.
    """
    kept = _one_to_one(pairs) if one_to_one else np.ones(len(pairs.score), bool)
    order = np.flatnonzero(kept)[np.argsort(-pairs.score[kept], kind="stable")]
    score = pairs.score[order]
    if not len(score) or not pairs.label.any():
        return 0.5
    f1 = 2 * np.cumsum(pairs.label[order]) / (np.arange(1, len(order) + 1) + pairs.links)
    f1[:-1][np.diff(score) == 0] = -1  # a threshold cannot separate equal scores
    best = int(np.argmax(f1))
    below = score[best + 1] if best + 1 < len(score) else 0.0
    return float((score[best] + below) / 2)


def lasting_threshold(pairs: ScoredPairs) -> float:
    """The threshold of a model: half of the largest one-to-one F1; .5 without links among the pairs.

    Where scores are probabilities this is where F1 is largest (Lipton, Elkan and Naryanaswamy, ECML 2014,
    theorem 1). `best_threshold` also fits what these few pairs have by accident; and where each left entity
    has a partner, it accepts whatever is best, which is wrong of entities that have none.
    """
    best = decide(pairs, best_threshold(pairs)).f1
    return best / 2 if best else 0.5


def calibration_table(pairs: ScoredPairs, bins: int = 10) -> list[CalibrationBin]:
    """Shows whether scores are probabilities, in equal steps of score. Empty bins are left out."""
    number = np.minimum((pairs.score * bins).astype(np.int64), bins - 1)
    return [
        CalibrationBin(
            low=b / bins,
            high=(b + 1) / bins,
            pairs=int(inside.sum()),
            score=float(pairs.score[inside].mean()),
            links=float(pairs.label[inside].mean()),
        )
        for b in range(bins)
        if (inside := number == b).any()
    ]


def calibration_error(pairs: ScoredPairs) -> float:
    """How far scores are from the share of links among pairs that have them, on the mean of the best pairs.

    The expected calibration error (Naeini et al., AAAI 2015) of each left entity's best pair, over the bins
    of `calibration_table`. Of all pairs nearly all have a score near 0, which says nothing.
    """
    order = np.lexsort((pairs.right, -pairs.score, pairs.left))
    best = order[np.flatnonzero(np.diff(pairs.left[order], prepend=-1))]
    some = pairs._replace(score=pairs.score[best], label=pairs.label[best])
    apart = sum(row.pairs * abs(row.score - row.links) for row in calibration_table(some))
    return apart / len(best) if len(best) else 0.0


_one_to_one = one_to_one
