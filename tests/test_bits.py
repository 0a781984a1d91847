"""The same alignments, bit for bit, on processors with other instructions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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

SCORE = """
import sys
from pathlib import Path
import numpy as np
from index.search import products
from model.checkpoint import load_model
from model.scoring.kernel import slots_of
from model.shapes import SLOTS
from model.scoring.pairs import Side
from model.shapes import DIM

_, model = load_model(Path(sys.argv[1]))
chance = np.random.default_rng(0)
def side():
    vectors = [chance.integers(-60, 60, (400, SLOTS, DIM)).astype(np.int8) for _ in range(2)]
    keys = chance.integers(0, 3, (400, SLOTS)).astype(np.int16)
    return slots_of(Side(*vectors, keys, chance.integers(0, 40, (400, SLOTS)) * 77_777))
pairs, every = (side(), side()), np.arange(400)
context = chance.normal(size=(400, model.network.options.context)).astype(np.float32)
scorer = model.scorer()
sys.stdout.buffer.write(scorer.score(*pairs, (every, every), context).tobytes())
sys.stdout.buffer.write(scorer.attention(*pairs, (every, every), context)[1].tobytes())
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


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROCESSORS)
def test_scores_and_alignments_are_the_same_on_every_processor(here: Path, name: str) -> None:
    one, other = (said(here, processor, "-c", SCORE, "model") for processor in ({}, PROCESSORS[name]))
    assert len(one) > 400 * 8 and one == other

    words = ["-m", "sameas_command", "align", "--model", "model", "both.jsonl"]
    one, other = (said(here, processor, *words) for processor in ({}, PROCESSORS[name]))
    assert len(one.splitlines()) > 50
    undated = [
        [
            {key: value for key, value in json.loads(line).items() if key != "mapping_date"}
            for line in lines.splitlines()
        ]
        for lines in (one, other)
    ]
    assert undated[0] == undated[1]


def test_emulating_avx2_bites(here: Path) -> None:
    """Each library uses the instructions that it is told to."""
    look = (
        "import torch; from index.search import products; from numba.core import config; "
        "from numpy._core._multiarray_umath import __cpu_features__ as known; "
        "print(torch.backends.cpu.get_cpu_capability(), products.description()); "
        "print(config.CPU_NAME, known['X86_V4'])"
    )
    assert said(here, AVX2, "-c", look).decode().split() == ["AVX2", "numkong,", "AVX2", "haswell", "False"]
