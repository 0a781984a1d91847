"""DeepMatcher, under CPython 3.7 in its own environment.

python -m benchmarks.quality.deepmatcher_child DIRECTORY SEED

DIRECTORY holds train.csv, valid.csv and test.csv with the columns `id`, `label`, `left_*` and `right_*`.
The last line printed is JSON: the seconds of training, and the scores of valid and test in order.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
import time
from pathlib import Path

import deepmatcher
import fasttext
import nltk
import torch

PARTS = ("train", "valid", "test")
EPOCHS = 10
# of 'Getting started' in DeepMatcher's documentation
BATCH = 16
NEGATIVES = 3
DIMENSIONS = 300  # those of the vectors that DeepMatcher would download
BUCKETS = 200_000  # of n-grams: a tenth of fastText's default, and plenty for a few thousand words
LANGUAGE = "own"  # what DeepMatcher calls the language of vectors is a part of their file's name


def main(place: Path, seed: int) -> dict[str, object]:
    """Trains on `train`, keeps the best epoch on `valid`, scores `valid` and `test`."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    nltk.download = lambda *_, **__: True  # DeepMatcher asks for data that only nltk's own tokenizer needs
    started = time.time()
    vectors(place)
    train, valid, test = deepmatcher.data.process(
        path=str(place),
        train="train.csv",
        validation="valid.csv",
        test="test.csv",
        cache=None,
        tokenize=str.split,
        embeddings=f"fasttext.{LANGUAGE}.bin",
        embeddings_cache_path=str(place),
    )
    prepared = time.time() - started
    model = deepmatcher.MatchingModel(attr_summarizer="hybrid")
    started, started_cpu = time.time(), time.process_time()
    model.run_train(
        train,
        valid,
        epochs=EPOCHS,
        batch_size=BATCH,
        pos_neg_ratio=NEGATIVES,
        best_save_path=str(place / "best.pth"),
        device="cpu",
        progress_style="log",
    )
    seconds, cpu = time.time() - started, time.process_time() - started_cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "prepared_seconds": prepared,
        "valid": scores(model, valid),
        "test": scores(model, test),
    }


def vectors(place: Path) -> None:
    """Word vectors of the set's own texts, where DeepMatcher looks for those it would download."""
    texts = place / "texts.txt"
    with texts.open("w", encoding="utf-8") as out:
        for part in PARTS:
            with (place / f"{part}.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    cells = [cell for name, cell in row.items() if name.startswith(("left_", "right_"))]
                    out.writelines(f"{cell.lower()}\n" for cell in cells if cell)
    model = fasttext.train_unsupervised(
        str(texts), "skipgram", dim=DIMENSIONS, minCount=1, epoch=20, bucket=BUCKETS, thread=1
    )
    model.save_model(str(place / f"wiki.{LANGUAGE}.bin"))


def scores(model: deepmatcher.MatchingModel, pairs: object) -> list[float]:
    """By id."""
    table = model.run_prediction(pairs, device="cpu", progress_style="log")["match_score"]
    table.index = table.index.astype(int)
    return [float(score) for score in table.sort_index()]


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        figures = main(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(figures))
