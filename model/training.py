"""Learns trees, and the network beside them, from labelled candidate pairs.

Positives are links, negatives the other candidates of the same left entities: hard ones, because retrieval
found them. Everything random comes from one seed; on one thread the same input gives the same network.

The trees come first, and leave to the network the pairs on which they are undecided. It learns what has to be
added to their logit, and that has to be the logit which they will give to pairs that they did not learn from.
So each training pair has that of trees which were learned from other left entities (out of fold). In other
batches the network learns to do without them, as it has to of types that had no links.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from model.errors import ModelError
from model.evaluation import ScoredPairs, lasting_threshold, prauc, retrieval_recall
from model.scoring.comparing import seen_by_trees, slots_of
from model.scoring.network import AlignmentNetwork, NetworkOptions, PairGraph, pair_graph
from model.scoring.pairs import PairInputs, similarities
from model.scoring.scorer import Calibration, DenseScorer
from model.scoring.trees import NO_TREES, Trees, fit_trees, say_all

_INPUT_ROWS = 2048  # pairs whose inputs are in memory at once: about 10 kB each
FOLDS = 3  # of left entities, for what trees say of pairs from which they did not learn

Bools = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class LabelledPairs(NamedTuple):
    """P candidate pairs with answers. Inputs are made on demand: all together would not fit into memory."""

    inputs: Callable[[I64], PairInputs]  # of these rows, in their order
    label: Bools  # (P,)
    left: I64  # (P,) numbers of the left entities
    right: I64  # (P,)
    links: int  # links of these left entities, proposed by retrieval or not


@dataclass(frozen=True)
class TrainingOptions:
    """How to learn. NetworkOptions has the sizes of what is learned."""

    seed: int = 0
    max_seen: int = 200_000  # pairs for trees to look at; all links, and other pairs drawn at random
    max_pairs: int = 60_000  # of them, for trees to learn from; and as many for the network
    lost: float = 0.004  # share of links that trees may decide against by themselves
    alone: float = 0.3  # share of pairs from which the network learns to do without trees
    max_valid_pairs: int = 15_000  # for early stopping; calibration and threshold use all pairs
    batch: int = 256  # at most; from a few hundred pairs smaller batches learn better (see `_batch_size`)
    visits: int = 100_000  # pairs seen, over all epochs
    epochs: tuple[int, int] = (5, 30)  # at least, at most
    patience: int = 5  # epochs without a better PRAUC on valid
    seconds: float = 120.0  # of this thread's CPU; no epoch starts later; a guard beside `visits`
    learning_rate: float = 4e-3  # of batches of 256 pairs
    weight_decay: float = 1e-2
    memory: int = 100  # steps; weights are kept as their moving average, see `_averaging`


class Epoch(NamedTuple):
    """The progress after an epoch. `prauc` is on (a part of) valid."""

    number: int  # from 1
    most: int  # epochs; patience or the guard may end earlier
    loss: float
    prauc: float
    seconds: float


@dataclass
class Trained:
    """A network and trees with their calibration, and a report of the training."""

    network: AlignmentNetwork
    trees: Trees
    calibration: Calibration
    alone: Calibration  # of the network without trees
    threshold: float
    report: dict[str, float] = field(default_factory=dict)

    def scorer(self) -> DenseScorer:
        """For serving."""
        return DenseScorer(self.network, self.trees, self.calibration)


def train(
    training: LabelledPairs,
    valid: LabelledPairs,
    network: NetworkOptions,
    options: TrainingOptions = TrainingOptions(),
    progress: Callable[[Epoch], None] = lambda _: None,
) -> Trained:
    """Trains, stops early on valid, calibrates there and chooses the threshold.

    Raises:
        ModelError: there is no link, or there are only links, among the pairs of either part.
    """
    started, guard = time.monotonic(), time.thread_time() + options.seconds
    for name, part in (("training", training), ("validation", valid)):
        _check_labels(name, part.label)
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    rows = _sample(training.label, options.max_seen, rng)
    trees, said = _trees(training, rows, network, options, rng)
    survivors = np.flatnonzero(said >= trees.least[0])
    survivors = survivors[_sample(training.label[rows[survivors]], options.max_pairs, rng)]
    rng.shuffle(survivors)
    others = rng.permutation(_sample(training.label, int(options.alone * len(survivors)), rng))
    size = _batch_size(len(survivors), options.batch)
    batches = list(_graphs(training, rows[survivors], said[survivors], size))
    if len(trees.feature):
        batches += _graphs(training, others, None, size)
    watched = _Watched(valid, trees, options.max_valid_pairs, rng)

    pairs = sum(len(batch.label) for batch in batches)
    epochs = _epochs(pairs, options)
    net, steps = AlignmentNetwork(network), epochs * len(batches)
    learner = _Learner(net, batches, options, size=size, steps=steps)
    best = _Best(-1.0, 0, learner.weights())
    for epoch in range(1, epochs + 1):
        loss = learner.learn(rng.permutation(len(batches)))
        reached = watched.prauc(learner.average)
        progress(Epoch(epoch, epochs, loss, reached, time.monotonic() - started))
        if reached > best.prauc:
            best = _Best(reached, epoch, learner.weights())
        if epoch - best.epoch >= options.patience or time.thread_time() > guard:
            break
    net = learner.ended_with(best.weights)
    trained = _calibrated(net, trees, valid)
    trained.report |= {
        "training_pairs": len(rows),
        "training_links": int(training.label.sum()),
        "valid_pairs": len(valid.label),
        "epochs": epoch,
        "best_epoch": best.epoch,
        "seconds": time.monotonic() - started,
    }
    return trained


def score(scorer: DenseScorer, pairs: LabelledPairs) -> ScoredPairs:
    """Labelled pairs with calibrated scores, for evaluation."""
    logits = _logits(scorer, pairs)
    return _scored(pairs, np.arange(len(logits)), scorer.probabilities(logits))


class _Batch(NamedTuple):
    graph: PairGraph
    label: torch.Tensor  # (pairs,), 1 for links
    said: torch.Tensor | None  # (pairs,) by trees; None where the network is to do without


class _Best(NamedTuple):
    """The epoch with the best PRAUC on the watched pairs, and the weights after it."""

    prauc: float
    epoch: int
    weights: dict[str, torch.Tensor]


class _Learner:
    """A network that learns from batches, and the moving average of its weights.

    Args:
        batches: of up to `size` pairs.
        steps: how many batches it will see, all epochs together; the learning rate falls to nothing by then.
    """

    def __init__(
        self,
        net: AlignmentNetwork,
        batches: Sequence[_Batch],
        options: TrainingOptions,
        *,
        size: int,
        steps: int,
    ) -> None:
        net.fit_bins(torch.cat([batch.graph.context for batch in batches]))
        self._net = net
        self._batches = batches
        self._step, self._steps = 0, steps
        self._learning_rate = options.learning_rate * (size / 256) ** (1 / 3)
        self._optimiser = torch.optim.AdamW(
            net.parameters(), lr=self._learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.average = AveragedModel(net, avg_fn=_averaging(options.memory)).eval()

    def learn(self, order: I64) -> float:
        """One epoch: all batches in this order. Returns their mean loss."""
        self._net.train()
        return float(np.mean([self._learn_from(self._batches[number]) for number in order]))

    def _learn_from(self, batch: _Batch) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate * _schedule(self._step / self._steps)
        loss = functional.binary_cross_entropy_with_logits(_logit(self._net, batch), batch.label)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._net.parameters(), 5.0)
        self._optimiser.step()
        self.average.update_parameters(self._net)
        self._step += 1
        return loss.item()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the averaged weights; before the first step those that the network begins with."""
        return copy.deepcopy(self.average.module.state_dict())

    def ended_with(self, weights: dict[str, torch.Tensor]) -> AlignmentNetwork:
        """The network with these weights, no longer in training."""
        self._net.load_state_dict(weights)
        return self._net.eval()


