"""`stream`, `model` and `index` are common words: they have to be this checkout's."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("package", ["stream", "model", "index"])
def test_imports_resolve_to_this_checkout(package: str) -> None:
    module = importlib.import_module(package)
    assert [Path(path).resolve() for path in module.__path__] == [ROOT / package]
