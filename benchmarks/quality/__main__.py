"""Runs data sets through models and prints one table.

python -m benchmarks.quality --data DIRECTORY [--dataset NAME|FILE]... [--model NAME]... [--seeds N]
    [--test-links FILE] [-k K] [--json FILE]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.datasets import built_in, read_dataset
from benchmarks.quality.ours import ABLATIONS, ablation, no_links
from benchmarks.quality.task import Model, NotApplicable, Task, judge, make_task
from stream.console import tell
from stream.errors import ConfigError, SameasError
from stream.workspace import Workspace

K = 20
COLUMNS = ("seconds", "prauc", "f1", "recall_at_precision_95", "hits_at_1", "retrieval_recall")
HEADINGS = ("seconds", "PRAUC", "F1", "R@P=.95", "hits@1", "retrieval")

Row = dict[str, object]


def models() -> dict[str, Callable[[], Model]]:
    """All models by name. Baselines import what is not always installed, so each is made when it is run."""
    return {
        **{name: _ours(name) for name in ABLATIONS},
        "no links": _no_links,
        "boosting": _boosting,
        "splink": _splink,
    }


def main(arguments: Sequence[str]) -> int:
    """0 when everything ran."""
    parser = argparse.ArgumentParser("benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the data sets' folders")
    parser.add_argument("--dataset", action="append", help=f"{', '.join(built_in())}, or a mapping file")
    parser.add_argument("--model", action="append", help=f"{', '.join(models())}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test-links", type=Path, help="other links of the same data set")
    parser.add_argument("-k", type=int, default=K, help="candidates in each view")
    parser.add_argument("--json", type=Path, help="one object for each set, model and seed")
    options = parser.parse_args(arguments)
    try:
        rows = run(options)
    except SameasError as error:
        tell(f"error: {error}")
        return 1
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def run(options: argparse.Namespace) -> list[Row]:
    """All rows, and a line of the table for each set and model as soon as it is known."""
    names = options.dataset or built_in()
    chosen = options.model or list(models())
    if unknown := set(chosen) - models().keys():
        raise ConfigError(f"no model {', '.join(unknown)}; there are {', '.join(models())}")
    if options.test_links and len(names) != 1:
        raise ConfigError("--test-links belongs to one data set; name it with --dataset")
    print(f"{'set':<16} {'model':<12} {'seeds':>5} {' '.join(f'{name:>9}' for name in HEADINGS)}", flush=True)
    rows: list[Row] = []
    for name in names:
        dataset = read_dataset(name, options.data, options.test_links)
        with Workspace(dataset.events) as workspace:
            task = make_task(dataset, workspace, options.k)
            tell(
                f"{dataset.name}: {len(task.train.label):,} pairs to train on, ready in {task.seconds:.0f} s"
            )
            for model in chosen:
                try:
                    rows += _measure(model, task, options.seeds)
                except NotApplicable as reason:
                    print(f"{dataset.name:<16} {model:<12} {reason}", flush=True)
    return rows


def _measure(name: str, task: Task, seeds: int) -> list[Row]:
    model = models()[name]()
    rows: list[Row] = []
    for seed in range(seeds):
        started = time.process_time()
        scored = model(task, seed)
        cpu = time.process_time() - started
        quality = judge(task, scored)
        row: Row = {
            "set": task.dataset.name,
            "model": name,
            "seed": seed,
            "k": task.k,
            "seconds": scored.seconds,
        }
        rows.append({**row, "cpu_seconds": cpu, "setup_seconds": task.seconds, **quality.to_json()})
    figures = np.array([[row[column] for column in COLUMNS] for row in rows], float).mean(axis=0)
    cells = [f"{figures[0]:>9.0f}", *(f"{figure:>9.4f}" for figure in figures[1:])]
    print(f"{task.dataset.name:<16} {name:<12} {seeds:>5} {' '.join(cells)}", flush=True)
    return rows


def _ours(name: str) -> Callable[[], Model]:
    return lambda: ablation(name)


def _no_links() -> Model:
    return no_links


def _boosting() -> Model:
    from benchmarks.quality.boosting import boosting

    return boosting


def _splink() -> Model:
    from benchmarks.quality.splink_baseline import splink

    return splink


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
