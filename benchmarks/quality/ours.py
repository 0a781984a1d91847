"""The attention model of `sameas`, whole and with parts of it switched off."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.task import Model, NotApplicable, Scored, Task, stopwatch
from model.checkpoint import load_model
from model.scoring.network import NetworkOptions
from model.training import Epoch, TrainingOptions, score, train
from stream.console import progress
from stream.engine.parts import candidate_options
from stream.learning.self_training import train_without_links

_FIRST = np.zeros(1, np.int64)

ABLATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "mutual": {"self_attention": False},
    "one way": {"attention": "one way", "self_attention": False},
    "uniform": {"attention": "uniform", "self_attention": False},
    "no features": {"features": False},
    "no trees": {"trees": 0},
}


def no_links(task: Task, seed: int) -> Scored:
    """Self-supervision: neither links nor a threshold are given. Its candidates are its own as well."""
    if task.dataset.pairs:
        raise NotApplicable("there is no retrieval to start from")
    workspace = task.workspace
    spent = stopwatch()
    with tempfile.TemporaryDirectory() as directory:
        options = TrainingOptions(seed=seed)
        with progress() as show:
            train_without_links(
                task.dataset.events, Path(directory), k=task.k, options=options, progress=_epochs(show)
            )
        took = spent()
        _, model = load_model(Path(directory))
    workspace.retrieve(model.encoder, candidate_options(model))
    valid, test = (
        score(model.scorer(), workspace.labelled(task.dataset.links[part])) for part in ("valid", "test")
    )
    return Scored(took, valid, test, model.threshold)


def ablation(name: str) -> Model:
    """The model without the parts that the name says are missing."""

    def run(task: Task, seed: int) -> Scored:
        spent = stopwatch()
        context = task.train.inputs(_FIRST).context.shape[1]
        network = replace(NetworkOptions(len(task.encoder.keys), context), **ABLATIONS[name])
        with progress() as show:
            options = TrainingOptions(seed=seed)
            trained = train(task.train, task.valid, network, options, progress=_epochs(show))
        took = spent()
        scorer = trained.scorer()
        threshold = trained.threshold if task.dataset.absent else None  # closed: the best one, as for others
        return Scored(took, score(scorer, task.valid), score(scorer, task.test), threshold)

    return run


def _epochs(show: Callable[[str], None]) -> Callable[[Epoch], None]:
    return lambda done: show(f"epoch {done.number} of {done.most}, PRAUC {done.prauc:.3f} on valid")