class _Watched:
    """The validation pairs that say when to stop: those of some left entities, about `limit` in all."""

    def __init__(self, valid: LabelledPairs, trees: Trees, limit: int, rng: np.random.Generator) -> None:
        self._valid = valid
        self._rows = _whole_groups(valid.left, limit, rng)
        self._said = _said(trees, valid, self._rows)
        self._survives = self._said >= trees.least[0]
        rows, said = self._rows[self._survives], self._said[self._survives]
        self._batches = list(_graphs(valid, rows, said, 2048))
        watched, all_lefts = len(np.unique(valid.left[self._rows])), len(np.unique(valid.left))
        self._links = max(1, round(valid.links * watched / all_lefts))  # also those that retrieval missed

    def prauc(self, network: torch.nn.Module) -> float:
        scores = self._said.copy()
        with torch.no_grad():
            logits = [_logit(network, batch) for batch in self._batches]
        scores[self._survives] = torch.cat([torch.zeros(0), *logits]).double().numpy()
        return prauc(_scored(self._valid, self._rows, scores)._replace(links=self._links))


def _logit(network: torch.nn.Module, batch: _Batch) -> torch.Tensor:
    """Of the pairs of a batch, the trees' included."""
    logits: torch.Tensor = network(batch.graph, alone=batch.said is None)
    return logits if batch.said is None else logits + batch.said


