"""Boosted trees before the network: what can be said by thresholds, of a pair's context and of its summary.

One pair in fifty is a link, so that what tells links apart stands in the last percents of a feature's range.
Trees cut there; a network of this size, even with finer bins, does not (`docs/quality.md`). They decide most
pairs. Where they say at least `least` the network is asked, too, and what it says is added.

The summary, SUMMARY features of a pair beside its context (`model/scoring/comparing.py`): the largest
similarity of two values, of a left value and a neighbour on the right, of a neighbour on the left and a right
value, of two neighbours, of two neighbours' levels 0, and levels 1; and for the left side, then the right
one, the sum of its slots' best similarities, how many have an equal, how many there are, how many best
similarities are above AGREES, and the sums of the best similarities of levels 0, and levels 1. None is
below 0.

The kinds are apart because an entity that is called like a neighbour of the other is that neighbour.

Outside of what they have seen trees say anything, so a score of a type without links is the network's alone
(`Model.scorer`).
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled

DEPTH: Final = 3
NODES: Final = 2**DEPTH - 1  # of a tree, leaves apart
CLOSEST: Final = 6  # features of a pair: the largest similarity of each kind
OF_SIDE: Final = 6  # features of a pair's side
SUMMARY: Final = CLOSEST + 2 * OF_SIDE  # features of a pair beside its context
AGREES: Final = np.float32(0.6)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


class Trees(NamedTuple):
    """Complete binary trees: below node n are 2n + 1, where a feature is not above the threshold, and 2n + 2.

    All paths are equally long, so that one is followed without branches, which no processor could predict.
    """

    base: F64  # (1,) said of every pair
    feature: I32  # (trees, NODES)
    threshold: F32  # (trees, NODES) infinite where there is nothing to decide
    value: F64  # (trees, NODES + 1) of the leaves
    least: F64  # (1,) of what they say of a pair for which the network is asked, too


NO_TREES: Final = Trees(
    np.zeros(1),
    np.zeros((0, NODES), np.int32),
    np.zeros((0, NODES), np.float32),
    np.zeros((0, NODES + 1)),
    np.full(1, -np.inf),
)


def fit_trees(features: F32, label: npt.NDArray[np.bool_], most: int, seed: int) -> Trees:
    """Gradient boosting of at most so many small trees, on features (P, F); their sum is a logit."""
    # here, because scoring needs none of it and it takes a second to import
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=most, learning_rate=0.08, max_depth=DEPTH, min_samples_leaf=40, random_state=seed
    ).fit(features, label)
    # the trees are private to scikit-learn: its version is pinned, and a test compares what they say
    found = [predictors[0].nodes for predictors in model._predictors]
    trees = Trees(
        np.array([model._baseline_prediction.item()]),
        np.zeros((len(found), NODES), np.int32),
        np.full((len(found), NODES), np.inf, np.float32),
        np.zeros((len(found), NODES + 1)),
        NO_TREES.least,
    )
    for number, nodes in enumerate(found):
        _fill(trees, number, 0, nodes, 0)
    return trees


def _fill(trees: Trees, number: int, at: int, nodes: npt.NDArray[np.void], node: int) -> None:
    """Writes a node of scikit-learn, and what is below it, to a place in a tree."""
    if at >= NODES:
        trees.value[number, at - NODES] = nodes[node]["value"]
        return
    below = (node, node)
    if not nodes[node]["is_leaf"]:
        threshold = nodes[node]["num_threshold"]
        rounded = np.float32(threshold)  # down: no float32 lies between the two
        if rounded > threshold:
            rounded = np.nextafter(rounded, np.float32(-np.inf))
        trees.feature[number, at], trees.threshold[number, at] = nodes[node]["feature_idx"], rounded
        below = int(nodes[node]["left"]), int(nodes[node]["right"])
    for side in range(2):
        _fill(trees, number, 2 * at + 1 + side, nodes, below[side])


@compiled
def say(trees: Trees, features: Any) -> Any:
    """What the trees say of one pair (F,), a sum in their order."""
    total = trees.base[0]
    for tree in range(len(trees.feature)):
        node = np.uint64(0)
        for _ in range(DEPTH):
            above = features[np.uint64(trees.feature[tree, node])] > trees.threshold[tree, node]
            node = np.uint64(2) * node + np.uint64(1) + np.uint64(above)
        total += trees.value[tree, node - np.uint64(NODES)]
    return total


@compiled
def say_all(trees: Trees, features: Any) -> Any:
    """(P,) what they say of P pairs (P, F)."""
    said = np.empty(len(features))
    for p in range(len(features)):
        said[p] = say(trees, features[p])
    return said
