"""The commands that read catalogue files without a broker: `train`, `align`, `evaluate`."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stream.commands.options import configured
from stream.config import Configuration, Settings
from stream.errors import ConfigError

if TYPE_CHECKING:
    from stream.learning.evaluation import Evaluation


def catalogued(function: Callable[..., None]) -> Callable[..., None]:
    """Adds what the commands without a broker read: files, and the model."""

    @configured
    @click.argument("files", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
    @functools.wraps(function)
    def command(
        configuration: Configuration, files: tuple[Path, ...], model: Path | None, **rest: Any
    ) -> None:
        from stream.catalogue.reading import accepted, read_files
        from stream.console import tell

        settings = configuration.settings
        sources = (
            [None] if files else [name for name, mapping in settings.sources.items() if mapping.all_files()]
        )
        if not sources:
            raise ConfigError("nothing to read: name canonical .jsonl files, or give [sources.NAME] a file")
        events = [
            event
            for source in sources
            for event in accepted(
                read_files(settings, files, source), lambda error: tell(f"refused: {error}"), strict=False
            )
        ]
        tell(f"{len(events):,} entity events read")
        function(settings=settings, events=events, model=model or settings.model.dir, **rest)

    return command


@click.command()
@catalogued
@click.option("--links", type=click.Path(path_type=Path), help="CSV of known links: left,right")
@click.option("--no-links", is_flag=True, help="Learn from the catalogues alone")
@click.option(
    "--valid", type=click.Path(path_type=Path), help="Links for early stopping and the threshold [a fifth]"
)
@click.option("-k", type=click.IntRange(1, 100), default=None, help="Candidates in each view [10]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
def train(
    settings: Settings,
    events: list[Any],
    model: Path,
    links: Path | None,
    no_links: bool,
    valid: Path | None,
    k: int | None,
    seed: int,
) -> None:
    """Learn a model from catalogue FILES (canonical .jsonl, or those of the mapping) and known links."""
    from model.training import Epoch, TrainingOptions
    from stream.console import progress, tell
    from stream.learning.known_links import read_links
    from stream.learning.self_training import train_without_links
    from stream.learning.training import K, check_writable, train_model

    if (links is None) != no_links or (no_links and valid):
        raise click.UsageError("give either --links FILE (and --valid FILE, if there is one), or --no-links")
    check_writable("--model", model)
    with progress() as show:
        show("retrieving candidates")

        def epoch(done: Epoch) -> None:
            show(f"epoch {done.number} of {done.most}, loss {done.loss:.4f}, PRAUC on valid {done.prauc:.4f}")

        options, k = TrainingOptions(seed=seed), K if k is None else k
        if links is None:
            trained = train_without_links(events, model, k=k, options=options, progress=epoch)
        else:
            known = None if valid is None else read_links(valid)
            trained = train_model(
                events, read_links(links), model, valid=known, k=k, options=options, progress=epoch
            )
    tell(
        f"model {trained.id} in {model}: {trained.training_links:,} links, "
        f"{trained.valid_links:,} more to choose the threshold, {trained.report['seconds']:.0f} s"
    )
    print(json.dumps({"model": trained.id, "links": trained.training_links, **trained.report}))


@click.command()
@catalogued
def align(settings: Settings, events: list[Any], model: Path) -> None:
    """Align catalogue FILES without a broker; alignment records as JSON Lines on stdout."""
    from stream.console import counting
    from stream.learning.alignment import align as align_files

    with counting("aligning", "events") as progress:
        records = align_files(
            events,
            model,
            one_to_one=settings.align.one_to_one,
            threshold=settings.model.threshold,
            search=settings.align.search_at_once,
            progress=progress,
        )
    for record in records:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")


@click.command()
@catalogued
@click.option(
    "--links", type=click.Path(path_type=Path), required=True, help="CSV of known links: left,right"
)
@click.option("--one-to-one/--many-to-many", default=None, help="How pairs are decided: align.one_to_one")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write an HTML page with the precision-recall and calibration curves",
)
def evaluate(
    settings: Settings,
    events: list[Any],
    model: Path,
    links: Path,
    one_to_one: bool | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure a model on catalogue FILES against known links, for the links' left entities."""
    from stream.learning.evaluation import evaluate_model
    from stream.learning.known_links import read_links
    from stream.pages.curves import write_page

    if plot is not None and plot.suffix.lower() not in (".html", ".htm"):
        raise click.BadParameter("an .html file is written", param_hint="--plot")
    evaluation = evaluate_model(
        events,
        read_links(links),
        model,
        one_to_one=settings.align.one_to_one if one_to_one is None else one_to_one,
        threshold=settings.model.threshold,
    )
    if plot is not None:
        write_page(plot, f"{model} on {links.name}", evaluation.pairs, evaluation.quality)
    if as_json:
        print(json.dumps(evaluation.to_json()))
    else:
        _print(evaluation)


def _print(evaluation: "Evaluation") -> None:
    quality = evaluation.quality
    for name, value in quality.to_json().items():
        if name != "calibration":
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            print(f"{name.replace('_', ' '):<24} {text:>8}")
    if len(evaluation.types) > 1:
        print(
            f"\n{'type':<17}  {'links':>9}  {'retrieved':>10}  {'PRAUC':>6}  {'precision':>9}  {'recall':>6}"
            f"  {'F1':>6}"
        )
        for kind, part in evaluation.types.items():
            print(
                f"{kind:<17}  {part.links:>9,}  {part.retrieval_recall:>10.3f}  {part.prauc:>6.3f}  "
                f"{part.precision:>9.3f}  {part.recall:>6.3f}  {part.f1:>6.3f}"
            )
    print(f"\n{'calibration':<17}  {'pairs':>9}  {'mean score':>10}  {'links':>6}")
    for row in quality.calibration:
        score = f"score {row.low:.1f} to {row.high:.1f}"
        print(f"{score:<17}  {row.pairs:>9,}  {row.score:>10.3f}  {row.links:>6.3f}")
