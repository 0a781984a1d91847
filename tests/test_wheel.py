"""What is installed is whole, and is found whatever lies in the working directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("index", "model", "stream")
COMMAND = "sameas_command.py"


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; it knows nothing of the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as building leaves files behind."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "copy"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (COMMAND, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", place, copy)
    run(sys.executable, "-m", "pip", *build, cwd=place)
    (built,) = place.glob("*.whl")
    return built


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    files = (path for name in PACKAGES for path in (ROOT / name).rglob("*.*") if path.is_file())
    ours = {path.relative_to(ROOT).as_posix() for path in files if path.parent.name != "__pycache__"}
    ours.add(COMMAND)
    assert ours == {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_command_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """In an environment that sees the packages that it needs, and not this checkout."""
    venv, work = tmp_path / "venv", tmp_path / "work"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=tmp_path)
    python = venv / "bin" / "python"
    install = ("install", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=tmp_path)
    (packages,) = venv.glob("lib/python*/site-packages")
    # Python reads no .pth files of a folder that a .pth file names: an editable install there does not count.
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (work / "index").mkdir(parents=True)
    for name in ("model.py", "index/__init__.py"):
        (work / name).write_text("raise AssertionError('this is not the package')\n", encoding="utf-8")

    where = "import index, model, stream; print(*(p.__file__ for p in (index, model, stream)))"
    found = run(python, "-P", "-c", where, cwd=work).split()
    assert found == [str(packages / name / "__init__.py") for name in PACKAGES]
    assert '"entity-event"' in run(venv / "bin" / "sameas", "schema", cwd=work)
