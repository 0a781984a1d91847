"""`sameas erase`: an entity that is to be forgotten."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from stream.commands.options import connected
from stream.config import Configuration, Settings
from stream.console import put_json, tell
from stream.events import split_curie

if TYPE_CHECKING:
    from stream.consuming.erasing import Found

SHOWN = 5  # names in a line


@click.command()
@connected
@click.argument("entity", metavar="CURIE")
@click.option("--execute", is_flag=True, help="Erase it; without it only a plan is printed")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
def erase(configuration: Configuration, entity: str, execute: bool, as_json: bool) -> None:
    """Erase an entity from topics and state, and list where else it stands.

    An entity that comes from a database is to be deleted there first.
    """
    from stream.broker.producing import produce
    from stream.broker.topics import ensure_topics, to_erase
    from stream.consuming.erasing import canonical_topic, find, forget_former_values

    settings = configuration.settings
    ensure_topics(settings, to_erase(settings, canonical_topic(settings, split_curie(entity)[0])))
    found = find(settings, entity)
    if execute:
        produce(settings, found.tombstones)
    obstacle = forget_former_values(settings.state.dir, entity) if execute else None
    left = [*_left(settings, entity, found, obstacle)]
    if as_json:
        shown = {"entity": entity, "executed": execute, **msgspec.to_builtins(found), "left": left}
        shown["tombstones"] = [record.topic for record in found.tombstones]
        put_json(msgspec.json.encode(shown).decode())
        return
    verb = "sent" if execute else "to be sent with --execute"
    for record in found.tombstones:
        tell(f"a tombstone to {record.topic}, {verb}: {(record.key or b'').decode(errors='replace')}")
    if not found.tombstones:
        tell(f"no tombstone is needed: {entity} is no entity there, and no verdict names it")
    for line in left:
        tell(f"left: {line}")


def _left(settings: Settings, entity: str, found: "Found", obstacle: str | None) -> Iterator[str]:
    """What this command does not reach, and who does."""
    from stream.learning.alignment import kept_in, left_at
    from stream.replay.run import run_names

    source, _ = split_curie(entity)
    if found.aligned:
        yield f"aligned with {_some(found.aligned)}; the worker withdraws that when it has read the tombstone"
    for topic in settings.sources[source].topics() if source in settings.sources else []:
        yield f"{topic} is the source's own: delete the row in its database; the tombstone comes by itself"
    if source in settings.sources and (files := settings.sources[source].all_files()):
        yield f"{_some(files)}: where it is in there still, the next `sameas feed` brings it back"
    if found.pointing:
        yield f"entities with a relation to it, which names its id: {_some(found.pointing)}; change them"
    for topic, count in found.mentions.items():
        if count:
            yield f"{count:,} records of {topic} name it, until they expire (retention.ms of the topic)"
    yield "former records of compacted topics, until the broker compacts them (max.compaction.lag.ms)"
    if obstacle is not None:
        yield f"state directory {settings.state.dir}: {obstacle}"
    if left_at(kept_in(settings)) is not None:
        yield f"{kept_in(settings)}, which `sameas align` left: delete it, or align again"
    for name in run_names(settings):
        yield f"run {name}: `sameas replay remove {name}` deletes its state and topics"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(sorted(names)[:SHOWN]) + (f" and {more} more" if more > 0 else "")
