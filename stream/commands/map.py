"""`sameas map`: a mapping proposed for files, on the command line."""

from pathlib import Path

import click

from stream.console import put, tell


@click.command("map")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", metavar="NAME", help="One source of all files [named after its file or folder]")
def propose_mapping(files: tuple[Path, ...], source: str | None) -> None:
    """Propose a mapping for FILES from their first rows: TOML on stdout, the reasons on stderr.

    Files that refer to each other become tables and joins of one source, others sources of their own.

    It reads the formats of `sameas feed`, and Debezium's messages in JSON Lines. Add the mapping to
    sameas.toml, correct it, and look at `sameas feed --source NAME --dry-run`.
    """
    from stream.catalogue.proposing import propose

    proposal = propose(files, source)
    for line in proposal.seen:
        tell(line)
    for line in proposal.toml.split("\n"):  # the last one is blank, so that a second mapping can follow
        put(line)
