"""`sameas config`: the settings in effect, on the command line."""

import json

import click

from stream.commands.options import configured
from stream.config import Configuration, describe


@click.group()
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
