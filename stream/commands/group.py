"""Groups of commands: with whole summaries, and with a guess at what was mistyped."""

import difflib
import os
import sys
from typing import Any

import click

WIDTH = 110  # columns of help, unless a terminal is narrower


class Commands(click.Group):
    """What `sameas` and its groups of commands are."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        # Click takes the 80 columns that it falls back to without a terminal for a terminal's width.
        if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
            extra.setdefault("terminal_width", WIDTH)
        return super().make_context(*args, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not close:
                raise
            raise click.UsageError(f"{error.format_message()} Did you mean {close[0]}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click would cut summaries to one line.
        rows = [
            (name, command.get_short_help_str(limit=sys.maxsize)) for name, command in self.commands.items()
        ]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))
