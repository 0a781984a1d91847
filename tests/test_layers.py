"""Imports go one way: `index` <- `model` <- `stream`, and between their rooms as pyproject.toml lists
them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {"faust", "mode", "kafka", "aiokafka", "stream.config"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_no_import_goes_up_or_round() -> None:
    result = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_engine_needs_neither_faust_nor_kafka_nor_settings() -> None:
    rooms = ROOT / "stream" / "engine"
    modules = [f"stream.engine.{path.stem}" for path in rooms.glob("*.py") if path.stem != "__init__"]
    result = run(sys.executable, "-c", f"import sys, {', '.join(modules)}; print(*sys.modules)")
    assert result.returncode == 0, result.stderr
    assert not OUTSIDE & set(result.stdout.split())


def test_every_folder_of_code_is_a_package() -> None:
    """Else its modules would be missing from the wheel."""
    code = [path for name in ("index", "model", "stream") for path in (ROOT / name).rglob("*.py")]
    assert [path.parent for path in code if not (path.parent / "__init__.py").exists()] == []
