"""Baseline: DeepMatcher's hybrid model, in an environment of its own, because it needs CPython 3.7.

Its word vectors are trained with fastText on the set's own texts: those that it would download are not there.
`deepmatcher_child.py` is what runs in that environment.
"""

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.environments import CACHE, ToolError, environment, run
from benchmarks.quality.task import NotApplicable, Scored, Spent, Task
from model.evaluation import ScoredPairs
from model.training import LabelledPairs
from stream.console import tell
from stream.events import Upsert
from stream.learning.known_links import LabelledLink

REQUIREMENTS = Path(__file__).with_name("deepmatcher.txt")
VERSION = "3.7"
LIMIT = 7200.0  # seconds


class _Figures(msgspec.Struct):
    seconds: float
    cpu_seconds: float
    prepared_seconds: float
    valid: list[float]
    test: list[float]


def deepmatcher(task: Task, seed: int) -> Scored:
    """Trains and scores."""
    if not task.dataset.pairs:
        raise NotApplicable(f"it takes 1.6 s of CPU a pair; there are {len(task.train.label):,}")
    if (interpreter := find_python()) is None:
        raise NotApplicable(f"no CPython {VERSION} here")
    # `fasttext`, which DeepMatcher requires, comes as a source; fasttext-wheel is the same, built
    python = environment(REQUIREMENTS, CACHE, interpreter, check=False)
    with tempfile.TemporaryDirectory(prefix="sameas-") as directory:
        write(task, Path(directory))
        module = "benchmarks.quality.deepmatcher_child"
        said = run("deepmatcher", python, ["-m", module, directory, str(seed)], LIMIT)
    try:
        figures = msgspec.json.decode(said, type=_Figures)
    except msgspec.MsgspecError as error:
        raise ToolError(f"deepmatcher said {said!r:.100} instead of its figures") from error
    tell(f"deepmatcher: {figures.prepared_seconds:.0f} s for word vectors and tokens besides")

    def scored(pairs: LabelledPairs, probability: list[float]) -> ScoredPairs:
        return ScoredPairs(np.array(probability), pairs.label, pairs.left, pairs.right, pairs.links)

    valid, test = scored(task.valid, figures.valid), scored(task.test, figures.test)
    return Scored(Spent(figures.seconds, figures.cpu_seconds), valid, test)


def find_python() -> str | None:
    """A CPython 3.7 on the PATH, or one of pyenv's."""
    for candidate in _candidates():
        command = [candidate, "-c", "import sys; print(sys.implementation.name, *sys.version_info[:2])"]
        if _said(command).split() == ["cpython", *VERSION.split(".")]:
            return candidate
    return None


def _candidates() -> Iterator[str]:
    name = f"python{VERSION}"
    if found := shutil.which(name):
        yield found  # under pyenv this may be a shim that finds nothing
    if pyenv := shutil.which("pyenv"):
        for version in _said([pyenv, "versions", "--bare"]).split():
            if version.startswith(f"{VERSION}."):
                yield str(Path(_said([pyenv, "prefix", version]).strip()) / "bin" / name)


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def write(task: Task, place: Path) -> None:
    """A CSV file for each part: both sides with the same columns, as DeepMatcher wants them."""
    entities = {f"{e.source}:{e.id}": e for e in task.workspace.upserts()}
    columns = sorted({name for entity in entities.values() for name in entity.attributes})
    sides = [f"{side}_{column}" for side in ("left", "right") for column in columns]
    for part, pairs in task.dataset.pairs.items():
        with (place / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "label", *sides])
            rows.writerows(_rows(pairs, entities, columns))


def _rows(
    pairs: Iterable[LabelledLink], entities: dict[str, Upsert], columns: list[str]
) -> Iterator[list[object]]:
    for number, pair in enumerate(pairs):
        cells = [entities[end].attributes.get(name, "") for end in pair[:2] for name in columns]
        yield [number, int(pair.same), *cells]
