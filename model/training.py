"""Learns the network, and the trees beside it, from labelled candidate pairs.

Positives are links, negatives the other candidates of the same left entities: hard ones, because retrieval
found them. Everything random comes from one seed; on one thread the same input gives the same network.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from model.errors import ModelError
from model.evaluation import ScoredPairs, best_threshold, prauc
from model.scoring.network import AlignmentNetwork, NetworkOptions, PairGraph, pair_graph
from model.scoring.pairs import PairInputs, similarities
from model.scoring.scorer import DenseScorer
from model.scoring.trees import NO_TREES, Trees, features, fit_trees

_INPUT_ROWS = 2048  # pairs whose inputs are in memory at once: about 10 kB each


class LabelledPairs(NamedTuple):
    """P candidate pairs with answers. Inputs are made on demand: all of them would not fit into memory."""

    inputs: Callable[[npt.NDArray[np.int64]], PairInputs]  # of these rows, in their order
    label: npt.NDArray[np.bool_]  # (P,)
    left: npt.NDArray[np.int64]  # (P,) numbers of the left entities
    right: npt.NDArray[np.int64]  # (P,)
    links: int  # links of these left entities, proposed by retrieval or not


@dataclass(frozen=True)
class TrainingOptions:
    """How to learn; what is learned has its sizes in NetworkOptions."""

    seed: int = 0
    max_pairs: int = 60_000  # of training; links stay, other pairs are drawn
    max_valid_pairs: int = 15_000  # for early stopping; calibration and threshold use all
    batch: int = 256  # at most; a few hundred pairs learn better from smaller ones (see `_batch`)
    visits: int = 600_000  # pairs seen, over all epochs
    epochs: tuple[int, int] = (6, 30)  # at least, at most
    patience: int = 5  # epochs without a better PRAUC on valid
    seconds: float = 120.0  # of CPU, this thread's; no epoch starts after; a guard, `visits` bounds the time
    learning_rate: float = 4e-3  # of batches of 256 pairs
    weight_decay: float = 1e-3
    memory: int = 100  # steps; weights are kept as their moving average, see `_averaging`


class Progress(NamedTuple):
    """After each epoch. `prauc` is on (a part of) valid."""

    epoch: int
    epochs: int
    loss: float
    prauc: float
    seconds: float


@dataclass
class Trained:
    """A network and trees with their calibration, and how they came about."""

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
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Trains, stops early on valid, calibrates and chooses the threshold for the best one-to-one F1 there.

    Raises:
        ModelError: there is no link, or nothing but links, among the pairs of either part.
    """
    started, working = time.monotonic(), time.thread_time()
    for name, part in (("training", training), ("validation", valid)):
        if not part.label.any() or part.label.all():
            raise ModelError(
                f"{name}: {int(part.label.sum())} links among {len(part.label)} candidate pairs; "
                "both links and other pairs are needed. Check that the links' ids are those of the entities"
            )
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    rows = _sample(training.label, options.max_pairs, rng)
    batch = _batch(len(rows), options.batch)
    learning_rate = options.learning_rate * (batch / 256) ** (1 / 3)
    batches = list(_graphs(training, rng.permutation(rows), batch))
    watched_rows = _whole_groups(valid.left, options.max_valid_pairs, rng)
    watched = list(_graphs(valid, watched_rows, 2048))
    links = max(1, round(valid.links * len(np.unique(valid.left[watched_rows])) / len(np.unique(valid.left))))

    net = AlignmentNetwork(network)
    net.fit_bins(torch.cat([batch.graph.context for batch in batches]))
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=learning_rate, weight_decay=options.weight_decay, fused=True
    )
    averaged = AveragedModel(net, avg_fn=_averaging(options.memory)).eval()
    fewest, most = options.epochs
    epochs = min(max(options.visits // len(rows), fewest), most)
    steps = epochs * len(batches)
    best, best_state, best_epoch, step = -1.0, copy.deepcopy(net.state_dict()), 0, 0
    for epoch in range(1, epochs + 1):
        net.train()
        losses = []
        for number in rng.permutation(len(batches)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * _schedule(step / steps)
            loss = functional.binary_cross_entropy_with_logits(
                net(batches[number].graph), batches[number].label
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            averaged.update_parameters(net)
            losses.append(loss.item())
            step += 1
        with torch.no_grad():
            scores = torch.cat([averaged(batch.graph) for batch in watched]).double().numpy()
        reached = prauc(_scored(valid, watched_rows, scores)._replace(links=links))
        seconds = time.monotonic() - started
        progress(Progress(epoch, epochs, float(np.mean(losses)), reached, seconds))
        if reached > best:
            best, best_state, best_epoch = reached, copy.deepcopy(averaged.module.state_dict()), epoch
        if epoch - best_epoch >= options.patience or time.thread_time() - working > options.seconds:
            break
    net.load_state_dict(best_state)
    net.eval()
    _in_units_of_log_odds(net, valid)
    trees = NO_TREES
    if network.trees and network.features:
        seen = np.concatenate([batch.features for batch in batches])
        label = torch.cat([batch.label for batch in batches]).bool().numpy()
        trees = fit_trees(seen, label, network.trees, options.seed)
    trained = _calibrated(net, trees, valid)
    trained.report = {
        "training_pairs": len(rows),
        "training_links": int(training.label.sum()),
        "valid_pairs": len(valid.label),
        "epochs": epoch,
        "best_epoch": best_epoch,
        "valid_prauc": best,
        "seconds": time.monotonic() - started,
    }
    return trained


def score(scorer: DenseScorer, pairs: LabelledPairs) -> ScoredPairs:
    """Labelled pairs with calibrated scores, for evaluation."""
    logits = _logits(scorer, pairs)
    return _scored(pairs, np.arange(len(logits)), scorer.probabilities(logits))


class _Batch(NamedTuple):
    graph: PairGraph
    label: torch.Tensor
    features: npt.NDArray[np.float32]  # what trees see


def _graphs(pairs: LabelledPairs, rows: npt.NDArray[np.int64], size: int) -> Iterator[_Batch]:
    """Ragged graphs of these rows, `size` a graph. Stage 1 has no parameters: it is done here, once."""
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


def _batch(pairs: int, most: int) -> int:
    """So many that an epoch has some forty steps, but 32 at least: a power of two."""
    return min(most, max(32, 1 << (pairs // 40).bit_length() >> 1))


def _schedule(done: float) -> float:
    """A short rise, then a cosine down to nothing."""
    return min(1.0, done / 0.05 + 0.05) * 0.5 * (1 + math.cos(math.pi * done))


def _averaging(memory: int) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | int], torch.Tensor]:
    """An exponential moving average. It is at first a third of the steps old, so the first are forgotten."""

    def update(average: torch.Tensor, now: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        return torch.lerp(average, now, max(1 / memory, 2 / (2 + int(steps))))

    return update


def _in_units_of_log_odds(net: AlignmentNetwork, valid: LabelledPairs) -> None:
    """Calibrates the network alone, for the trees to be added and for types of which they know nothing."""
    slope, offset = fit_platt(_logits(DenseScorer(net), valid).astype(np.float64), valid.label)
    with torch.no_grad():
        net.head_out.weight.mul_(slope)
        net.head_out.bias.mul_(slope).add_(offset)


def _calibrated(net: AlignmentNetwork, trees: Trees, valid: LabelledPairs) -> Trained:
    logits = _logits(DenseScorer(net, trees), valid)
    slope, offset = fit_platt(logits.astype(np.float64), valid.label)
    scorer = DenseScorer(net, trees, slope, offset)
    pairs = _scored(valid, np.arange(len(logits)), scorer.probabilities(logits))
    return Trained(net, trees, slope, offset, best_threshold(pairs))


def fit_platt(logits: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Platt scaling: the slope and offset of the most likely sigmoid, by Newton steps.

    Targets are smoothed as in Platt (1999), so that separable data keep finite scores. Should the best slope
    not be positive (the logits say nothing), the slope is a small positive one: order is kept.
    """
    positives = int(label.sum())
    negatives = len(label) - positives
    target = np.where(label, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = max(float(np.std(logits)), 1e-6)  # steps from a slope of 1 may go astray where all is decided
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
