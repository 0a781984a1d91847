"""Options that several commands have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from stream.config import Settings, load


def configured(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that change settings, and passes the outcome as `configuration`."""

    @click.option(
        "--config", "path", type=click.Path(path_type=Path), help="Settings file [default: sameas.toml]"
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting; repeatable"
    )
    @functools.wraps(function)
    def command(
        path: Path | None, overrides: tuple[str, ...], bootstrap: str | None = None, **rest: Any
    ) -> None:
        all_overrides = [*overrides, *([f"kafka.bootstrap_servers={bootstrap}"] if bootstrap else [])]
        function(configuration=load(path, overrides=all_overrides), **rest)

    return command


def connected(function: Callable[..., None]) -> Callable[..., None]:
    """As `configured`, for commands that use a broker: with its address."""
    option = click.option("--bootstrap", metavar="HOST:PORT", help="Kafka's address: kafka.bootstrap_servers")
    return configured(option(function))


def in_state(settings: Settings, directory: Path | None) -> Settings:
    """The settings with the state directory that a flag names, if it names one."""
    if directory is None:
        return settings
    return msgspec.structs.replace(settings, state=msgspec.structs.replace(settings.state, dir=directory))
