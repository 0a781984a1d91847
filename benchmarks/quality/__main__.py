"""Runs data sets through models and prints one table.

python -m benchmarks.quality --data DIRECTORY [--dataset NAME|FILE]... [--model NAME]... [--seeds N]
    [--world open] [--test-links FILE] [-k K] [--json FILE]
"""

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.datasets import built_in, in_the_open, read_dataset
from benchmarks.quality.ours import ABLATIONS, ablation, no_links
from benchmarks.quality.task import Model, NotApplicable, Task, judge, make_task
from index.errors import SameasError
from stream.console import start_log, tell
from stream.errors import ConfigError
from stream.learning.workspace import Workspace

K = 20
ONE_SEED = ("no links", "splink", "deepmatcher")  # minutes each
COLUMNS = (
    *("cpu_seconds", "prauc", "f1", "precision", "recall"),
    *("recall_at_precision_95", "hits_at_1", "retrieval_recall", "calibration_error"),
)
HEADINGS = ("CPU s", "PRAUC", "F1", "P", "R", "R@P=.95", "hits@1", "retrieval", "ECE")

Row = dict[str, object]


def models() -> dict[str, Callable[[], Model]]:
    """All models by name. Baselines import what is not always installed, so each is made when it is run."""
    return {
        **{name: _ours(name) for name in ABLATIONS},
        "no links": _no_links,
        "boosting": _boosting,
        "splink": _splink,
        "deepmatcher": _deepmatcher,
    }


def main(arguments: Sequence[str]) -> int:
    """0 when everything ran."""
    start_log()
    parser = argparse.ArgumentParser("benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the data sets' folders")
    parser.add_argument("--dataset", action="append", help=f"{', '.join(built_in())}, or a mapping file")
    parser.add_argument("--model", action="append", help=f"{', '.join(models())}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--world", choices=("closed", "open"), default="closed", help="open: some entities have no partner"
    )
    parser.add_argument("--test-links", type=Path, help="other links of the same data set")
    parser.add_argument("-k", type=int, default=K, help="candidates in each view")
    parser.add_argument("--json", type=Path, help="one object for each set, model and seed")
    options = parser.parse_args(arguments)
    try:
        complete = run(options)
    except SameasError as error:
        tell(f"error: {error}")
        return 1
    return 0 if complete else 1


def run(options: argparse.Namespace) -> bool:
    """Whether all went well. Lines of the table, and their JSON, come as soon as they are known."""
    names = options.dataset or built_in()
    chosen = options.model or list(models())
    if unknown := set(chosen) - models().keys():
        raise ConfigError(f"no model {', '.join(unknown)}; there are {', '.join(models())}")
    if options.test_links and len(names) != 1:
        raise ConfigError("--test-links belongs to one data set; name it with --dataset")
    print(f"{'set':<16} {'model':<12} {'seeds':>5} {' '.join(f'{name:>9}' for name in HEADINGS)}", flush=True)
    rows: list[Row] = []
    complete = True
    for name in names:
        try:
            dataset = read_dataset(name, options.data, options.test_links)
            if options.world == "open":
                dataset = in_the_open(dataset)
            tell(f"{dataset.name}: {len(dataset.events):,} entities; looking for candidates")
            with Workspace(dataset.events, absent=dataset.absent) as workspace:
                task = make_task(dataset, workspace, options.k)
                tell(f"{len(task.train.label):,} pairs to train on, ready in {task.seconds:.0f} s")
                for model in chosen:
                    complete &= _measure(model, task, options, rows)
        except SameasError as error:
            tell(f"error: {error}")
            complete = False
    return complete


def _measure(name: str, task: Task, options: argparse.Namespace, rows: list[Row]) -> bool:
    """Adds the rows of one model, one for each seed; False when it failed. The other models' rows stay."""
    seeds = 1 if name in ONE_SEED else options.seeds
    done = len(rows)
    try:
        for seed in range(seeds):
            tell(f"{task.dataset.name}: {name}, seed {seed + 1} of {seeds}")
            rows.append(_row(name, task, seed))
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    except NotApplicable as reason:
        _print(task, name, str(reason))
        return True
    except Exception as error:  # whatever a baseline's libraries raise
        _print(task, name, f"failed: {type(error).__name__}: {error}".partition("\n")[0])
        if not isinstance(error, SameasError):
            traceback.print_exception(error)
        return False
    figures = np.array([[row[column] for column in COLUMNS] for row in rows[done:]], float).mean(axis=0)
    cells = [f"{figures[0]:>9.0f}", *(f"{figure:>9.4f}" for figure in figures[1:])]
    _print(task, name, f"{seeds:>5} {' '.join(cells)}")
    if name == "deepmatcher":
        _compare(task, rows)
    return True


def _row(name: str, task: Task, seed: int) -> Row:
    scored = models()[name]()(task, seed)
    return {
        "set": task.dataset.name,
        "world": "open" if task.dataset.absent else "closed",
        "model": name,
        "seed": seed,
        "k": task.k,
        "seconds": scored.spent.seconds,
        "cpu_seconds": scored.spent.cpu,
        "setup_seconds": task.seconds,
        **judge(task, scored).to_json(),
    }


def _compare(task: Task, rows: list[Row]) -> None:
    """After DeepMatcher: how its training compares with ours in the same run."""
    ours, peer = (
        [row for row in rows if (row["set"], row["model"]) == (task.dataset.name, model)]
        for model in ("full", "deepmatcher")
    )
    if not ours or not peer:
        return
    ratios = [
        np.mean([row[part] for row in ours]) / np.mean([row[part] for row in peer])
        for part in ("seconds", "cpu_seconds")
    ]
    _print(
        task, "full/deepm.", f"our training: {ratios[0]:.2%} of its seconds, {ratios[1]:.2%} of CPU seconds"
    )


def _print(task: Task, name: str, text: str) -> None:
    print(f"{task.dataset.name:<16} {name:<12} {text}", flush=True)


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


def _deepmatcher() -> Model:
    from benchmarks.quality.deepmatcher_baseline import deepmatcher

    return deepmatcher


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
