"""Options and arguments that several commands have."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec

from stream.config import Configuration, Settings, load
from stream.console import tell
from stream.errors import ConfigError
from stream.events import EntityEvent


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


def accounted(function: Callable[..., None]) -> Callable[..., None]:
    """Adds what is done with the account of what is read: passed as `strict` and `account_file`."""
    strict = click.option(
        "--strict", is_flag=True, help="Stop at the first refusal; fail if anything is missing or twice"
    )
    file = click.option(
        "--account",
        "account_file",
        metavar="FILE",
        type=click.File("w", encoding="utf-8"),
        help="Write what was read, and what is missing or twice, as JSON",
    )
    return strict(file(function))


def catalogued(function: Callable[..., None]) -> Callable[..., None]:
    """Adds what commands without a broker read; passes `settings`, `read`, `account` and `model`.

    `read` returns the events of all files: to be called once everything else is known to be there, as it may
    take minutes. At the end, however it comes, what is then in the account is told.
    """

    @configured
    @click.argument("files", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
    @accounted
    @functools.wraps(function)
    def command(
        configuration: Configuration,
        files: tuple[Path, ...],
        model: Path | None,
        strict: bool,
        account_file: TextIO | None,
        **rest: Any,
    ) -> None:
        from stream.catalogue.account import Account
        from stream.catalogue.opening import format_of
        from stream.catalogue.reading import read_files
        from stream.catalogue.rows import JSON_LINES

        settings = configuration.settings
        sources = (
            [None] if files else [name for name, mapping in settings.sources.items() if mapping.all_files()]
        )
        if not sources:
            raise ConfigError("nothing to read: name canonical .jsonl files, or give [sources.NAME] a file")
        for path in files:
            if format_of(path) not in JSON_LINES:
                raise ConfigError(
                    f"{path}: FILES are canonical events in .jsonl; without FILES those of the mapping in "
                    "sameas.toml are read (`sameas map FILE` proposes one)"
                )
        account = Account(strict=strict)
        with contextlib.ExitStack() as end:

            def read() -> list[EntityEvent]:
                events = [
                    event
                    for source in sources
                    for event in account.accepted(read_files(settings, files, source, account))
                ]
                tell(account.report().summary())
                end.enter_context(account.told(account_file))
                account.compare_types()
                return events

            function(settings=settings, read=read, account=account, model=model or settings.model.dir, **rest)

    return command


def in_state(settings: Settings, directory: Path | None) -> Settings:
    """The settings, with the state directory of a flag if there is one."""
    if directory is None:
        return settings
    return msgspec.structs.replace(settings, state=msgspec.structs.replace(settings.state, dir=directory))
