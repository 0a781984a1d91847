"""`sameas explain`: why a pair is aligned or not, on the command line."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from index.errors import StateError
from stream.commands.options import configured, in_state
from stream.config import Configuration, Settings
from stream.console import compared, put, put_json, shown, tell
from stream.events import split_curie

if TYPE_CHECKING:
    from stream.engine.explaining import Explanation


@click.command()
@configured
@click.argument("entity", metavar="CURIE")
@click.argument("other", metavar="[CURIE]", required=False)
@click.option("--state", type=click.Path(path_type=Path), help="State directory: state.dir")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines also on a terminal")
def explain(
    configuration: Configuration, entity: str, other: str | None, state: Path | None, as_json: bool
) -> None:
    """Say why two entities are aligned, or why not; for one entity, of each of its candidates.

    It reads a worker's state directory, also while the worker runs, and needs as much memory as the worker.
    Where no worker has run it reads what `sameas align` left.
    """
    from stream.engine.explaining import check_pair
    from stream.learning.alignment import left_at
    from stream.mapping.canonical import decode_canonical
    from stream.state.generations import Generations

    if other is None:  # an error comes now, not after loading
        split_curie(entity)
    else:
        check_pair(entity, other)
    settings = configuration.settings
    settings = in_state(settings, state) if state else _settings_of_what_is_there(settings)
    try:
        aligner = Generations(settings, decode_canonical).look()  # which decodes no message
    except StateError as error:
        if left_at(settings.state.dir) is None:
            raise
        raise StateError(f"{error}; or run `sameas align` again, which left this one") from error
    try:
        explanations = aligner.explain(entity, other)
    finally:
        aligner.close()
    if not explanations:
        tell(f"{entity} has no candidates: no other source has an entity like it, or it waits")
    for explanation in explanations:
        if as_json or not sys.stdout.isatty():
            put_json(msgspec.json.encode(explanation).decode())
        else:
            for line in _lines(explanation):
                put(line)


def _settings_of_what_is_there(settings: Settings) -> Settings:
    """The settings with the state to read, a worker's before that of `sameas align`. Raises StateError."""
    from stream.learning.alignment import kept_in, left_at
    from stream.state.generations import read_current

    worker, kept = settings.state.dir, kept_in(settings)
    is_left = left_at(kept)
    if read_current(worker) is not None:
        if is_left:
            tell(f"from the worker's state, {worker}; `--state {kept}` is what `sameas align` left {is_left}")
        return settings
    if is_left is None:
        raise StateError(
            f"no state to read: a worker leaves one in {worker}, and `sameas align` in {kept}; "
            "name another with --state"
        )
    tell(f"from {kept}, as `sameas align` left it {is_left}")
    return in_state(settings, kept)


def _lines(told: "Explanation") -> Iterator[str]:
    score = "no score" if told.score is None else f"score {told.score:.3f}, threshold {told.threshold:.3f}"
    yield f"{_called(told, told.subject_id)} ~ {_called(told, told.object_id)}: {_outcome(told)} ({score})"
    if told.score is not None and not told.calibrated:
        yield "  training had no links of this type: the score ranks pairs, and is no probability"
    if told.waits:
        yield "  one of the two waits for its evaluation"
    for name, view in told.views.items():
        ranks = f"{_rank(view.object_rank)} of subject's, {_rank(view.subject_rank)} of object's"
        yield f"  {name:<14}  similarity {view.similarity:.3f}, nearest: {ranks}"
    for seen in told.evidence.attributes:
        values = shown(seen.subject_value), shown(seen.object_value)
        pair = compared(seen.subject_attribute, values[0], seen.object_attribute, values[1])
        yield f"  {seen.weight:.2f}  {pair}"
    for near in told.evidence.neighbours:
        names = _called(told, near.subject_neighbour), _called(told, near.object_neighbour)
        pair = compared(near.subject_relation, names[0], near.object_relation, names[1])
        yield f"  {near.weight:.2f}  {pair}"


def _called(told: "Explanation", entity: str) -> str:
    """An entity by its CURIE and its name, unless the one ends with the other: `imdb:person/Ridley Scott`."""
    name = told.names.get(entity)
    return entity if name is None or entity.endswith(f"/{name}") else f"{entity} ({shown(name)})"


def _outcome(told: "Explanation") -> str:
    rivals = [
        f"{name} is aligned with {', '.join(_called(told, partner) for partner in partners)}"
        for name, partners in (
            (told.subject_id, told.subject_aligned_with),
            (told.object_id, told.object_aligned_with),
        )
        if partners
    ]
    said = {
        "aligned": "aligned",
        "declared-different": "not aligned, a person says so",
        "better-partner": f"not aligned, as {' and '.join(rivals)}",
        "types-differ": f"not aligned, one is a {shown(told.subject_category)}, "
        f"one a {shown(told.object_category)}",
        "not-a-candidate": "not aligned, neither is among the other's nearest",
        "below-threshold": "not aligned, the score is too low",
        "waiting": "not aligned yet",
    }[told.outcome]
    if told.verdict != "same":
        return said
    return f"{said}, a person says so" if told.outcome == "aligned" else f"{said}; a person says the same"


def _rank(rank: int) -> str:
    return f"number {rank}" if rank else "not"
