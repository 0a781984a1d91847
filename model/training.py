"""Learns the network, and the trees beside it, from labelled candidate pairs.

Positives are links, negatives the other candidates of the same left entities: hard ones, because retrieval
found them. Everything random comes from one seed; on one thread the same input gives the same network.
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
from model.scoring.network import AlignmentNetwork, NetworkOptions, PairGraph, pair_graph
from model.scoring.pairs import PairInputs, similarities
from model.scoring.scorer import DenseScorer
from model.scoring.trees import NO_TREES, Trees, features, fit_trees

_INPUT_ROWS = 2048  # pairs whose inputs are in memory at once: about 10 kB each


class LabelledPairs(NamedTuple):
    """P candidate pairs with answers. Inputs are made on demand: all together would not fit into memory."""

    inputs: Callable[[npt.NDArray[np.int64]], PairInputs]  # of these rows, in their order
    label: npt.NDArray[np.bool_]  # (P,)
    left: npt.NDArray[np.int64]  # (P,) numbers of the left entities
    right: npt.NDArray[np.int64]  # (P,)
    links: int  # links of these left entities, proposed by retrieval or not


@dataclass(frozen=True)
class TrainingOptions:
    """How to learn. NetworkOptions has the sizes of what is learned."""

    seed: int = 0
    max_pairs: int = 60_000  # of training; all links, and other pairs drawn at random
    max_valid_pairs: int = 15_000  # for early stopping; calibration and threshold use all pairs
    batch: int = 256  # at most; from a few hundred pairs smaller batches learn better (see `_batch_size`)
    visits: int = 600_000  # pairs seen, over all epochs
    epochs: tuple[int, int] = (6, 30)  # at least, at most
    patience: int = 5  # epochs without a better PRAUC on valid
    seconds: float = 120.0  # of this thread's CPU; no epoch starts later; a guard beside `visits`
    learning_rate: float = 4e-3  # of batches of 256 pairs
    weight_decay: float = 1e-3
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
    slope: float
    offset: float
    threshold: float
    report: dict[str, float] = field(default_factory=dict)

    def scorer(self) -> DenseScorer:
        """For serving."""
        return DenseScorer(self.network, self.trees, self.slope, self.offset)


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
    rows = _sample(training.label, options.max_pairs, rng)
    size = _batch_size(len(rows), options.batch)
    batches = list(_graphs(training, rng.permutation(rows), size))
    watched = _Watched(valid, options.max_valid_pairs, rng)

    epochs = _epochs(len(rows), options)
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
    _in_units_of_log_odds(net, valid)
    trees = _trees(batches, network, options.seed)
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
    features: npt.NDArray[np.float32]  # (pairs, features): what the trees see


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

    def learn(self, order: npt.NDArray[np.int64]) -> float:
        """One epoch: all batches in this order. Returns their mean loss."""
        self._net.train()
        return float(np.mean([self._learn_from(self._batches[number]) for number in order]))

    def _learn_from(self, batch: _Batch) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate * _schedule(self._step / self._steps)
        loss = functional.binary_cross_entropy_with_logits(self._net(batch.graph), batch.label)
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

    def __init__(self, valid: LabelledPairs, limit: int, rng: np.random.Generator) -> None:
        self._valid = valid
        self._rows = _whole_groups(valid.left, limit, rng)
        self._batches = list(_graphs(valid, self._rows, 2048))
        watched, all_lefts = len(np.unique(valid.left[self._rows])), len(np.unique(valid.left))
        self._links = max(1, round(valid.links * watched / all_lefts))  # also those that retrieval missed

    def prauc(self, network: torch.nn.Module) -> float:
        with torch.no_grad():
            scores = torch.cat([network(batch.graph) for batch in self._batches]).double().numpy()
        return prauc(_scored(self._valid, self._rows, scores)._replace(links=self._links))


def _check_labels(part: str, label: npt.NDArray[np.bool_]) -> None:
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


def _graphs(pairs: LabelledPairs, rows: npt.NDArray[np.int64], size: int) -> Iterator[_Batch]:
    """Ragged graphs of these rows, `size` pairs each. Stage 1 has no parameters, so it is done once, here."""
    for start in range(0, len(rows), _INPUT_ROWS):
        part = rows[start : start + _INPUT_ROWS]
        stage1 = similarities(pairs.inputs(part))
        for at in range(0, len(part), size):
            chunk = slice(at, at + size)
            label = torch.from_numpy(pairs.label[part[chunk]]).float()
            some = stage1.take(chunk)
            yield _Batch(pair_graph(some), label, features(some))


def _sample(label: npt.NDArray[np.bool_], limit: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """All links and as many other pairs as the limit allows, but at least as many as links."""
    links, others = np.flatnonzero(label), np.flatnonzero(~label)
    room = max(limit - len(links), len(links))
    if len(others) > room:
        others = rng.choice(others, room, replace=False)
    return np.sort(np.concatenate([links, others]))


def _whole_groups(
    groups: npt.NDArray[np.int64], limit: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
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


def _trees(batches: Sequence[_Batch], network: NetworkOptions, seed: int) -> Trees:
    """The trees beside the network, learned from the same pairs; none if the options have none."""
    if not network.trees or not network.features:
        return NO_TREES
    seen = np.concatenate([batch.features for batch in batches])
    label = torch.cat([batch.label for batch in batches]).bool().numpy()
    return fit_trees(seen, label, network.trees, seed)


def _in_units_of_log_odds(net: AlignmentNetwork, valid: LabelledPairs) -> None:
    """Calibrates the network alone: trees are added to it, and of some types they know nothing."""
    slope, offset = fit_platt(_logits(DenseScorer(net), valid).astype(np.float64), valid.label)
    with torch.no_grad():
        net.head_out.weight.mul_(slope)
        net.head_out.bias.mul_(slope).add_(offset)


def _calibrated(net: AlignmentNetwork, trees: Trees, valid: LabelledPairs) -> Trained:
    logits = _logits(DenseScorer(net, trees), valid)
    slope, offset = fit_platt(logits.astype(np.float64), valid.label)
    scorer = DenseScorer(net, trees, slope, offset)
    pairs = _scored(valid, np.arange(len(logits)), scorer.probabilities(logits))
    report = {
        "valid_prauc": prauc(pairs),
        "valid_chance": prauc(pairs._replace(score=np.zeros(len(logits)))),  # of the same score for all
        "valid_retrieved": retrieval_recall(pairs),
    }
    return Trained(net, trees, slope, offset, lasting_threshold(pairs), report)


def fit_platt(logits: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Platt scaling: the slope and offset of the most likely sigmoid, by Newton steps.

    Targets are smoothed as in Platt (1999), so that separable data keep finite scores. If the best slope is
    not positive (the logits say nothing), a small positive one takes its place, which keeps the order.
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    target = np.where(label, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = max(float(np.std(logits)), 1e-6)  # on large logits, steps from a slope of 1 may diverge
    logits = logits / scale
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
    return max(float(slope) / scale, 1e-3), float(offset)


def _logits(scorer: DenseScorer, pairs: LabelledPairs) -> npt.NDArray[np.float32]:
    rows = np.arange(len(pairs.label))
    parts = [
        scorer.logits(pairs.inputs(rows[at : at + _INPUT_ROWS])) for at in range(0, len(rows), _INPUT_ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _scored(
    pairs: LabelledPairs, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]
) -> ScoredPairs:
    return ScoredPairs(scores, pairs.label[rows], pairs.left[rows], pairs.right[rows], pairs.links)
