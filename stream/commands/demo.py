"""`sameas demo`, on the command line."""

from pathlib import Path

import click


@click.command()
@click.option("--small", is_flag=True, help="The airports of one country: under 40 seconds")
@click.option(
    "--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON"
)
def demo(small: bool, report: Path | None) -> None:
    """Watch sameas work on two real airport catalogues and an embedded broker, in under five minutes."""
    from stream.demo.play import run_demo

    run_demo(small=small, report=report)
