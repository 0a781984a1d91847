"""The command line. JSON Lines on stdout where a program would read it, people's text and progress on stderr.

A `SameasError` becomes one line and exit status 1; any other exception is a defect and shows its traceback.
Whatever takes long to import (torch, dgl, faust, kafka) is imported inside the command that needs it.
"""

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from index.errors import SameasError
from stream.config import Configuration, describe
from stream.explain_cli import explain
from stream.feed_cli import feed, propose_mapping
from stream.letters_cli import dead_letters
from stream.link_cli import link
from stream.model_cli import model
from stream.offline_cli import align, evaluate, train
from stream.options import configured, connected, in_state
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
    # `index/search/threads.py` shares work out; the libraries' own threads beside it would wait for each
    # other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.basicConfig(level=logging.CRITICAL, format="sameas: %(name)s: %(message)s")
    ours, handler = logging.getLogger("sameas"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("sameas: %(message)s"))
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)


@main.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0 takes a free one"
)
def broker(port: int) -> None:
    """Run an embedded Kafka-compatible broker, for trying out. Everything is in memory."""
    from stream.broker.embedded import embedded_broker
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
@connected
def topics(configuration: Configuration) -> None:
    """Create sameas's topics where they are missing, and check the others (partitions, cleanup policy)."""
    from stream.broker.topics import ensure_topics, input_specs, output_specs
    from stream.console import tell

    settings = configuration.settings
    counts = ensure_topics(settings)
    for spec in input_specs(settings) + output_specs(settings):
        tell(f"topic {spec.name}: {counts[spec.name]} partition(s), cleanup.policy={spec.policy}")


@main.command()
@connected
@click.option("--state", type=click.Path(path_type=Path), help="State directory: state.dir")
@click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
@click.option("-v", "--verbose", is_flag=True, help="Also show what Faust and the Kafka client log")
def run(configuration: Configuration, state: Path | None, model: Path | None, verbose: bool) -> None:
    """Run a worker: consume entity events, publish alignments. Ends on SIGTERM or Ctrl-C."""
    settings = in_state(configuration.settings, state)
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
main.add_command(explain)
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


for command in (train, align, evaluate):
    main.add_command(command)


@main.command()
@click.option("--small", is_flag=True, help="The airports of one country: under 40 seconds")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON"
)
def demo(small: bool, report: Path | None) -> None:
    """Watch it work: two real airport catalogues through an embedded broker, in under five minutes."""
    from stream.shutdown import exit_on_signals

    with exit_on_signals():
        from stream.demo import run_demo  # which takes seconds

        run_demo(small=small, report=report)


if __name__ == "__main__":
    main()
