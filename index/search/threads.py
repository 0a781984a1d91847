"""Compiled loops on every core: they release Python's lock.

What a part computes depends on its own share alone, so it is the same on any number of cores.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_pool: Final = ThreadPoolExecutor(CORES, "core")


def start(work: Callable[[], T]) -> "Future[T]":
    """Starts `work` beside what the caller does next; it must change nothing that others read."""
    return _pool.submit(work)


def spread(work: Callable[[slice], T], count: int, least: int) -> list[T]:
    """What `work` returns for slices of range(count), in order; it must change nothing that others read.

    Args:
        least: the fewest that are worth a thread of their own.
    """
    parts = max(1, min(CORES, count // least))
    if parts == 1:
        return [work(slice(0, count))]
    ends = [count * part // parts for part in range(parts + 1)]
    return list(_pool.map(work, map(slice, ends, ends[1:])))
