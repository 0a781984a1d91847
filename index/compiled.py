"""Compiled loops: how they are compiled, where they are kept, and what is said of it.

A loop is compiled when it is first called and kept on disk for the next process: beside its source, in the
user's cache directory where that cannot be written, or in `NUMBA_CACHE_DIR`. Where none of them can be
written it is compiled in every process. What is kept is valid for one kind of processor and one text of the
source.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from numba import njit
from numba.core import event

F = TypeVar("F", bound=Callable[..., Any])

AGAIN_SECONDS: Final = 5.0  # between two lines about compiling

_log: Final = logging.getLogger("sameas")
_OURS: Final = ("index.", "model.", "stream.")


@overload
def compiled(function: F) -> F: ...
@overload
def compiled(**options: Any) -> Callable[[F], F]: ...
def compiled(function: F | None = None, **options: Any) -> F | Callable[[F], F]:
    """A decorator: compiled without Python, releases Python's lock, kept on disk.

    Args:
        options: Numba's own.
    """

    def compile_later(loop: F) -> F:
        try:
            lazy: F = njit(cache=True, nogil=True, **options)(loop)
        except RuntimeError:  # Numba found no place to keep it
            lazy = njit(nogil=True, **options)(loop)
        return lazy

    return compile_later if function is None else compile_later(function)


class _Teller(event.Listener):
    """Says that loops are compiled, and how far that is: at the first start it takes most of a minute."""

    def __init__(self) -> None:
        self._depth = 0  # of ours, one of which may need another one
        self._done = 0
        self.said = -math.inf

    def on_start(self, started: Any) -> None:
        self._depth += self._is_ours(started)
        now = time.monotonic()
        if self._depth == 1 and self._is_ours(started) and now - self.said >= AGAIN_SECONDS:
            done = f": {self._done} loops are done" if self._done else ""
            _log.info("compiling for this processor, once%s", done)
            self.said = now

    def on_end(self, ended: Any) -> None:
        self._depth -= self._is_ours(ended)
        self._done += self._is_ours(ended)

    @staticmethod
    def _is_ours(compiling: Any) -> bool:
        return str(compiling.data["dispatcher"].py_func.__module__).startswith(_OURS)


_teller: Final = _Teller()
event.register("numba:compile", _teller)  # type: ignore[no-untyped-call]
