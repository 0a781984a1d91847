"""Measures, and prints the goals beside the figures.

python -m benchmarks.speed [-n N] [--only GROUP]... [-k K] [--runs R] [--json FILE] [--picture FILE.svg]

Each group of rows is measured in fresh processes, `--runs` times; the figures are medians. The model is
trained in the run, on links of other synthetic catalogues.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.speed import cells, engine, idle, record, report, retrieval, stream
from benchmarks.speed.bench import Bench
from benchmarks.speed.report import Row
from index.errors import SameasError
from index.search import products
from stream.console import start_log, tell

N = 20_000
K = 7
BATCH = 256
STORED = 23_000
RATES = (200.0, 500.0, 1000.0)
SECONDS = 15.0

GROUPS: dict[str, Callable[[Bench], list[Row]]] = {
    "engine": engine.measure,
    "bulk": engine.measure_bulk,
    "record": record.measure,
    "retrieval": retrieval.measure,
    "cells": cells.measure,
    "stream": stream.measure,
    "idle": idle.measure,
}


def main(arguments: Sequence[str]) -> int:
    """0 when everything could be measured; goals that are not met are figures, not failures."""
    start_log()
    parser = argparse.ArgumentParser("benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=N, help="entities of each of the two catalogues")
    parser.add_argument("-k", type=int, default=K, help="candidates in each view")
    parser.add_argument("--batch", type=int, default=BATCH, help="messages in a micro-batch of the engine")
    parser.add_argument("--stored", type=int, default=STORED, help="records of its type that a new one meets")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="events/s of the open loop")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="at each rate")
    parser.add_argument("--bootstrap", help="a broker instead of the embedded one")
    parser.add_argument(
        "--search", choices=("exact", "cells"), default="exact", help="how the engine looks for candidates"
    )
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group, repeatable")
    parser.add_argument("--runs", type=int, default=1, help="of each group; figures are medians")
    parser.add_argument("--json", type=Path, help="all figures with machine, versions and commit")
    parser.add_argument("--picture", type=Path, help="CPU by stage as SVG")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that measure: as `sameas` has it
    try:
        measure(options)
    except SameasError as error:
        tell(f"error: {error}")
        return 1
    return 0


def measure(options: argparse.Namespace) -> list[Row]:
    """All rows, each printed as soon as its group is done."""
    place, started = report.where(), time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sameas-speed-") as directory:
        bench = Bench(Path(directory), options)
        tell(f"{bench.entities:,} entities; a model trained in {bench.training:.0f} s")
        tell(f"int8 products by {products.description()}")
        print(report.heading(), flush=True)
        for name in options.only or GROUPS:
            group = report.median_rows([GROUPS[name](bench) for _ in range(options.runs)])
            rows += group
            print("\n".join(report.line(row) for row in group), flush=True)
        if bench.parts:
            print(report.picture(bench.parts))
        if bench.parts and options.picture:
            options.picture.write_text(report.svg(bench.parts), encoding="utf-8")
    if options.json:
        settings = {
            name: getattr(options, name)
            for name in ("n", "k", "batch", "stored", "rates", "seconds", "runs", "search")
        }
        document = {
            **place,
            "settings": settings,
            "seconds": round(time.monotonic() - started),
            "rows": [{**msgspec.to_builtins(row), "goal_met": row.met} for row in rows],
            "stages": msgspec.to_builtins(bench.parts),
        }
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
