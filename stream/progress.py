"""Progress for people, on stderr."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PLAIN_SECONDS = 5.0  # between two lines where stderr is no terminal


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a line: in place on a terminal, elsewhere every few seconds."""
    last = -math.inf
    on_terminal = sys.stderr.isatty()

    def show(text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if on_terminal:
            print(f"\r\x1b[2K   {text}", end="", file=sys.stderr, flush=True)
        elif now - last >= PLAIN_SECONDS:
            print(f"   {text}", file=sys.stderr, flush=True)
            last = now

    try:
        yield show
    finally:
        if on_terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


@contextmanager
def counting(verb: str, unit: str) -> Iterator[Callable[[int], None]]:
    """A line such as "feeding 12,000 events, 5,400/s". Yields a function that takes the number so far."""
    started = time.monotonic()
    with progress() as show:

        def update(count: int) -> None:
            speed = count / max(time.monotonic() - started, 1e-9)
            show(f"{verb} {count:,} {unit}, {speed:,.0f}/s")

        yield update
