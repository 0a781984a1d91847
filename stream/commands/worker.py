"""`sameas run`, `sameas broker` and `sameas topics`: the worker and what it needs."""

import logging
from pathlib import Path
from typing import Any

import click
import msgspec

from stream.commands.options import connected, in_state
from stream.config import Configuration
from stream.console import log, put, start_log, tell
from stream.errors import BrokerError
from stream.interrupts import Interrupted
from stream.mapping.language import alike_ids


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9092, show_default=True, help="0 takes a free one"
)
def broker(port: int) -> None:
    """Run an embedded Kafka-compatible broker, for trying out. Everything is in memory."""
    from stream.broker.embedded import embedded_broker

    try:
        with embedded_broker(port) as running:
            put(running.address, flush=True)
            tell(f"broker at {running.address}; everything is in memory and gone at the end; Ctrl-C ends it")
            status = running.wait()
    except Interrupted as end:
        end.code = 0
        raise
    raise BrokerError(f"the broker ended by itself (status {status})")


@click.command()
@connected
def topics(configuration: Configuration) -> None:
    """Create sameas's topics where they are missing, and check the others (partitions, cleanup policy)."""
    from stream.broker.topics import ensure_topics, input_specs, output_specs

    settings = configuration.settings
    counts = ensure_topics(settings)
    for spec in input_specs(settings) + output_specs(settings):
        tell(f"topic {spec.name}: {counts[spec.name]} partition(s), cleanup.policy={spec.policy}")


@click.command()
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
        start_log(libraries=logging.INFO)

    def open_aligner() -> Any:
        from index.search import products
        from stream.mapping.decoder import make_decoder
        from stream.state.generations import Generations

        decode = make_decoder(settings.sources, settings.topics.entities, settings.topics.links)
        generations = Generations(settings, decode)
        aligner = generations.open()
        tell(f"int8 products by {products.description()}")
        return aligner, generations

    for line in alike_ids(settings.sources):
        log.warning(line)
    try:
        from stream.worker.app import run_worker  # which takes seconds

        run_worker(settings, open_aligner)
    except Interrupted as end:
        tell("stopped before it was ready")
        end.code = 0
        raise
