"""`sameas subscribe`: alignments, on the command line."""

import sys
from collections.abc import Callable, Generator
from typing import Any

import click

from stream.commands.options import connected
from stream.config import Configuration
from stream.console import discard_stdout, flush_stdout, log, put, put_json, shown
from stream.errors import ConfigError, InvalidInput
from stream.events import split_curie
from stream.interrupts import Interrupted


@click.command()
@connected
@click.option("--events", is_flag=True, help="The log of alignment events instead of the current alignments")
@click.option("-e", "--exit", "until_end", is_flag=True, help="Exit at the end instead of waiting for more")
@click.option(
    "-o", "--offset", default="beginning", metavar="beginning|end|OFFSET|DATE", help="Where to begin"
)
@click.option(
    "--source", "sources", multiple=True, help="Only pairs with an entity of this source; repeatable"
)
@click.option("--type", "types", multiple=True, help="Only pairs with an entity of this type; repeatable")
@click.option(
    "--entity", "entities", multiple=True, metavar="CURIE", help="Only pairs with this entity; repeatable"
)
@click.option(
    "--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Only pairs with at least this score"
)
@click.option("--strict", is_flag=True, help="Stop at the first record that cannot be read")
@click.option("--json", "form", flag_value="json", help="JSON Lines also on a terminal")
@click.option("--sssom", "form", flag_value="sssom", help="The current alignments as SSSOM TSV")
@click.option("--rdf", "form", flag_value="rdf", help="The current alignments as N-Triples: owl:sameAs")
def subscribe(
    configuration: Configuration,
    events: bool,
    until_end: bool,
    offset: str,
    strict: bool,
    form: str | None,
    **options: Any,
) -> None:
    """Print alignments: what is the same as what, now and as it changes.

    On a terminal it prints a table, into a pipe JSON Lines. --sssom and --rdf exit at the end. Records that
    cannot be read are skipped and counted.
    """
    from stream.consuming.alignments import Filter, export, follow, parse_start

    for entity in options["entities"]:
        try:
            split_curie(entity)
        except InvalidInput as error:
            raise ConfigError(f"--entity {shown(entity)}: {error}, for example imdb:tt0133093") from error
    wanted = Filter(
        sources=frozenset(options["sources"]),
        types=frozenset(options["types"]),
        entities=frozenset(options["entities"]),
        min_confidence=options["min_confidence"],
    )
    settings, start = configuration.settings, parse_start(offset)
    if form in ("sssom", "rdf"):
        if events or start != "beginning":
            raise ConfigError(f"--{form} prints the current alignments: leave out --events and --offset")
        rows = export(settings, form, wanted, strict=strict)
        _print(rows, lambda row, flush: put(*row, flush=flush), until_end=True)
    else:
        if not events and start not in ("beginning", "end"):
            log.warning(
                f"from {offset} on: a pair that is not aligned any more may not be shown as withdrawn, as "
                "tombstones expire; begin at the beginning, in an empty table, or read the log with --events"
            )
        as_json = form == "json" or not sys.stdout.isatty()
        lines = follow(
            settings,
            log=events,
            until_end=until_end,
            start=start,
            wanted=wanted,
            as_json=as_json,
            strict=strict,
        )
        _print(lines, put_json if as_json else put, until_end=until_end)


def _print(lines: Generator[Any, None, None], write: Callable[..., None], *, until_end: bool) -> None:
    """Prints until the lines end, a reader has enough, or an interrupt, without which some never end."""
    try:
        for line in lines:
            write(line, flush=not until_end)
        flush_stdout()
    except Interrupted as end:
        if not until_end:
            end.code = 0
        raise
    except BrokenPipeError:
        discard_stdout()
    finally:
        lines.close()