def _check_labels(part: str, label: Bools) -> None:
    """Raises ModelError unless both links and other pairs are in this part."""
    if not label.any():
        raise ModelError(
            f"{part}: none of the links is among the {len(label)} candidate pairs. Their entities exist, so "
            "check that the links join the right ones, that both have one type, and that their mappings have "
            "names or other values in common"
        )
    if label.all():
        raise ModelError(
            f"{part}: all {len(label)} candidate pairs are links, which leaves nothing to tell them from; "
            "give two links at least"
        )


def _graphs(pairs: LabelledPairs, rows: I64, said: F64 | None, size: int) -> Iterator[_Batch]:
    """Ragged graphs of these rows, `size` pairs each. Stage 1 has no parameters, so it is done once, here."""
    for start in range(0, len(rows), _INPUT_ROWS):
        part = rows[start : start + _INPUT_ROWS]
        stage1 = similarities(pairs.inputs(part))
        for at in range(0, len(part), size):
            chunk = slice(at, at + size)
            label = torch.from_numpy(pairs.label[part[chunk]]).float()
            base = None if said is None else torch.from_numpy(said[start + at : start + at + size]).float()
            yield _Batch(pair_graph(stage1.take(chunk)), label, base)


def _sample(label: Bools, limit: int, rng: np.random.Generator) -> I64:
    """All links and as many other pairs as the limit allows, but at least as many as links."""
    links, others = np.flatnonzero(label), np.flatnonzero(~label)
    room = max(limit - len(links), len(links))
    if len(others) > room:
        others = rng.choice(others, room, replace=False)
    return np.sort(np.concatenate([links, others]))


