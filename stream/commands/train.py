"""`sameas train`: a model from catalogues, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stream.commands.options import catalogued
from stream.config import Settings
from stream.console import progress, put_json, tell
from stream.engine.interface import MAX_CANDIDATES
from stream.events import EntityEvent
from stream.interrupts import Interrupted

if TYPE_CHECKING:
    from stream.catalogue.account import Account


@click.command()
@catalogued
@click.option("--links", type=click.Path(path_type=Path), help="Known links: a table left,right")
@click.option("--no-links", is_flag=True, help="Learn from the catalogues alone")
@click.option(
    "--valid", type=click.Path(path_type=Path), help="Links for early stopping and the threshold [a fifth]"
)
@click.option("-k", type=click.IntRange(1, MAX_CANDIDATES), default=None, help="Candidates in each view [10]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
def train(
    settings: Settings,
    read: Callable[[], list[EntityEvent]],
    account: "Account",
    model: Path,
    links: Path | None,
    no_links: bool,
    valid: Path | None,
    k: int | None,
    seed: int,
) -> None:
    """Learn a model from catalogue FILES (canonical .jsonl, or those of the mapping) and known links."""
    from model.training import Epoch, TrainingOptions
    from stream.learning.known_links import read_links
    from stream.learning.self_training import train_without_links
    from stream.learning.training import K, check_writable, train_model, weakness

    if (links is None) != no_links or (no_links and valid):
        raise click.UsageError("give either --links FILE (and --valid FILE, if there is one), or --no-links")
    check_writable("--model", model)
    files = [read_links(path) for path in (links, valid) if path is not None]
    events = read()
    for file in files:
        account.count_links(file.path.name, file.numbered())
    account.check()
    epochs = 0
    with progress() as show:

        def epoch(done: Epoch) -> None:
            nonlocal epochs
            epochs += 1
            show(f"epoch {done.number} of {done.most}, loss {done.loss:.4f}, PRAUC on valid {done.prauc:.4f}")

        options, k = TrainingOptions(seed=seed), K if k is None else k
        try:
            show("retrieving candidates")
            if not files:
                trained = train_without_links(events, model, k=k, options=options, progress=epoch)
            else:
                known, *more = (file.links for file in files)
                held_out = more[0] if more else None
                trained = train_model(
                    events, known, model, valid=held_out, k=k, options=options, progress=epoch
                )
        except Interrupted as end:
            lost = f", and what {epochs} epochs have taught is lost" if epochs else ""
            end.add_note(f"no model is written into {model}{lost}")
            raise
    tell(
        f"model {trained.id} in {model}: {trained.training_links:,} links, "
        f"{trained.valid_links:,} more to choose the threshold, {trained.report['seconds']:.0f} s"
    )
    put_json(json.dumps({"model": trained.id, "links": trained.training_links, **trained.report}))
    account.call_weak(weakness(trained.report))
