"""`sameas dead-letters`: messages that could not be used, on the command line."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import click

from stream.commands.group import Commands
from stream.commands.options import connected
from stream.config import Configuration
from stream.console import put_json, tell


@click.group("dead-letters", cls=Commands)
def dead_letters() -> None:
    """Messages that could not be used: list them, or send them again."""


def selected(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that choose dead letters."""
    for option in (
        click.option(
            "--offset", "offsets", type=int, multiple=True, help="Of the original message; repeatable"
        ),
        click.option("--topic", "topics", multiple=True, help="Where the message came from; repeatable"),
        click.option("--reason", "reasons", multiple=True, help="Why the message was refused; repeatable"),
        connected,
    ):
        function = option(function)
    return function


@dead_letters.command("list")
@selected
@click.option("--check", is_flag=True, help="Also tell what keeps each from being sent again, as retry does")
def list_letters(configuration: Configuration, check: bool, **options: tuple[Any, ...]) -> None:
    """Print dead letters as JSON Lines, up to the present end of the topic.

    Of a message that was sent again and refused again, only the newest letter counts.
    """
    from stream.consuming.dead_letters import Selection, read_dead_letters

    settings = configuration.settings
    selection = Selection(**{name: frozenset(values) for name, values in options.items()})
    letters = read_dead_letters(settings, selection)
    if check:
        from stream.consuming.retrying import checked

        letters = checked(settings, letters)
    count = 0
    for letter in letters:
        put_json(letter.to_json().decode())
        count += 1
    tell(f"{count:,} dead letters")


@dead_letters.command()
@selected
@click.option("--execute", is_flag=True, help="Send them; without it only a plan is printed")
def retry(configuration: Configuration, execute: bool, **options: tuple[Any, ...]) -> None:
    """Send the original messages to the topics that they came from, when their cause is removed.

    None is sent past something newer with its key. One that is refused again has another dead letter, which
    takes the place of the former in lists.
    """
    from stream.consuming.dead_letters import Selection, read_dead_letters
    from stream.consuming.retrying import plan_retry, resend

    settings = configuration.settings
    selection = Selection(**{name: frozenset(values) for name, values in options.items()})
    plan = plan_retry(settings, read_dead_letters(settings, selection))
    for (topic, reason), count in sorted(plan.counts.items()):
        tell(f"{count:,} to {topic} ({reason})")
    for obstacle, count in sorted(Counter(plan.obstacles.values()).items()):
        tell(f"{count:,} cannot be sent again: {obstacle}")
    if not execute:
        tell(f"{len(plan.letters):,} messages would be sent; --execute sends them")
        return
    tell(f"{resend(settings, plan):,} messages sent")
