"""Precision-recall and calibration curves, and an evaluation as one HTML page that opens offline."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model.evaluation import Quality, ScoredPairs, precision_recall
from stream.atomic import replace
from stream.errors import ConfigError
from stream.pages.page import XY, Series, chart, page, table

MOST_POINTS: Final = 400  # of a curve


def write_page(path: Path, title: str, pairs: ScoredPairs, quality: Quality) -> None:
    """Writes the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    figures = {name: value for name, value in quality.to_json().items() if name != "calibration"}
    rows = [
        (name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value)
        for name, value in figures.items()
    ]
    charts = quality_charts(
        [(recall, precision) for precision, recall, _ in curve(pairs)],
        [(row.score, row.links, row.pairs) for row in quality.calibration],
        (quality.recall, quality.precision),
    )
    try:
        replace(path, page(title, table([], rows, 1) + charts).encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def curve(pairs: ScoredPairs) -> list[tuple[float, float, float]]:
    """Precision, recall and score by falling score, at most `MOST_POINTS` of them."""
    columns = precision_recall(pairs)
    last = len(columns[0]) - 1
    shown = np.unique(np.linspace(0, max(last, 0), min(MOST_POINTS, last + 1)).astype(int))
    return [*zip(*(column[shown].tolist() for column in columns), strict=True)]


def quality_charts(
    recall_precision: Sequence[XY], calibration: Sequence[tuple[float, float, int]], decision: XY
) -> str:
    """The two charts side by side.

    Args:
        recall_precision: the curve of all thresholds.
        calibration: of each step of score the mean score, the share of links and the number of pairs.
        decision: recall and precision at the threshold.
    """
    curves = [Series("all thresholds", recall_precision), Series("the decision", [decision], [5.0])]
    steps = Series(
        "steps of score",
        [(score, links) for score, links, _ in calibration],
        [2 + math.log10(pairs) for *_, pairs in calibration],
    )
    ideal = Series("ideal", [(0, 0), (1, 1)], dashed=True)
    return (
        '<div class="charts">'
        + chart("Precision and recall", "recall", "precision", curves)
        + chart("Calibration", "mean score", "share of links", [steps, ideal])
        + "</div>"
    )
