"""Rows of the table, the stages as a picture, and where it was measured."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import msgspec

from benchmarks.speed.clocks import Part
from index.search import products

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "numba", "faiss-cpu", "rocksdict", "faust-streaming", "aiokafka", "msgspec")
BAR_CHARS = 60
LETTERS = "RrsdocxyzOPQ"
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac")


def goal(wide: float, avx2: float) -> float:
    """The one for processors with AVX-512, or the one for those without (`make speed CPU=avx2`)."""
    return avx2 if products.description().endswith("AVX2") else wide


class Row(msgspec.Struct):
    """One figure. `at_least` or `at_most` is the goal, where there is one."""

    group: str
    what: str
    value: float | None  # None: it could not be measured, `note` says why
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""
    runs: list[float] = []  # of which `value` is the median

    @property
    def goal(self) -> str:
        """As people write it."""
        if self.at_least is not None:
            return f">= {number(self.at_least)}"
        return "" if self.at_most is None else f"<= {number(self.at_most)}"

    @property
    def met(self) -> bool | None:
        """None where there is no goal, or no figure."""
        if self.value is None or not self.goal:
            return None
        return self.value >= self.at_least if self.at_least is not None else self.value <= (self.at_most or 0)


def median_rows(runs: Sequence[Sequence[Row]]) -> list[Row]:
    """Runs of the same rows as one: the median of each figure, and what the last one noted."""
    rows = []
    for same in zip(*runs, strict=True):
        values = [row.value for row in same if row.value is not None]
        median = statistics.median(values) if values else None
        rows.append(msgspec.structs.replace(same[-1], value=median, runs=values))
    return rows


def number(value: float) -> str:
    """With as many digits as are read."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def heading() -> str:
    return f"{'':<11} {'':<34} {'figure':>10} {'goal':>10}      "


def line(row: Row) -> str:
    """A row of the table."""
    figure = "-" if row.value is None else number(row.value)
    mark = {True: "met", False: "not met", None: ""}[row.met]
    text = f"{row.group:<11} {row.what:<34} {figure:>10} {row.goal:>10} {mark:<7} {row.unit}"
    return f"{text.rstrip()}{f'; {row.note}' if row.note else ''}"


def picture(parts: Iterable[Part]) -> str:
    """The stages of each stretch as bars on top of each other, in microseconds of CPU an entity.

    What was left to the backlog is shared out among all entities.
    """
    bars = _bars(parts)
    stages = list(dict.fromkeys(stage for _, bar in bars for stage in bar))
    letters = dict(zip(stages, LETTERS, strict=False))
    longest = max(sum(bar.values()) for _, bar in bars)
    lines = [f"CPU by stage, us an entity; the longest bar is {longest:.0f}"]
    lines.append("  ".join(f"{letter}={stage}" for stage, letter in letters.items()))
    for name, bar in bars:
        drawn = "".join(
            letters[stage] * _chars(bar, stages, stage, longest) for stage in stages if stage in bar
        )
        lines.append(f"{name:>12} {drawn} {sum(bar.values()):.0f}")
    return "\n".join(lines)


def svg(parts: Iterable[Part]) -> str:
    """The same as an SVG page."""
    bars = _bars(parts)
    stages = list(dict.fromkeys(stage for _, bar in bars for stage in bar))
    longest = max(sum(bar.values()) for _, bar in bars)
    width, height, left = 640.0, 22, 100
    drawn = []
    for place, stage in enumerate(stages):
        at, colour = left + place * 90, COLOURS[place % len(COLOURS)]
        drawn.append(f'<rect x="{at}" y="6" width="10" height="10" fill="{colour}"/>')
        drawn.append(f'<text x="{at + 14}" y="15">{escape(stage)}</text>')
    for row, (name, bar) in enumerate(bars, start=1):
        x, y = float(left), row * height + 8
        drawn.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(name)}</text>')
        for place, stage in enumerate(stages):
            length = width * bar.get(stage, 0.0) / longest
            colour = COLOURS[place % len(COLOURS)]
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{height - 4}" fill="{colour}"/>'
            )
            x += length
        drawn.append(f'<text x="{x + 5:.1f}" y="{y + 13}">{sum(bar.values()):.0f}</text>')
    size = f'width="{left + width + 60:.0f}" height="{(len(bars) + 2) * height}"'
    title = (
        f'<text x="{left}" y="{(len(bars) + 1) * height + 18}">microseconds of CPU an entity, by stage</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        + "\n".join([*drawn, title])
        + "\n</svg>\n"
    )


def _bars(parts: Iterable[Part]) -> list[tuple[str, dict[str, float]]]:
    parts = list(parts)
    total = sum(part.entities for part in parts)
    whole: dict[str, float] = {}
    bars = []
    for part in parts:
        shared = part.entities or total
        bars.append((part.name, {stage: 1e6 * cpu / shared for stage, cpu in part.stages.items()}))
        for stage, cpu in part.stages.items():
            whole[stage] = whole.get(stage, 0.0) + 1e6 * cpu / total
    return [*bars, ("all", whole)]


def _chars(bar: dict[str, float], stages: Sequence[str], stage: str, longest: float) -> int:
    """Rounded where the stretch ends, so that a bar is as long as its sum."""
    before = sum(bar.get(name, 0.0) for name in stages[: stages.index(stage)])
    return round(BAR_CHARS * (before + bar[stage]) / longest) - round(BAR_CHARS * before / longest)


def where() -> dict[str, object]:
    """The machine, the versions and the commit."""
    return {
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": _processor(),
            "products": products.description(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load_before": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain") else ""),
    }


def _processor() -> str:
    """Linux says it in a file; elsewhere Python may know."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line), "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
