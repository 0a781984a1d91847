"""What every model is given: the same candidates with the same answers, and how its scores are judged.

Candidates come from the retrieval of `sameas` with k nearest neighbours in each view. A model is trained on
`train`, its threshold is chosen on `valid`, and it is measured on `test`; always on left entities that have a
link. Links that are no candidates are lost recall for everybody. In the open world some right entities of
`valid` and `test` links are left out: their left entities have no partner, and whatever they get is wrong.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.quality.datasets import DataSet
from index.candidates import CandidateOptions
from model.encoding.encoder import Encoder
from model.evaluation import Quality, ScoredPairs, best_threshold, evaluate
from model.training import LabelledPairs
from stream.learning.levels import prepare
from stream.learning.training import DEFAULT_LEVELS, retrieve
from stream.learning.workspace import Workspace


class NotApplicable(Exception):
    """A model cannot do such a task; the message says why."""


class Task(NamedTuple):
    """A data set with its candidates. `one_to_one` is off where pairs were given: they are judged alone."""

    dataset: DataSet
    workspace: Workspace
    encoder: Encoder
    train: LabelledPairs
    valid: LabelledPairs
    test: LabelledPairs
    one_to_one: bool
    k: int
    seconds: float  # for reading into the graph, encoding and retrieval


class Spent(NamedTuple):
    """What training took."""

    seconds: float  # by the clock
    cpu: float  # of this process, or of the child that trained


def stopwatch() -> Callable[[], Spent]:
    """What was spent since this call."""
    started = time.monotonic(), time.process_time()
    return lambda: Spent(time.monotonic() - started[0], time.process_time() - started[1])


class Scored(NamedTuple):
    """What a model made of a task. Without a threshold of its own it gets the best one on valid."""

    spent: Spent
    valid: ScoredPairs
    test: ScoredPairs
    threshold: float | None = None


Model = Callable[[Task, int], Scored]  # the seed is the second argument


def make_task(dataset: DataSet, workspace: Workspace, k: int) -> Task:
    """Retrieves candidates for a data set whose events are in the workspace."""
    started = time.monotonic()
    encoder = Encoder.fit(workspace.upserts())
    if dataset.pairs:
        known = [(pair.left, pair.right) for pair in dataset.pairs["train"] if pair.same]
        workspace.retrieve(encoder, CandidateOptions(k, ()), known)
        train, valid, test = (workspace.judged(dataset.pairs[part]) for part in ("train", "valid", "test"))
    else:
        links = {
            part: [link for link in workspace.present(some) if link[1] not in dataset.absent]
            for part, some in dataset.links.items()
        }
        encoder, _, train = prepare(
            workspace,
            encoder,
            links["train"],
            lambda encoder, unseen: retrieve(workspace, encoder, links["train"], links["valid"], unseen, k),
            DEFAULT_LEVELS,
        )
        valid, test = (workspace.labelled(dataset.links[part]) for part in ("valid", "test"))
    seconds = time.monotonic() - started
    return Task(dataset, workspace, encoder, train, valid, test, not dataset.pairs, k, seconds)


def judge(task: Task, scored: Scored) -> Quality:
    """All figures on test."""
    threshold = scored.threshold
    if threshold is None:
        threshold = best_threshold(scored.valid, one_to_one=task.one_to_one)
    return evaluate(scored.test, threshold, one_to_one=task.one_to_one)
