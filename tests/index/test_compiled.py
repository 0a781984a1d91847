"""Where compiled loops are kept, and what is said about compiling."""

import logging
import math
from typing import Any

import pytest
from numba.core import caching

from index.compiled import _teller, compiled


def double(number: Any) -> Any:
    return 2 * number


def triple(number: Any) -> Any:
    return 3 * number


@pytest.fixture
def no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written, so that a loop is compiled in every run of these tests."""

    def refuse(self: object) -> None:
        raise PermissionError

    for locator in caching.CacheImpl._locator_classes:
        monkeypatch.setattr(locator, "ensure_cache_path", refuse)


@pytest.mark.usefixtures("no_place")
def test_without_a_place_to_write_loops_are_compiled_and_not_kept() -> None:
    assert compiled(double)(4) == 8


@pytest.mark.usefixtures("no_place")
def test_compiling_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_teller, "said", -math.inf)
    triple.__module__ = "index.made_up"
    with caplog.at_level(logging.INFO, logger="sameas"):
        assert compiled(triple)(2) == 6
    assert "compiling for this processor, once" in caplog.text
