"""A virtual environment for each foreign tool, made once from pinned requirements."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from index.errors import SameasError

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sameas" / "peers"
INSTALL_SECONDS = 900


class ToolError(SameasError):
    """A foreign tool could not be installed or run."""


def environment(
    requirements: Path, cache: Path, interpreter: str = sys.executable, check: bool = True
) -> Path:
    """The interpreter of the environment of a tool.

    Args:
        requirements: all packages with their versions; what it does not name is not installed.
        cache: where environments are kept; each belongs to the text of its requirements.
        interpreter: what the environment is made with.
        check: whether `pip check` must find nothing missing.

    Raises:
        ToolError: it cannot be installed.
    """
    tool = requirements.stem
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    place = cache / f"{tool}-{digest}"
    python = place / "bin" / "python"
    done = place / ".installed"
    if done.exists():
        return python
    _run(tool, [interpreter, "-m", "venv", "--clear", str(place)], INSTALL_SECONDS)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(requirements)]
    _run(tool, install, INSTALL_SECONDS)
    if check:
        _run(tool, [str(python), "-m", "pip", "check"], INSTALL_SECONDS)
    done.touch()
    return python


def run(tool: str, python: Path, arguments: list[str], seconds: float) -> str:
    """The last line that a tool's process prints, run as `python ARGUMENTS` with one thread.

    Raises:
        ToolError: it fails, or takes longer.
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environ.pop("VIRTUAL_ENV", None)
    return _run(tool, [str(python), *arguments], seconds, environ).strip().rpartition("\n")[2]


def _run(tool: str, command: list[str], seconds: float, environ: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environ, check=True, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{tool}: not done after {seconds:.0f} s") from error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip().rpartition("\n")[2]
        raise ToolError(f"{tool}: {words}") from error
    return done.stdout