def _whole_groups(groups: I64, limit: int, rng: np.random.Generator) -> I64:
    """Rows of randomly drawn groups, about `limit` in all."""
    if len(groups) <= limit:
        return np.arange(len(groups))
    drawn = rng.permutation(np.unique(groups))
    share = max(1, len(drawn) * limit // len(groups))
    return np.flatnonzero(np.isin(groups, drawn[:share]))


def _batch_size(pairs: int, most: int) -> int:
    """A power of two, 32 at least, with which an epoch has some forty steps; `most` at most."""
    return min(most, max(32, 1 << (pairs // 40).bit_length() >> 1))


def _epochs(pairs: int, options: TrainingOptions) -> int:
    """As many as `visits` allow, within the limits of `epochs`."""
    fewest, most = options.epochs
    return min(max(options.visits // pairs, fewest), most)


def _schedule(done: float) -> float:
    """The factor of the learning rate: a short rise, then a cosine down to nothing."""
    return min(1.0, done / 0.05 + 0.05) * 0.5 * (1 + math.cos(math.pi * done))


def _averaging(memory: int) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """An exponential moving average. It remembers a part of the steps so far, `memory` at most."""

    def update(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        return torch.lerp(average, now, max(1 / memory, 2 / (2 + int(steps))))

    return update


def _trees(
    training: LabelledPairs,
    rows: I64,
    network: NetworkOptions,
    options: TrainingOptions,
    rng: np.random.Generator,
) -> tuple[Trees, F64]:
    """The trees, and of each of these rows what trees say that were learned from other left entities."""
    said = np.zeros(len(rows))
    if not network.trees or not network.features:
        return NO_TREES, said
    seen, label = _seen(training, rows), training.label[rows]

    def fitted(some: Bools) -> Trees:
        inside = np.flatnonzero(some)
        limit = options.max_pairs * len(inside) // len(rows)  # with the same share of links
        chosen = inside[_sample(label[inside], limit, rng)]
        return fit_trees(seen[chosen], label[chosen], network.trees, options.seed)

    fold = _folds(training.left[rows], label, rng)
    for number in range(FOLDS):
        inside = fold == number
        said[inside] = say_all(fitted(~inside), seen[inside])
    # as many others as links, else the network has nothing to tell these from
    others = np.sort(said[~label])[::-1]
    least = min(np.quantile(said[label], options.lost), others[min(label.sum(), len(others)) - 1])
    return fitted(np.ones(len(rows), bool))._replace(least=np.array([least])), said


def _folds(left: I64, label: Bools, rng: np.random.Generator) -> I64:
    """(P,) the fold of each pair: that of its left entity. Links are parted evenly."""
    lefts, entity = np.unique(left, return_inverse=True)
    has_link = np.zeros(len(lefts), bool)
    has_link[entity[label]] = True
    order = rng.permutation(len(lefts))
    order = order[np.argsort(~has_link[order], kind="stable")]
    fold = np.empty(len(lefts), np.int64)
    fold[order] = np.arange(len(lefts)) % FOLDS
    return fold[entity]


def _seen(pairs: LabelledPairs, rows: I64) -> F32:
    """What trees see of these rows."""
    parts = []
    for start in range(0, len(rows), _INPUT_ROWS):
        inputs = pairs.inputs(rows[start : start + _INPUT_ROWS])
        every = np.arange(len(inputs.context))
        parts.append(
            seen_by_trees(slots_of(inputs.left), slots_of(inputs.right), every, every, inputs.context)
        )
    return np.concatenate(parts)


def _said(trees: Trees, pairs: LabelledPairs, rows: I64) -> F64:
    return say_all(trees, _seen(pairs, rows)) if len(trees.feature) else np.zeros(len(rows))


def _calibrated(net: AlignmentNetwork, trees: Trees, valid: LabelledPairs) -> Trained:
    def calibration(scorer: DenseScorer) -> tuple[F32, Calibration]:
        logits = _logits(scorer, valid)
        return logits, Calibration(*fit_platt(logits.astype(np.float64), valid.label))

    logits, with_trees = calibration(DenseScorer(net, trees))
    _, alone = calibration(DenseScorer(net))
    scorer = DenseScorer(net, trees, with_trees)
    pairs = _scored(valid, np.arange(len(logits)), scorer.probabilities(logits))
    report = {
        "valid_prauc": prauc(pairs),
        "valid_chance": prauc(pairs._replace(score=np.zeros(len(logits)))),  # of the same score for all
        "valid_retrieved": retrieval_recall(pairs),
    }
    return Trained(net, trees, with_trees, alone, lasting_threshold(pairs), report)


def fit_platt(logits: F64, label: Bools) -> tuple[float, float]:
    """Platt scaling: the slope and offset of the most likely sigmoid, by Newton steps.

    Targets are smoothed as in Platt (1999), so that separable data keep finite scores. If the best slope is
    not positive (the logits say nothing), a small positive one takes its place, which keeps the order.
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    target = np.where(label, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # about 0 and of size 1: on other logits, steps from a slope of 1 may diverge
    centre, scale = float(np.mean(logits)), max(float(np.std(logits)), 1e-6)
    logits = (logits - centre) / scale
    slope, offset = 1.0, 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(slope * logits + offset, -500, 500)))
        weight = np.maximum(p * (1 - p), 1e-12)
        gradient = np.array([((p - target) * logits).sum(), (p - target).sum()])
        hessian = np.array(
            [[(weight * logits**2).sum(), (weight * logits).sum()], [(weight * logits).sum(), weight.sum()]]
        ) + 1e-6 * np.eye(2)
        step = np.clip(np.linalg.solve(hessian, gradient), -2, 2)
        slope, offset = slope - step[0], offset - step[1]
        if np.abs(step).max() < 1e-9:
            break
    slope = max(float(slope) / scale, 1e-3)
    return slope, float(offset) - slope * centre


def _logits(scorer: DenseScorer, pairs: LabelledPairs) -> F32:
    rows = np.arange(len(pairs.label))
    parts = [
        scorer.logits(pairs.inputs(rows[at : at + _INPUT_ROWS])) for at in range(0, len(rows), _INPUT_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _scored(pairs: LabelledPairs, rows: I64, scores: F64) -> ScoredPairs:
    return ScoredPairs(scores, pairs.label[rows], pairs.left[rows], pairs.right[rows], pairs.links)
