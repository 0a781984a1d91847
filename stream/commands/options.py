"""Options and arguments that several commands have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from stream.config import Configuration, Settings, load
from stream.errors import ConfigError


def configured(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that change settings, and passes the settings as `configuration`."""

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


def catalogued(function: Callable[..., None]) -> Callable[..., None]:
    """Adds what commands without a broker read; passes it as `settings`, `events` and `model`."""

    @configured
    @click.argument("files", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
    @functools.wraps(function)
    def command(
        configuration: Configuration, files: tuple[Path, ...], model: Path | None, **rest: Any
    ) -> None:
        from stream.catalogue.reading import accepted, read_files
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


def in_state(settings: Settings, directory: Path | None) -> Settings:
    """The settings, with the state directory of a flag if there is one."""
    if directory is None:
        return settings
    return msgspec.structs.replace(settings, state=msgspec.structs.replace(settings.state, dir=directory))
