"""`sameas map`: a mapping proposed for a file, on the command line."""

from pathlib import Path

import click


@click.command("map")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--source", metavar="NAME", help="What to call the source [the file's name]")
def propose_mapping(file: Path, source: str | None) -> None:
    """Propose a mapping for FILE from its first rows: TOML on stdout, the reasons on stderr.

    It reads the formats of `sameas feed`, and Debezium's messages in JSON Lines. Add the mapping to
    sameas.toml, correct it, and look at `sameas feed --source NAME --dry-run`.
    """
    from stream.catalogue.proposing import propose
    from stream.console import put, tell

    proposal = propose(file, source or file.name.partition(".")[0])
    for line in proposal.seen:
        tell(line)
    for line in proposal.toml.split("\n"):  # the last one is blank, so that a second mapping can follow
        put(line)
