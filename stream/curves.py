"""Precision-recall and calibration curves as one HTML page that opens offline: inline SVG, no script."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model.evaluation import Quality, ScoredPairs, precision_recall
from stream.errors import ConfigError

SIZE: Final = 320  # of a plot, in pixels
MARGIN: Final = 45
MOST_POINTS: Final = 400  # of a curve
_STYLE: Final = """
body { font: 15px sans-serif; margin: 2em; color: #222 } figure { display: inline-block; margin: 1em }
table { border-collapse: collapse } td, th { padding: .15em .8em; text-align: right; font-weight: normal }
svg text { font-size: 12px; fill: #555 } .axis { stroke: #999; fill: none } .even { stroke: #ccc }
.curve { stroke: #1f5fa8; stroke-width: 2; fill: none } .point { fill: #1f5fa8; fill-opacity: .7 }
"""

Point = tuple[float, float]


def write_page(path: Path, title: str, pairs: ScoredPairs, quality: Quality) -> None:
    """Writes the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    figures = {name: value for name, value in quality.to_json().items() if name != "calibration"}
    texts = {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in figures.items()}
    rows = "".join(
        f"<tr><th>{name.replace('_', ' ')}</th><td>{text}</td></tr>" for name, text in texts.items()
    )
    page = (
        f"<!DOCTYPE html>\n<html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style>\n<h1>{html.escape(title)}</h1>\n<table>{rows}</table>\n"
        f"{precision_recall_figure(pairs, quality)}\n{calibration_figure(quality)}\n</html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def precision_recall_figure(pairs: ScoredPairs, quality: Quality) -> str:
    """The curve of all thresholds, and the point of the decision."""
    precision, recall, _ = precision_recall(pairs)
    kept = (
        np.unique(np.linspace(0, len(recall) - 1, MOST_POINTS).astype(int)) if len(recall) else np.arange(0)
    )
    curve = [*zip(recall[kept].tolist(), precision[kept].tolist(), strict=True)]
    decision = _circle((quality.recall, quality.precision), 5, f"threshold {quality.threshold:.3f}")
    return _figure("Precision and recall", "recall", "precision", [_line("curve", curve), decision])


def calibration_figure(quality: Quality) -> str:
    """Mean score and share of links of ten steps of score; the more pairs, the larger the point."""
    points = [(row.score, row.links) for row in quality.calibration]
    circles = [
        _circle(point, 2 + np.log10(row.pairs), f"{row.pairs:,} pairs")
        for point, row in zip(points, quality.calibration, strict=True)
    ]
    parts = [_line("even", [(0, 0), (1, 1)]), _line("curve", points), *circles]
    return _figure("Calibration", "mean score", "share of links", parts)


def _figure(title: str, across: str, up: str, parts: Iterable[str]) -> str:
    ticks = "".join(
        f"<text x='{x:.0f}' y='{SIZE - MARGIN + 16}' text-anchor='middle'>{value}</text>"
        f"<text x='{MARGIN - 6}' y='{y + 4:.0f}' text-anchor='end'>{value}</text>"
        for value in (0, 0.5, 1)
        for x, y in [_place((value, value))]
    )
    low, high = _place((0, 0)), _place((1, 1))
    return (
        f"<figure><figcaption>{title}</figcaption><svg width='{SIZE}' height='{SIZE}' role='img' "
        f"aria-label='{title}'><path class='axis' d='M{low[0]} {high[1]}V{low[1]}H{high[0]}'/>{ticks}"
        f"<text x='{SIZE / 2:.0f}' y='{SIZE - 8}' text-anchor='middle'>{across}</text>"
        f"<text y='12' x='-{SIZE / 2:.0f}' text-anchor='middle' transform='rotate(-90)'>{up}</text>"
        f"{''.join(parts)}</svg></figure>"
    )


def _line(kind: str, points: Sequence[Point]) -> str:
    path = " ".join("{:.1f},{:.1f}".format(*_place(point)) for point in points)
    return f"<polyline class='{kind}' points='{path}'/>"


def _circle(point: Point, radius: float, title: str) -> str:
    x, y = _place(point)
    return f"<circle class='point' cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}'><title>{title}</title></circle>"


def _place(point: Point) -> Point:
    inside = SIZE - 2 * MARGIN
    return MARGIN + point[0] * inside, SIZE - MARGIN - point[1] * inside
