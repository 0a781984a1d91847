"""Runs other tools on the movies, and `sameas` beside them.

python -m benchmarks.peers --data DIRECTORY [--peer NAME]... [-k K] [--cache DIRECTORY] [--limit SECONDS]
    [--json FILE]

Each peer gets an environment of its own, made once under `--cache` from pinned requirements. One that cannot
be installed, or is not done in time, is told in the table.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.environments import CACHE, ToolError, environment
from benchmarks.environments import run as run_tool
from benchmarks.peers import ours
from benchmarks.peers.ours import Figures
from benchmarks.speed import report
from benchmarks.speed.report import Row
from index.errors import SameasError
from stream.console import start_log, tell
from stream.demo.measuring import percentile
from stream.errors import ConfigError

OURS = "sameas"
PEERS = (OURS, "splink", "pathway", "dedupe", "faiss")
HERE = Path(__file__).parent
LIMIT = 900.0
K = 10
TIMES_FASTER = 100.0  # than Splink with one record


def main(arguments: Sequence[str]) -> int:
    """0 when ours was measured; what a peer could not do is in the table."""
    start_log()
    parser = argparse.ArgumentParser("benchmarks.peers", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the directory with the folder `movies`")
    parser.add_argument("--peer", action="append", choices=PEERS, help="this one, repeatable")
    parser.add_argument("-k", type=int, default=K, help="our candidates in each view")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the environments are kept")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for each peer")
    parser.add_argument("--json", type=Path, help="all figures with machine, versions and commit")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        run(options)
    except SameasError as error:
        tell(f"error: {error}")
        return 1
    return 0


def run(options: argparse.Namespace) -> list[Row]:
    """All rows, each peer's as soon as it is known."""
    if not (options.data / "movies").is_dir():
        raise ConfigError(f"{options.data / 'movies'} is not there; DATA=DIRECTORY names where the data are")
    place = report.where()
    known: dict[str, Figures] = {}
    rows: list[Row] = []
    print(report.heading(), flush=True)
    for name in options.peer or PEERS:
        try:
            tell(f"{name} ...")
            known[name] = measured(name, options)
            some = rows_of(name, known[name])
        except SameasError as error:
            if name == OURS:
                raise
            some = [Row(name, "all", None, "", note=str(error))]
        rows += some
        print("\n".join(report.line(row) for row in some), flush=True)
    ratios = compared(known)
    print("\n".join(report.line(row) for row in ratios), flush=True)
    if options.json:
        document = {
            **place,
            "requirements": {name: pins(name) for name in known if name != OURS},
            "rows": [{**msgspec.to_builtins(row), "goal_met": row.met} for row in [*rows, *ratios]],
            "figures": known,
        }
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return [*rows, *ratios]


def measured(name: str, options: argparse.Namespace) -> Figures:
    """What ours or a peer did."""
    if name == OURS:
        return ours.measure(options.data, options.k)
    python = environment(HERE / f"{name}.txt", options.cache)
    command = ["-m", f"benchmarks.peers.{name}_peer", str(options.data.resolve())]
    said = run_tool(name, python, command, options.limit)
    try:
        return msgspec.json.decode(said, type=Figures)
    except msgspec.MsgspecError as error:
        raise ToolError(f"{name} said {said!r:.100} instead of its figures") from error


def pins(name: str) -> list[str]:
    """The packages of a peer's environment."""
    return (HERE / f"{name}.txt").read_text().split()


def rows_of(name: str, figures: Figures) -> list[Row]:
    """A peer's part of the table."""
    most = 2.0 if name == OURS else None
    hits = f"the best match is the linked one for {figures.single_hits:.0%}, {len(figures.single_ms)} timed"
    return [
        Row(name, "batch", figures.records / figures.batch_seconds, "records/s", note=figures.note),
        Row(name, "F1 on the test links", figures.f1, ""),
        Row(name, "one record, median", _percentile(figures, 0.5), "ms", at_most=most, note=hits),
        Row(name, "one record, p90", _percentile(figures, 0.9), "ms"),
    ]


def compared(known: dict[str, Figures]) -> list[Row]:
    """Ours over each peer's; the goals are against Splink."""
    if OURS not in known:
        return []
    rows, own = [], known[OURS]
    for name, peer in known.items():
        if name == OURS:
            continue
        is_goal = name == "splink"
        rate = (own.records / own.batch_seconds) / (peer.records / peer.batch_seconds)
        median = _percentile(peer, 0.5)
        single = None if median is None else median / percentile(own.single_ms, 0.5)
        group = f"over {name}"
        rows += [
            Row(group, "batch, records/s", rate, "times", at_least=1.0 if is_goal else None),
            Row(group, "F1", _difference(own.f1, peer.f1), "more", at_least=0.0 if is_goal else None),
            Row(group, "one record, faster", single, "times", at_least=TIMES_FASTER if is_goal else None),
        ]
    return rows


def _percentile(figures: Figures, share: float) -> float | None:
    return percentile(figures.single_ms, share) if figures.single_ms else None


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
