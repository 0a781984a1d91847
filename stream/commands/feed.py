"""`sameas feed`: the events of files, on the command line."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from index.errors import SameasError
from stream.commands.options import connected
from stream.config import Configuration, Settings
from stream.errors import InvalidInput
from stream.events import EntityEvent

SHOWN_EVENTS = 10  # by --dry-run
SHOWN_REFUSALS = 100  # one by one; further ones are counted


@click.command()
@connected
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--source",
    metavar="NAME",
    help="Read with the mapping [sources.NAME]; its own files if none are named",
)
@click.option("--strict", is_flag=True, help="Stop at the first line that cannot be used")
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
    dry_run: bool,
    delete_missing: bool,
    resume: Path | None,
) -> None:
    """Produce the entity events of files.

    Without --source canonical events in .jsonl are expected; with it files that a mapping reads: .csv, .tsv,
    .jsonl, .parquet, .nt, .ttl, also with .gz or .zst.
    """
    from stream.broker.topics import find_partitions, to_produce
    from stream.catalogue.feeding import FullExport, present_entities
    from stream.catalogue.opening import Meter
    from stream.catalogue.reading import accepted, files_of, read_files
    from stream.console import counting, tell

    settings = configuration.settings
    paths = files_of(settings, files, source)
    meter, export, refusals = Meter(paths), FullExport(source), Refusals()
    events = export.watch(accepted(read_files(settings, files, source, meter), refusals.tell, strict=strict))
    if delete_missing and not dry_run:
        find_partitions(settings, to_produce(settings, "entities", read=True))  # all that is lacking at once
    present = present_entities(settings) if delete_missing else ()
    if dry_run:
        with counting("reading", "events", lambda: meter.share) as progress:
            counts = _show_first(events, progress)
        by_type = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
        tell(f"{counts.total():,} events{f': {by_type}' if by_type else ''}; refused {refusals.summary()}")
        if delete_missing:
            tell(f"{len(export.gone(present)):,} entities would be deleted")
    else:
        with counting("feeding", "events", lambda: meter.share) as progress:
            sent = _feed(settings, events, paths, source, resume, progress)
        tell(f"fed {sent:,} events to {settings.topics.entities}, refused {refusals.summary()}")
        if delete_missing and not refusals.counts:
            _delete(settings, export.gone(present))
    if refusals.counts:
        not_deleted = "; nothing was deleted, for they may be among what is missing" if delete_missing else ""
        raise SameasError(
            f"{refusals.counts.total():,} events were refused; the others were "
            f"{'good' if dry_run else 'fed'}{not_deleted}"
        )


class Refusals:
    """Events that cannot be used: the first are printed one by one, all are counted by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def tell(self, error: InvalidInput) -> None:
        from stream.console import tell

        self.counts[error.reason] += 1
        if self.counts.total() <= SHOWN_REFUSALS:
            tell(f"refused: {error} ({error.reason})")
        elif self.counts.total() == SHOWN_REFUSALS + 1:
            tell("refused: more, which are only counted")

    def summary(self) -> str:
        """ "3: 2 malformed, 1 bad-id", or "0"."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())
        return f"{self.counts.total():,}{f': {reasons}' if reasons else ''}"


def _show_first(events: Iterable[EntityEvent], progress: Callable[[int], None]) -> Counter[str]:
    from stream.console import put_json

    counts: Counter[str] = Counter()
    for event in events:
        if counts.total() < SHOWN_EVENTS:
            put_json(msgspec.json.encode(event).decode())
        counts[getattr(event, "type", "delete")] += 1
        if counts.total() % 2000 == 0:
            progress(counts.total())
    return counts


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
    from stream.console import tell

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
    except KeyboardInterrupt:
        go_on = (
            "the same command continues from there"
            if resume is not None
            else "feeding them again does no harm; with --resume FILE it would continue from there"
        )
        raise SameasError(f"interrupted after {begun.events + done:,} events; {go_on}") from None
    if resume is not None:
        resume.unlink(missing_ok=True)
    return sent


def _delete(settings: Settings, keys: list[bytes]) -> None:
    from stream.broker.producing import Record, produce
    from stream.console import tell

    produce(settings, (Record(settings.topics.entities, key, None) for key in keys))
    tell(f"deleted {len(keys):,} entities that the files no longer have")
