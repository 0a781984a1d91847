"""The same alignments, bit for bit, on processors with other instructions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from benchmarks.catalogues import catalogues

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.bits

# What `make CPU=avx2` sets; and processors for which loops are compiled otherwise: without FMA, and
# with wider vectors where there are any.
AVX2 = dict(line.split("=", 1) for line in (ROOT / "benchmarks" / "avx2.env").read_text().splitlines())
PROCESSORS = {"avx2": AVX2, "without FMA": AVX2 | {"NUMBA_CPU_NAME": "ivybridge"}}
if torch.backends.cpu.get_cpu_capability() == "AVX512":
    PROCESSORS["avx512"] = {"NUMBA_CPU_NAME": "skylake-avx512"}

# Scores of pairs by chance go to a file, alignments to stdout.
SCORE_AND_ALIGN = """
import sys
from pathlib import Path
import numpy as np
from model.checkpoint import load_model
from model.scoring.comparing import slots_of
from model.scoring.pairs import Side
from model.shapes import DIM, LEVEL, SLOTS
from stream.cli import main

_, model = load_model(Path("model"))
chance = np.random.default_rng(0)
def side():
    widths = (DIM, DIM, LEVEL, LEVEL)
    vectors = [chance.integers(-60, 60, (400, SLOTS, width)).astype(np.int8) for width in widths]
    keys = chance.integers(0, 3, (400, SLOTS)).astype(np.int16)
    return slots_of(Side(*vectors, keys, chance.integers(0, 40, (400, SLOTS)) * 77_777))
pairs, every = (side(), side()), np.arange(400)
context = chance.normal(size=(400, model.network.options.context)).astype(np.float32)
scorer = model.scorer()
scores = scorer.score(*pairs, (every, every), context)
attention = scorer.attention(*pairs, (every, every), context)[1]
Path("scores").write_bytes(scores.tobytes() + attention.tobytes())
main(["align", "--model", "model", "both.jsonl"])
"""


@pytest.fixture(scope="module")
def here(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the catalogues as a file."""
    directory = tmp_path_factory.mktemp("bits")
    shutil.copytree(checkpoint, directory / "model")
    lines = (msgspec.json.encode(event) for event in catalogues())
    (directory / "both.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return directory


def said(here: Path, processor: dict[str, str], *words: str) -> bytes:
    """What a process prints that believes to run on such a processor, for which its loops are compiled."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | processor
    done = subprocess.run([sys.executable, *words], cwd=here, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def scores_and_alignments(here: Path, processor: dict[str, str]) -> tuple[bytes, list[dict[str, Any]]]:
    lines = said(here, processor, "-c", SCORE_AND_ALIGN).splitlines()
    return (here / "scores").read_bytes(), [json.loads(line) | {"mapping_date": ""} for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scores_and_alignments_are_the_same_on_every_processor(here: Path) -> None:
    scores, alignments = scores_and_alignments(here, {})
    assert len(scores) > 400 * 8 and len(alignments) > 50
    for name, processor in PROCESSORS.items():
        assert scores_and_alignments(here, processor) == (scores, alignments), name


def test_emulating_avx2_bites(here: Path) -> None:
    """Each library uses the instructions that it is told to."""
    look = (
        "import torch; from index.search import products; from numba.core import config; "
        "from numpy._core._multiarray_umath import __cpu_features__ as known; "
        "print(torch.backends.cpu.get_cpu_capability(), products.description()); "
        "print(config.CPU_NAME, known['X86_V4'])"
    )
    assert said(here, AVX2, "-c", look).decode().split() == ["AVX2", "numkong,", "AVX2", "haswell", "False"]
