"""The command line. JSON Lines on stdout where a program would read it, people's text and progress on stderr.

A `SameasError` becomes one line and exit status 1; any other exception is a defect and shows its traceback.
Whatever takes long to import (torch, dgl, faust, kafka) is imported inside the command that needs it.
"""

import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from stream.config import Configuration, describe, load
from stream.errors import InvalidInput, SameasError


class _ErrorLine(click.ClickException):
    def show(self, file: Any = None) -> None:
        click.echo(f"sameas: error: {' '.join(self.message.split())}", err=True)


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SameasError as error:
            raise _ErrorLine(str(error)) from error


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(package_name="sameas", prog_name="sameas")
def main() -> None:
    """Streaming, incremental entity alignment for knowledge graphs."""
    logging.basicConfig(level=logging.CRITICAL, format="sameas: %(name)s: %(message)s")


def configured(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that change settings, and passes the outcome as `configuration`."""

    @click.option(
        "--config", "path", type=click.Path(path_type=Path), help="Settings file [default: sameas.toml]"
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting; repeatable"
    )
    @click.option("--bootstrap", metavar="HOST:PORT", help="Kafka's address: kafka.bootstrap_servers")
    @functools.wraps(function)
    def command(path: Path | None, overrides: tuple[str, ...], bootstrap: str | None, **rest: Any) -> None:
        all_overrides = [*overrides, *([f"kafka.bootstrap_servers={bootstrap}"] if bootstrap else [])]
        function(configuration=load(path, overrides=all_overrides), **rest)

    return command


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0 takes a free one"
)
def broker(port: int) -> None:
    """Run an embedded Kafka-compatible broker, for trying out. Everything is in memory."""
    from stream.broker import embedded_broker
    from stream.console import tell

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with embedded_broker(port) as running:
        print(running.address, flush=True)
        tell(f"broker at {running.address}; everything is in memory and gone at the end; Ctrl-C ends it")
        try:
            status = running.wait()
        except KeyboardInterrupt:
            return
    raise _ErrorLine(f"the broker ended by itself (status {status})")


@main.command()
@configured
def topics(configuration: Configuration) -> None:
    """Create sameas's topics where they are missing, and check the others (partitions, cleanup policy)."""
    from stream.console import tell
    from stream.topics import ensure_topics, input_specs, output_specs

    settings = configuration.settings
    counts = ensure_topics(settings)
    for spec in input_specs(settings) + output_specs(settings):
        tell(f"topic {spec.name}: {counts[spec.name]} partition(s), cleanup.policy={spec.policy}")


@main.command()
@configured
@click.option("--state", type=click.Path(path_type=Path), help="State directory: state.dir")
@click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
@click.option("-v", "--verbose", is_flag=True, help="Also show what Faust and the Kafka client log")
def run(configuration: Configuration, state: Path | None, model: Path | None, verbose: bool) -> None:
    """Run a worker: consume entity events, publish alignments. Ends on SIGTERM or Ctrl-C."""
    settings = configuration.settings
    if state is not None:
        settings = msgspec.structs.replace(settings, state=msgspec.structs.replace(settings.state, dir=state))
    if model is not None:
        settings = msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, dir=model))
    if verbose:
        logging.getLogger().setLevel(logging.INFO)

    def open_aligner() -> Any:
        from stream.aligner import Aligner
        from stream.mapping import make_decoder

        decode = make_decoder(settings.sources, settings.topics.entities, settings.topics.links)
        return Aligner(
            settings.state.dir,
            settings.model.dir,
            decode,
            one_to_one=settings.align.one_to_one,
            threshold=settings.model.threshold,
        )

    from stream.app import run_worker

    run_worker(settings, open_aligner)


