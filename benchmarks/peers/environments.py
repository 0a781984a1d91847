"""A virtual environment for each peer, made once from pinned requirements."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from stream.errors import SameasError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL_SECONDS = 900


class PeerError(SameasError):
    """A peer could not be installed or run."""


def environment(peer: str, cache: Path) -> Path:
    """The interpreter of the peer's environment.

    Args:
        cache: where environments are kept; each belongs to the text of its requirements.

    Raises:
        PeerError: it cannot be installed, or would bring torch.
    """
    requirements = HERE / f"{peer}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    place = cache / f"{peer}-{digest}"
    python = place / "bin" / "python"
    done = place / ".installed"
    if done.exists():
        return python
    _run(peer, [sys.executable, "-m", "venv", "--clear", str(place)])
    # every package is named, so nothing else comes in: what pins do not name is not installed
    _run(peer, [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(requirements)])
    _run(peer, [str(python), "-m", "pip", "check"])
    done.touch()
    return python


def run(peer: str, python: Path, data: Path, seconds: float) -> str:
    """The last line that the peer's process prints.

    Raises:
        PeerError: it fails, or takes longer.
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environ.pop("VIRTUAL_ENV", None)
    command = [str(python), "-m", f"benchmarks.peers.{peer}_peer", str(data.resolve())]
    return _run(peer, command, seconds, environ).strip().rpartition("\n")[2]


def _run(
    peer: str, command: list[str], seconds: float = INSTALL_SECONDS, environ: dict[str, str] | None = None
) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environ, check=True, cwd=ROOT
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{peer}: not done after {seconds:.0f} s") from error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip().rpartition("\n")[2]
        raise PeerError(f"{peer}: {words}") from error
    return done.stdout
