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

from stream.config import Configuration, Settings, describe
from stream.errors import ConfigError, SameasError
from stream.feed_cli import feed, propose_mapping
from stream.letters_cli import dead_letters
from stream.link_cli import link
from stream.model_cli import model
from stream.options import configured
from stream.replay_cli import replay
from stream.subscribe_cli import subscribe


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
    # One thread computes: the same work on two takes longer, and much longer when the machine is busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.basicConfig(level=logging.CRITICAL, format="sameas: %(name)s: %(message)s")


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
        from stream.generations import Generations
        from stream.mapping import make_decoder

        decode = make_decoder(settings.sources, settings.topics.entities, settings.topics.links)
        generations = Generations(settings, decode)
        return generations.open(), generations

    from stream.app import run_worker

    run_worker(settings, open_aligner)


main.add_command(feed)
main.add_command(propose_mapping)


main.add_command(subscribe)
main.add_command(link)
main.add_command(dead_letters)
main.add_command(model)
main.add_command(replay)


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
    from stream import schemas

    if name is not None and name not in schemas.RECORDS:
        raise click.BadParameter(f"one of {', '.join(schemas.RECORDS)}", param_hint="NAME")
    found: Any = (
        {key: schemas.schema(key) for key in schemas.RECORDS} if name is None else schemas.schema(name)
    )
    print(json.dumps(found, indent=2))


def catalogued(function: Callable[..., None]) -> Callable[..., None]:
    """Adds what the commands without a broker read: files, and the model."""

    @configured
    @click.argument("files", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
    @functools.wraps(function)
    def command(
        configuration: Configuration, files: tuple[Path, ...], model: Path | None, **rest: Any
    ) -> None:
        from stream.catalogue import accepted, read_files
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


@main.command()
@catalogued
@click.option(
    "--links", type=click.Path(path_type=Path), required=True, help="CSV of known links: left,right"
)
@click.option(
    "--valid", type=click.Path(path_type=Path), help="Links for early stopping and the threshold [a fifth]"
)
@click.option("-k", type=click.IntRange(1, 100), default=None, help="Candidates in each view [10]")
@click.option("--seed", type=int, default=0, show_default=True)
def train(
    settings: Settings,
    events: list[Any],
    model: Path,
    links: Path,
    valid: Path | None,
    k: int | None,
    seed: int,
) -> None:
    """Learn a model from catalogue FILES (canonical .jsonl, or those of the mapping) and known links."""
    from model.training import Progress, TrainingOptions
    from stream.console import tell
    from stream.offline import K, read_links, train_model
    from stream.progress import progress

    with progress() as show:
        show("retrieving candidates")

        def epoch(done: Progress) -> None:
            show(
                f"epoch {done.epoch} of {done.epochs}, loss {done.loss:.4f}, PRAUC on valid {done.prauc:.4f}"
            )

        trained = train_model(
            events,
            read_links(links),
            model,
            valid=None if valid is None else read_links(valid),
            k=K if k is None else k,
            options=TrainingOptions(seed=seed),
            progress=epoch,
        )
    tell(
        f"model {trained.id} in {model}: {trained.training_links:,} links, {trained.report['seconds']:.0f} s"
    )
    print(json.dumps({"model": trained.id, "links": trained.training_links, **trained.report}))


@main.command()
@catalogued
def align(settings: Settings, events: list[Any], model: Path) -> None:
    """Align catalogue FILES without a broker; alignment records as JSON Lines on stdout."""
    from stream.offline import align as align_files
    from stream.progress import counting

    with counting("aligning", "events") as progress:
        records = align_files(
            events,
            model,
            one_to_one=settings.align.one_to_one,
            threshold=settings.model.threshold,
            progress=progress,
        )
    for record in records:
        sys.stdout.write(msgspec.json.encode(record).decode() + "\n")


@main.command()
@catalogued
@click.option(
    "--links", type=click.Path(path_type=Path), required=True, help="CSV of known links: left,right"
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
def evaluate(settings: Settings, events: list[Any], model: Path, links: Path, as_json: bool) -> None:
    """Measure a model on catalogue FILES against known links, for the links' left entities."""
    from stream.offline import evaluate_model, read_links

    quality = evaluate_model(
        events,
        read_links(links),
        model,
        one_to_one=settings.align.one_to_one,
        threshold=settings.model.threshold,
    )
    if as_json:
        print(json.dumps(quality.to_json()))
        return
    for name, value in quality.to_json().items():
        if name != "calibration":
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            print(f"{name.replace('_', ' '):<24} {text:>8}")
    print(f"\n{'calibration':<17}  {'pairs':>9}  {'mean score':>10}  {'links':>6}")
    for row in quality.calibration:
        score = f"score {row.low:.1f} to {row.high:.1f}"
        print(f"{score:<17}  {row.pairs:>9,}  {row.score:>10.3f}  {row.links:>6.3f}")


@main.command()
@click.option("--small", is_flag=True, help="The airports of one country: under 40 seconds")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON"
)
def demo(small: bool, report: Path | None) -> None:
    """Watch it work: two real airport catalogues through an embedded broker, in under five minutes."""
    from stream.demo import run_demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # its processes end with it
    run_demo(small=small, report=report)


if __name__ == "__main__":
    main()
