"""`sameas model`: which model is in force, and putting another one in force, also while a worker runs."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from index.errors import StateError
from stream.atomic import read, write
from stream.commands.group import Commands
from stream.commands.options import configured
from stream.config import Configuration
from stream.console import progress, put, put_json, tell
from stream.interrupts import Interrupted

if TYPE_CHECKING:
    from stream.engine.recipe import Recipe
    from stream.state.wishes import BuildProgress

POLL_SECONDS = 0.5
ATTEMPTS = 4  # to read a file that the worker may be replacing


@click.group(cls=Commands)
def model() -> None:
    """Show the model in force, or put another one in its place."""


def with_state(function: Any) -> Any:
    """Adds the options that name the state directory."""
    option = click.option("--state", type=click.Path(path_type=Path), help="State directory: state.dir")
    return configured(option(function))


@model.command()
@with_state
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--no-wait", is_flag=True, help="Do not wait until it is in force")
@click.option(
    "--max-withdrawn",
    type=click.FloatRange(0, 1),
    help="The share of all alignments that it may withdraw: the worker's promotion.max_withdrawn",
)
def promote(
    configuration: Configuration,
    state: Path | None,
    directory: Path,
    no_wait: bool,
    max_withdrawn: float | None,
) -> None:
    """Put the model in DIR in force. The worker builds with it beside the old one, then switches at once.

    A model that would withdraw too much leaves the old one in force. Rollback is the same command with the
    old directory. Ctrl-C ends the waiting only.
    """
    from stream.state.generations import is_held, keep_model, read_current
    from stream.state.wishes import Promotion

    state = state or configuration.settings.state.dir
    if read_current(state) is None:
        raise StateError(f"state directory {state}: no worker has run with it yet; give its --state")
    model_id = keep_model(state, directory)
    asked = time.time()
    write(state / "promotion.json", Promotion(model_id, asked, max_withdrawn=max_withdrawn))
    keep_model(state, directory)  # should the worker have cleaned up in between
    if _in_force(state).model == model_id:
        tell(f"model {model_id} is in force")
        return
    if not is_held(state):
        tell(f"model {model_id} is wanted; no worker runs with {state} now, the next one builds it")
        return
    tell(f"model {model_id} is wanted; {_in_force(state)} stays in force until it is built")
    if no_wait:
        return
    try:
        with progress() as show:
            while _in_force(state).model != model_id:
                done = _progress(state)
                if done is not None and done.wish.asked == asked:
                    if done.stage == "failed":
                        raise StateError(f"model {model_id} was not put in force: {done.error}")
                    show(f"{done.stage}: {done.waiting:,} entities and {done.pairs:,} pairs wait")
                if not is_held(state):
                    raise StateError(
                        f"the worker with {state} ended; the next one continues to build {model_id}"
                    )
                time.sleep(POLL_SECONDS)
    except Interrupted as end:
        end.add_note("the worker builds the model all the same; `sameas model status` says how far it is")
        raise
    tell(f"in force: {_in_force(state)}")


@model.command()
@with_state
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
def status(configuration: Configuration, state: Path | None, as_json: bool) -> None:
    """Print which model is in force, and the progress of the next one."""
    import msgspec

    from stream.state.generations import is_held, read_current
    from stream.state.wishes import Promotion

    state = state or configuration.settings.state.dir
    current = read_current(state)
    promotion = read(state / "promotion.json", Promotion)
    done = _progress(state)
    told = {
        "state": str(state),
        "worker": is_held(state),
        "generation": current,
        "in_force": None if current is None else msgspec.to_builtins(_in_force(state)),
        "promoted": None if promotion is None else promotion.model,
        "progress": None if done is None else msgspec.to_builtins(done),
    }
    if as_json:
        put_json(json.dumps(told))
        return
    put(f"state       {state}, {'a worker runs' if told['worker'] else 'no worker runs'}")
    put(f"in force    {'nothing yet' if current is None else f'{_in_force(state)} ({current})'}")
    if promotion is not None:
        put(f"promoted    model {promotion.model}")
    if done is not None:
        detail = done.error or f"{done.waiting:,} entities and {done.pairs:,} pairs wait"
        put(
            f"last build  {done.wish.recipe}: {done.stage}"
            + ("" if done.stage == "in force" else f", {detail}")
        )


def _in_force(state: Path) -> "Recipe":
    from stream.engine.recipe import Recipe
    from stream.state.generations import read_current

    for _ in range(ATTEMPTS):
        name = read_current(state)
        recipe = None if name is None else read(state / name / "recipe.json", Recipe)
        if recipe is not None:
            return recipe
        time.sleep(POLL_SECONDS)  # the worker switched and cleaned up between two of these reads
    raise StateError(f"state directory {state}: nothing is in force; has a worker run with it?")


def _progress(state: Path) -> "BuildProgress | None":
    from stream.state.wishes import BuildProgress

    return read(state / "progress.json", BuildProgress)
