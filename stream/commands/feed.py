"""`sameas feed`: the events of files, on the command line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

import click
import msgspec

from index.errors import SameasError
from stream.commands.options import accounted, connected
from stream.config import Configuration, Settings
from stream.console import counting, put_json, tell
from stream.events import EntityEvent
from stream.interrupts import Interrupted

SHOWN_EVENTS = 10  # by --dry-run


@click.command()
@connected
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--source",
    metavar="NAME",
    help="Read with the mapping [sources.NAME]; its own files if none are named",
)
@accounted
@click.option("--dry-run", is_flag=True, help="Print the first events and what is refused; needs no broker")
@click.option(
    "--delete-missing",
    is_flag=True,
    help="The files are a full export: delete the entities that they lack",
)
@click.option(
    "--resume",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Save progress in FILE; after an interrupt continue from there",
)
def feed(
    configuration: Configuration,
    files: tuple[Path, ...],
    source: str | None,
    strict: bool,
    account_file: TextIO | None,
    dry_run: bool,
    delete_missing: bool,
    resume: Path | None,
) -> None:
    """Produce the entity events of files.

    Without --source canonical events in .jsonl are expected; with it files that a mapping reads: .csv, .tsv,
    .jsonl, .parquet, .nt, .ttl, also with .gz or .zst.
    """
    from stream.broker.topics import find_partitions, to_produce
    from stream.catalogue.account import Account
    from stream.catalogue.feeding import gone, present_entities
    from stream.catalogue.opening import Meter
    from stream.catalogue.reading import files_of, read_files

    settings = configuration.settings
    paths = files_of(settings, files, source)
    meter, account = Meter(paths), Account(strict=strict)
    events = account.accepted(read_files(settings, files, source, account, meter))
    if delete_missing and not dry_run:
        find_partitions(settings, to_produce(settings, "entities", read=True))  # all that is lacking at once
    present = present_entities(settings) if delete_missing else ()
    if dry_run:
        with counting("reading", "events", lambda: meter.share) as progress:
            _show_first(events, progress)
        tell(account.report().summary())
    else:
        with counting("feeding", "events", lambda: meter.share) as progress:
            sent = _feed(settings, events, paths, source, resume, progress)
        tell(f"fed {sent:,} events to {settings.topics.entities}: {account.report().summary()}")
    with account.told(account_file):
        if delete_missing and dry_run:
            tell(f"{len(gone(present, account, source)):,} entities would be deleted")
        elif delete_missing and not account.refused:
            _delete(settings, gone(present, account, source))
    if account.refused:
        not_deleted = "; nothing was deleted, for they may be among what is missing" if delete_missing else ""
        raise SameasError(
            f"{account.refused:,} rows were refused; the others were "
            f"{'good' if dry_run else 'fed'}{not_deleted}"
        )


def _show_first(events: Iterable[EntityEvent], progress: Callable[[int], None]) -> None:

    for count, event in enumerate(events, 1):
        if count <= SHOWN_EVENTS:
            put_json(msgspec.json.encode(event).decode())
        if count % 2000 == 0:
            progress(count)


def _feed(
    settings: Settings,
    events: Iterable[EntityEvent],
    paths: Iterable[Path],
    source: str | None,
    resume: Path | None,
    progress: Callable[[int], None],
) -> int:
    from itertools import islice

    from stream.broker.topics import ensure_topics, to_produce
    from stream.catalogue.feeding import feed_events
    from stream.catalogue.resuming import FeedProgress

    done = 0

    def settled(count: int) -> None:
        nonlocal done
        done = count
        if resume is not None:
            msgspec.structs.replace(begun, events=begun.events + count).save(resume)

    begun = FeedProgress({}, 0)
    if resume is not None:
        ensure_topics(settings, to_produce(settings, "entities"))
        begun = FeedProgress.begin(settings, paths, source).resumed(resume)
        if begun.events:
            tell(f"continuing after {begun.events:,} events, as {resume} says")
    try:
        sent = feed_events(settings, islice(events, begun.events, None), progress, settled)
    except Interrupted as end:
        go_on = (
            "the same command continues from there"
            if resume is not None
            else "feeding them again does no harm; with --resume FILE it would continue from there"
        )
        end.add_note(f"{begun.events + done:,} events are fed; {go_on}")
        raise
    if resume is not None:
        resume.unlink(missing_ok=True)
    return sent


def _delete(settings: Settings, keys: list[bytes]) -> None:
    from stream.broker.producing import Record, produce

    produce(settings, (Record(settings.topics.entities, key, None) for key in keys))
    tell(f"deleted {len(keys):,} entities that the files no longer have")
