"""The command line. JSON Lines on stdout where a program would read it, people's text and progress on stderr.

A `SameasError` becomes one line and exit status 1; any other exception is a defect and shows its traceback.
Whatever takes long to import (torch, dgl, faust, kafka) is imported inside the command that needs it.
"""

import os
import sys
import traceback
from typing import Any

import click

from index.errors import MAX_MESSAGE_CHARS, SameasError, shortened
from stream.commands.align import align
from stream.commands.config import config
from stream.commands.dead_letters import dead_letters
from stream.commands.demo import demo
from stream.commands.erase import erase
from stream.commands.evaluate import evaluate
from stream.commands.explain import explain
from stream.commands.feed import feed
from stream.commands.group import WIDTH, Commands
from stream.commands.link import link
from stream.commands.map import propose_mapping
from stream.commands.model import model
from stream.commands.replay import replay
from stream.commands.schema import schema
from stream.commands.subscribe import subscribe
from stream.commands.train import train
from stream.commands.worker import broker, run, topics
from stream.console import discard_stdout, flush_stdout, log, open_closed_streams, printable, start_log
from stream.interrupts import Interrupted


class _ErrorLine(click.ClickException):
    def show(self, file: Any = None) -> None:
        log.error(" ".join(self.message.split()))


class _Main(Commands):
    def main(self, *args: Any, **extra: Any) -> Any:
        open_closed_streams()
        try:
            return super().main(*args, **extra)
        except OSError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_code is not click.echo.__code__:  # which prints help, the version and usage
                raise
            discard_stdout()
            start_log()
            log.error(f"stdout cannot be written: {error.strerror}")
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            flush_stdout()
            return result
        except SameasError as error:
            raise _ErrorLine(str(error)) from error
        except Interrupted as end:
            if end.code:
                log.error("; ".join((f"interrupted by {end.name}", *getattr(end, "__notes__", ()))))
            raise
        except click.UsageError as error:
            error.message = printable(shortened(error.message, MAX_MESSAGE_CHARS))
            raise


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH})
@click.version_option(package_name="sameas", prog_name="sameas")
def main() -> None:
    """Streaming, incremental entity alignment for knowledge graphs."""
    # `index/search/threads.py` shares work out; the libraries' own threads beside it would wait for each
    # other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # What is written holds other people's data: states, snapshots, models, replays, reports.
    before = os.umask(0o077)
    click.get_current_context().call_on_close(lambda: os.umask(before))
    start_log()


for command in (
    align,
    broker,
    config,
    dead_letters,
    demo,
    erase,
    evaluate,
    explain,
    feed,
    link,
    model,
    propose_mapping,
    replay,
    run,
    schema,
    subscribe,
    topics,
    train,
):
    main.add_command(command)
