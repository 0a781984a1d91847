"""The attention model of `sameas`, whole and with parts of it switched off."""

import time
from dataclasses import replace

import numpy as np

from benchmarks.quality.task import Model, Scored, Task
from model.network import NetworkOptions
from model.training import TrainingOptions, score, train

_FIRST = np.zeros(1, np.int64)

ABLATIONS: dict[str, dict[str, bool]] = {
    "full": {},
    "no cross": {"cross_attention": False},
    "no self": {"self_attention": False},
    "neither": {"cross_attention": False, "self_attention": False},
    "no features": {"features": False},
}


def ablation(name: str) -> Model:
    """The model without the parts that the name says are missing."""

    def run(task: Task, seed: int) -> Scored:
        started = time.monotonic()
        context = task.train.inputs(_FIRST).context.shape[1]
        network = replace(NetworkOptions(len(task.encoder.keys), context), **ABLATIONS[name])
        trained = train(task.train, task.valid, network, TrainingOptions(seed=seed))
        seconds = time.monotonic() - started
        scorer = trained.scorer()
        return Scored(seconds, score(scorer, task.valid), score(scorer, task.test))

    return run
