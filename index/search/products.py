"""Exact products of int8 vectors, about as fast as the processor allows, whatever processor it is.

Every kernel adds up whole numbers, so the choice between them changes time and nothing else:

- *numkong* has one for every kind of vector instruction, and asks the processor which to take.
- *oneDNN*, which torch brings along, is three times as fast where there is AVX-512 VNNI and no AMX. torch
  offers it as a private function that is a scalar loop, 100 times slower, on all other processors; so it is
  not tried there.
- A *compiled loop* reads the rows as they are. It wins where queries are too few to pay for preparing rows.

Which of the first two takes less time is measured once, when it is first needed (`kernel`).
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numkong
import numpy as np
import torch

from index.compiled import compiled
from index.search.arrays import Int8s, Sims

Multiply = Callable[[Int8s, Sims], object]

FEW: Final = 4  # queries for which preparing the rows pays
_TRIED: Final = (64, 2048, 128)  # queries, rows and dimensions of what is timed
_TRIES: Final = 7

# What numkong calls the widest instructions that a product uses, the best first.
_LEVELS: Final = {
    "sapphireamx": "AMX",
    "icelake": "AVX-512 VNNI",
    "skylake": "AVX-512",
    "alder": "AVX-VNNI",
    "haswell": "AVX2",
    "neonsdot": "NEON with dot products",
    "neon": "NEON",
    "serial": "no vector instructions",
}


class Kernel(NamedTuple):
    """A way to multiply."""

    name: str
    prepare: Callable[
        [Int8s], Multiply
    ]  # of contiguous (n, D) rows; which writes (Q, n) products with (Q, D)


def _by_numkong(rows: Int8s) -> Multiply:
    packed = numkong.dots_pack(rows)
    return lambda queries, out: numkong.dots_packed(queries, packed, out=numkong.from_dlpack(out))


def _by_onednn(rows: Int8s) -> Multiply:
    # the caller uses every core; torch's own threads in this one would wait for each other
    torch.set_num_threads(1)
    turned = torch.from_numpy(rows).T
    return lambda queries, out: torch._int_mm(torch.from_numpy(queries), turned, out=torch.from_numpy(out))


def _by_loop(rows: Int8s) -> Multiply:
    return lambda queries, out: _one_by_one(queries, rows, out)


def prepare(rows: Int8s, queries: int) -> Multiply:
    """Prepares to multiply contiguous (n, D) rows with up to so many queries at a time.

    Returns:
        A function of (Q, D) queries, contiguous, that writes their products to (Q, n). D is at least 2.
    """
    return _by_loop(rows) if queries < FEW else kernel().prepare(rows)


@functools.cache
def kernel() -> Kernel:
    """The fastest kernel here, among those whose sums are exact."""
    queries, rows, dimensions = _TRIED
    chance = np.random.default_rng(0)
    left, right = (chance.integers(-128, 128, (n, dimensions), dtype=np.int8) for n in (queries, rows))
    exact, out = np.empty((queries, rows), np.int32), np.empty((queries, rows), np.int32)
    _one_by_one(left, right, exact)
    seconds: dict[Kernel, float] = {}
    for candidate in _kernels():
        out[:] = 0
        for _ in range(_TRIES):
            started = time.perf_counter()
            candidate.prepare(right)(left, out)
            taken = time.perf_counter() - started
            seconds[candidate] = min(taken, seconds.get(candidate, taken))
        if not np.array_equal(out, exact):
            del seconds[candidate]
    return min(seconds, key=lambda one: seconds[one], default=Kernel("a compiled loop", _by_loop))


def description() -> str:
    """For people: which kernel, and which instructions there are."""
    return f"{kernel().name}, {_level()}"


def _kernels() -> list[Kernel]:
    found = [Kernel("numkong", _by_numkong)]
    if numkong.get_capabilities().get("icelake") and torch.backends.cpu.get_cpu_capability() == "AVX512":
        found.append(Kernel("oneDNN", _by_onednn))
    return found


def _level() -> str:
    there = numkong.get_capabilities()
    return next((level for name, level in _LEVELS.items() if there.get(name)), "unknown instructions")


if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
    # What asks torch for the code of an older processor means numkong, too (`make speed CPU=avx2`).
    for _name in set(numkong.get_capabilities()) - {"serial", "haswell"}:
        numkong.disable_capability(_name)


@compiled
def _one_by_one(queries: Any, rows: Any, out: Any) -> None:
    """Writes (Q, n) products of (Q, D) queries and (n, D) rows."""
    wide = np.empty(queries.shape[1], np.int16)  # two of which the processor multiplies and adds at once
    for q in range(len(queries)):
        for d in range(len(wide)):
            wide[d] = queries[q, d]
        for r in range(len(rows)):
            total = np.int32(0)
            for d in range(len(wide)):
                # without the outer conversion Numba would add up in 64 bits, several times slower
                total = np.int32(total + np.int32(wide[d]) * np.int32(rows[r, d]))
            out[q, r] = total


@compiled
def row_products(left: Any, right: Any) -> Any:
    """(P,) the product of each row of (P, D) with the same row of the other."""
    products = np.empty(len(left), np.int32)
    for p in range(len(left)):
        total = np.int32(0)
        for d in range(left.shape[1]):
            total = np.int32(total + np.int32(left[p, d]) * np.int32(right[p, d]))  # in 32 bits, as above
        products[p] = total
    return products