@main.command()
@configured
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--source", metavar="NAME", help="Read with the mapping [sources.NAME]; its own files if none is named"
)
@click.option("--strict", is_flag=True, help="Stop at the first line that cannot be used")
def feed(configuration: Configuration, files: tuple[Path, ...], source: str | None, strict: bool) -> None:
    """Produce the entity events of files: canonical .jsonl, or what a mapping reads."""
    from stream.console import tell
    from stream.feed import accepted, feed_events, read_files
    from stream.progress import counting

    refusals = 0

    def refused(error: InvalidInput) -> None:
        nonlocal refusals
        refusals += 1
        tell(f"refused: {error} ({error.reason})")

    settings = configuration.settings
    with counting("feeding", "events") as progress:
        events = accepted(read_files(settings, files, source), refused, strict=strict)
        sent = feed_events(settings, events, progress)
    tell(f"fed {sent:,} events to {settings.topics.entities}, refused {refusals:,}")
    if refusals:
        raise _ErrorLine(f"{refusals} of {sent + refusals} events were refused; the others were fed")


@main.command()
@configured
@click.option("--events", is_flag=True, help="The log of alignment events instead of the current alignments")
@click.option("-e", "--exit", "until_end", is_flag=True, help="Exit at the end instead of waiting for more")
@click.option("-o", "--offset", default="beginning", metavar="beginning|end|OFFSET", help="Where to begin")
@click.option(
    "--source", "sources", multiple=True, help="Only pairs with an entity of this source; repeatable"
)
@click.option(
    "--entity", "entities", multiple=True, metavar="CURIE", help="Only pairs with this entity; repeatable"
)
@click.option(
    "--min-confidence", type=click.FloatRange(0, 1), default=0.0, help="Only pairs with at least this score"
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines also on a terminal")
def subscribe(configuration: Configuration, as_json: bool, offset: str, **options: Any) -> None:
    """Print alignments: what is the same as what, now and as it changes."""
    from stream.subscribe import Filter, follow, parse_start

    wanted = Filter(
        sources=frozenset(options["sources"]),
        entities=frozenset(options["entities"]),
        min_confidence=options["min_confidence"],
    )
    lines = follow(
        configuration.settings,
        log=options["events"],
        until_end=options["until_end"],
        start=parse_start(offset),
        wanted=wanted,
        as_json=as_json or not sys.stdout.isatty(),
    )
    try:
        for line in lines:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # the reader has what it wanted; keep the interpreter from flushing into the closed pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        lines.close()


@main.group()
def config() -> None:
    """Settings: sameas.toml, then the environment, then flags."""


@config.command()
@configured
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
def show(configuration: Configuration, as_json: bool) -> None:
    """Print the settings in effect and where each was written. Secrets are masked."""
    if as_json:
        print(
            json.dumps(
                {key: {"value": value, "from": origin} for key, value, origin in describe(configuration)}
            )
        )
        return
    section = ""
    for key, value, origin in describe(configuration):
        here, _, name = key.partition(".")
        if here != section:
            print(f"{'' if not section else chr(10)}[{here}]")
            section = here
        print(
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            + (f"  # {origin}" if origin != "default" else "")
        )


@main.command()
@click.argument("name", required=False)
def schema(name: str | None) -> None:
    """Print the JSON Schema of one record, or of all."""
    from stream.events import AlignmentEvent, AlignmentRecord, EntityEvent, Link

    records: dict[str, Any] = {
        "entity-event": EntityEvent,
        "link": Link,
        "alignment-record": AlignmentRecord,
        "alignment-event": AlignmentEvent,
    }
    if name is not None and name not in records:
        raise click.BadParameter(f"one of {', '.join(records)}", param_hint="NAME")
    schemas = {key: msgspec.json.schema(record) for key, record in records.items()}
    print(json.dumps(schemas if name is None else schemas[name], indent=2))


# The commands that need no broker (train, align, evaluate) and the demo register themselves here, with their
# imports inside the functions.


@main.command()
@click.option("--small", is_flag=True, help="The airports of one country: under 40 seconds")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON"
)
def demo(small: bool, report: Path | None) -> None:
    """Watch it work: two real airport catalogues through an embedded broker, in under five minutes."""
    from stream.demo import run_demo

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    run_demo(small=small, report=report)


if __name__ == "__main__":
    main()
