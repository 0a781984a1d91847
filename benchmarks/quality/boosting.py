"""Baseline: gradient boosting on similarities with retrieval context (scikit-learn).

Features of a pair: for every key of either side the best similarity of its values or neighbours with anything
on the other side, and whether one is equal; counts of what agrees; and the retrieval context. Values are
compared as in `sameas` (hashed n-grams, grids), so that what differs is the model.
"""

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from benchmarks.quality.task import Scored, Task, stopwatch
from model.evaluation import ScoredPairs
from model.scoring.pairs import similarities
from model.training import LabelledPairs

KEYS = 40  # the most frequent ones have features of their own
PAIRS = 60_000  # for training
AGREES = 0.6
_CHUNK = 4096

F32 = npt.NDArray[np.float32]


def boosting(task: Task, seed: int) -> Scored:
    """Trains and scores."""
    spent = stopwatch()
    rng = np.random.default_rng(seed)
    links, others = np.flatnonzero(task.train.label), np.flatnonzero(~task.train.label)
    rows = np.concatenate([links, rng.permutation(others)[:PAIRS]])
    model = HistGradientBoostingClassifier(max_iter=300, learning_rate=0.06, random_state=seed)
    training = features(task.train, rows)
    used = ~np.isnan(training).all(axis=0)  # scikit-learn refuses empty columns
    model.fit(training[:, used], task.train.label[rows])
    took = spent()

    def scored(pairs: LabelledPairs) -> ScoredPairs:
        probability = model.predict_proba(features(pairs, np.arange(len(pairs.label)))[:, used])[:, 1]
        return ScoredPairs(probability, pairs.label, pairs.left, pairs.right, pairs.links)

    return Scored(took, scored(task.valid), scored(task.test))


def features(pairs: LabelledPairs, rows: npt.NDArray[np.int64]) -> F32:
    """(p, features) of these rows; NaN where a key is absent."""
    chunks = [_features(pairs, rows[at : at + _CHUNK]) for at in range(0, len(rows), _CHUNK)]
    return np.concatenate(chunks)


def _features(pairs: LabelledPairs, rows: npt.NDArray[np.int64]) -> F32:
    stage1 = similarities(pairs.inputs(rows))
    left_key, right_key = stage1.left_key.numpy(), stage1.right_key.numpy()
    both = (left_key != 0)[:, :, None] & (right_key != 0)[:, None, :]
    own, equal = np.where(both, stage1.own.numpy(), -1), stage1.equal.numpy()
    columns: list[F32] = [
        stage1.context.numpy(),
        stage1.neighbourhood.numpy().max(axis=(1, 2))[:, None],
    ]
    sides = ((left_key, 2, stage1.left_rarity), (right_key, 1, stage1.right_rarity))
    for key, axis, rarity in sides:
        best, same, filled = own.max(axis=axis), equal.max(axis=axis), key != 0
        columns += [
            _by_key(key, best),
            _by_key(key, same),
            _by_key(key, np.where(best > AGREES, rarity[:, :, 0], 0)),
        ]
        totals = (best * filled, same, filled, best > AGREES)
        columns += [best.max(axis=1)[:, None], *(total.sum(axis=1)[:, None] for total in totals)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def _by_key(key: npt.NDArray[np.int64], value: F32) -> F32:
    """(p, KEYS) the largest value (p, slots) of each key; NaN for keys that a pair has not."""
    out = np.full((len(key), KEYS), np.nan, np.float32)
    for slot in range(key.shape[1]):
        rows = np.flatnonzero((key[:, slot] > 0) & (key[:, slot] < KEYS))
        at = rows, key[rows, slot]
        out[at] = np.fmax(out[at], value[rows, slot])
    return out
