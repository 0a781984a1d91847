"""A counter with its rate, for people, on stderr; silent when nobody looks."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def counting(verb: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A live line "feeding 12,000 events, 5,400/s". Yields the function that takes the number so far."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb, total=None)

        def update(count: int) -> None:
            progress.update(task, completed=count)
            speed = progress.tasks[0].speed or 0.0
            progress.update(task, description=f"{verb} {count:,} {unit}, {speed:,.0f}/s")

        yield update
