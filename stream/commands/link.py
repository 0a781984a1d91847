"""`sameas link`: a person's verdict on a pair, on the command line."""

import getpass

import click
import msgspec

from stream.commands.options import connected
from stream.config import Configuration
from stream.console import tell
from stream.errors import ConfigError, InvalidInput
from stream.events import Link, alignment_key, decode_link, split_curie
from stream.mapping.row import is_unicode


@click.command()
@connected
@click.argument("left", metavar="CURIE")
@click.argument("right", metavar="CURIE")
@click.option("--different", is_flag=True, help="The two are not the same")
@click.option("--retract", is_flag=True, help="Take the verdict back")
@click.option("--author", help="Who says so [the user's name]")
def link(
    configuration: Configuration, left: str, right: str, different: bool, retract: bool, author: str | None
) -> None:
    """Say that two entities of two sources are the same, or are not: it overrides the model at once."""
    from stream.broker.producing import Record, produce
    from stream.broker.topics import ensure_topics, to_produce

    if different and retract:
        raise ConfigError("--different and --retract exclude each other: a verdict is given or taken back")
    try:
        left, right = sorted((left, right), key=lambda name: split_curie(name)[0])
        author = author or _user()
        if not is_unicode(author):
            raise ConfigError(f"{author!r} is not UTF-8")
        key = alignment_key(left, right).encode()
        verdict = Link(left, right, "different" if different else "same", author)
        value = None if retract else msgspec.json.encode(verdict)
        decode_link(key, value)
    except InvalidInput as error:
        raise ConfigError(f"{error}; write it as imdb:tt0133093") from error
    settings = configuration.settings
    ensure_topics(settings, to_produce(settings, "links"))
    produce(settings, [Record(settings.topics.links, key, value)])
    tell(f"{left} and {right}: {'taken back' if retract else verdict.verdict}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
