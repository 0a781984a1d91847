"""`sameas config`: the settings in effect, on the command line."""

import json

import click

from stream.commands.group import Commands
from stream.commands.options import configured
from stream.config import Configuration, as_toml, describe
from stream.console import log, put, put_json
from stream.mapping.language import alike_ids


@click.group(cls=Commands)
def config() -> None:
    """Settings: sameas.toml, then the environment, then flags."""


@config.command()
@configured
@click.option("--json", "as_json", is_flag=True, help="As one JSON object")
def show(configuration: Configuration, as_json: bool) -> None:
    """Print the settings in effect, as a sameas.toml, and where each was written. Secrets are masked."""
    for line in alike_ids(configuration.settings.sources):
        log.warning(line)
    if as_json:
        put_json(
            json.dumps(
                {key: {"value": value, "from": origin} for key, value, origin in describe(configuration)}
            )
        )
        return
    for line in as_toml(configuration):
        put(line)
