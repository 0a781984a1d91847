"""`sameas evaluate`: how good a model is, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.commands.options import catalogued
from stream.config import Settings
from stream.console import put, put_json, shown
from stream.events import EntityEvent

if TYPE_CHECKING:
    from stream.catalogue.account import Account
    from stream.learning.evaluation import Evaluation


@click.command()
@catalogued
@click.option(
    "--links", type=click.Path(path_type=Path), required=True, help="Known links: a table left,right"
)
@click.option("--one-to-one/--many-to-many", default=None, help="How pairs are decided: align.one_to_one")
@click.option(
    "--alone",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Leave out the right entity of this share of the links: is it seen that some have no partner?",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an HTML page with the precision-recall and calibration curves",
)
def evaluate(
    settings: Settings,
    read: Callable[[], list[EntityEvent]],
    account: "Account",
    model: Path,
    links: Path,
    one_to_one: bool | None,
    alone: float,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure a model on catalogue FILES against known links, for the links' left entities."""
    from stream.engine.parts import usable_model
    from stream.learning.evaluation import evaluate_model
    from stream.learning.known_links import read_links
    from stream.pages.curves import write_page

    if plot is not None and plot.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter("an .html file is written", param_hint="--plot")
    known = read_links(links)
    usable_model(model)
    events = read()
    account.count_links(links.name, known.numbered())
    account.check()
    evaluation = evaluate_model(
        events,
        known.links,
        model,
        one_to_one=settings.align.one_to_one if one_to_one is None else one_to_one,
        threshold=settings.model.threshold,
        alone=alone,
    )
    if plot is not None:
        write_page(plot, f"{model} on {links.name}", evaluation.pairs, evaluation.quality)
    if as_json:
        put_json(json.dumps(evaluation.to_json()))
    else:
        _print(evaluation)


def _print(evaluation: "Evaluation") -> None:
    quality = evaluation.quality
    for name, value in evaluation.to_json().items():
        if name not in ("calibration", "types"):
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            put(f"{name.replace('_', ' '):<24} {text:>8}")
    if len(evaluation.types) > 1:
        put()
        put(
            f"{'type':<17}  {'links':>9}  {'retrieved':>10}  {'PRAUC':>6}  {'precision':>9}  {'recall':>6}"
            f"  {'F1':>6}"
        )
        for kind, part in evaluation.types.items():
            put(
                f"{shown(kind):<17}  {part.links:>9,}  {part.retrieval_recall:>10.3f}  {part.prauc:>6.3f}  "
                f"{part.precision:>9.3f}  {part.recall:>6.3f}  {part.f1:>6.3f}"
            )
    put()
    put(f"{'calibration':<17}  {'pairs':>9}  {'mean score':>10}  {'links':>6}")
    for row in quality.calibration:
        score = f"score {row.low:.1f} to {row.high:.1f}"
        put(f"{score:<17}  {row.pairs:>9,}  {row.score:>10.3f}  {row.links:>6.3f}")
