"""Boosted trees beside the network: what can be said by thresholds, of a pair's context and of its summary.

One pair in fifty is a link, so that what tells links apart stands in the last percents of a feature's range.
Trees cut there; a network of this size, even with finer bins, does not (`docs/quality.md`). What the two say
is added up.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from model.pairs import Similarities

SUMMARY: Final = 10  # features of a pair beside its context
AGREES: Final = np.float32(0.6)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


class Trees(NamedTuple):
    """The nodes of all trees, one after the other, and their roots. No roots: no trees, and they say 0."""

    root: I32  # (trees,)
    feature: I32  # (nodes,) -1 for a leaf
    threshold: F64  # (nodes,) up to here it goes to the left
    left: I32  # (nodes,)
    right: I32
    value: F64  # (nodes,) of a leaf; the first tree is a single leaf, what is said of every pair


_NO_I32, _NO_F64 = np.zeros(0, np.int32), np.zeros(0, np.float64)
NO_TREES: Final = Trees(_NO_I32, _NO_I32, _NO_F64, _NO_I32, _NO_I32, _NO_F64)


def features(pairs: Similarities) -> F32:
    """(P, C + SUMMARY) what trees see of pairs: the context and the summary, exact, as in `model/kernel.py`.

    The summary: the largest similarity of two slots, and of two neighbours' neighbourhoods; and for the left
    side, then the right one, the sum of its slots' best similarities, how many have an equal, how many there
    are, and how many best similarities are above AGREES. None is below 0.
    """
    own, equal = pairs.own.numpy(), pairs.equal.numpy()
    left, right = pairs.left_key.numpy() != 0, pairs.right_key.numpy() != 0
    own = np.where(left[:, :, None] & right[:, None, :], own, 0)
    largest = (own.max(axis=(1, 2)), pairs.neighbourhood.numpy().max(axis=(1, 2)))
    columns: list[F32] = [pairs.context.numpy(), *(np.maximum(most, 0)[:, None] for most in largest)]
    for filled, axis in ((left, 2), (right, 1)):
        best = np.maximum(own.max(axis=axis), 0)
        totals = (best, equal.max(axis=axis), filled, best > AGREES)
        columns += [total.sum(axis=1, dtype=np.float32)[:, None] for total in totals]
    return np.concatenate(columns, axis=1)


def fit_trees(features: F32, label: npt.NDArray[np.bool_], most: int, seed: int) -> Trees:
    """Gradient boosting of at most so many small trees, on features (P, F); their sum is a logit."""
    # here, because scoring needs none of it and it takes a second to import
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=most, learning_rate=0.08, max_depth=3, min_samples_leaf=40, random_state=seed
    ).fit(features, label)
    # the trees are private to scikit-learn: its version is pinned, and a test compares what they say
    parts = [predictors[0].nodes for predictors in model._predictors]
    sizes = [1, *map(len, parts)]
    root = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    nodes = np.concatenate([np.zeros(1, parts[0].dtype), *parts])
    nodes["is_leaf"][0], nodes["value"][0] = 1, model._baseline_prediction.item()
    begin = np.repeat(root, sizes)
    return Trees(
        root=root,
        feature=np.where(nodes["is_leaf"], -1, nodes["feature_idx"]).astype(np.int32),
        threshold=nodes["num_threshold"].astype(np.float64),
        left=(begin + nodes["left"]).astype(np.int32),
        right=(begin + nodes["right"]).astype(np.int32),
        value=nodes["value"].astype(np.float64),
    )


@njit(cache=True, nogil=True)
def say(trees: Trees, features: Any) -> Any:
    """What the trees say of one pair (F,), a sum in their order."""
    total = 0.0
    for root in trees.root:
        node = root
        while trees.feature[node] >= 0:
            if features[trees.feature[node]] <= trees.threshold[node]:
                node = trees.left[node]
            else:
                node = trees.right[node]
        total += trees.value[node]
    return total
