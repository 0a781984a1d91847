"""`stream`, `model` and `index` are common words: they have to be this checkout's. And importing is quiet."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", ["stream", "model", "index"])
def test_imports_resolve_to_this_checkout(package: str) -> None:
    module = importlib.import_module(package)
    assert [Path(path).resolve() for path in module.__path__] == [ROOT / package]


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("stream.py", "its package 'stream' is hidden by {file}, which Python finds first"),
        ("model/__init__.py", "its package 'model' is hidden by {file}, which Python finds first"),
        ("stream/notes.txt", ""),  # a folder is no package before others
    ],
)
def test_packages_of_the_same_name_are_told_from_ours(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    done = subprocess.run(
        [sys.executable, "-c", "import sameas_command; sameas_command.main()", "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    if told:
        told = told.format(file=tmp_path / file)
        assert done.stderr.startswith(f"sameas: error: {told}; change PYTHONPATH")
        assert done.returncode == 1 and done.stderr.count("\n") == 1
    else:
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("writable", [True, False])
def test_importing_says_nothing_and_leaves_the_home_alone(tmp_path: Path, writable: bool) -> None:
    """DGL would do both. Not even root can write below a file."""
    home = tmp_path / "home"
    if writable:
        home.mkdir()
    else:
        home.touch()
        home /= "none"
    code = (
        "import model.training, stream.worker.app, stream.broker.embedded, "
        "stream.learning.training; stream.broker.embedded._executable(); model.scoring.network.dgl()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DGLBACKEND"}
    started = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    assert not writable or not list(home.iterdir())


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("stream.state.generations", {"dgl", "sklearn"}),  # what scores waits for nothing that only trains
        ("stream.worker.app", {"torch", "numba"}),  # nor what moves messages for what scores
    ],
)
def test_nothing_waits_for_what_only_others_need(module: str, unneeded: set[str]) -> None:
    code = f"import sys, {module}; print({unneeded} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
