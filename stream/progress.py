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
def counting(
    verb: str, unit: str, share: Callable[[], float] | None = None
) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the number so far, for lines such as

        feeding 12,000 events, 5,400/s, 34%, 0:12 left

    Args:
        share: how much of the work is done, 0 to 1.
    """
    started = time.monotonic()
    with progress() as show:

        def update(count: int) -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            line = f"{verb} {count:,} {unit}, {count / seconds:,.0f}/s"
            done = 0.0 if share is None else share()
            if done > 0:
                left = round(seconds * (1 - done) / done)
                line += f", {done:.0%}, {left // 60}:{left % 60:02} left"
            show(line)

        yield update
