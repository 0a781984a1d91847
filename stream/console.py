"""What people see on stderr: lines, progress, and values shortened."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MAX_VALUE_CHARS = 24

PLAIN_SECONDS = 5.0  # between two lines where stderr is no terminal
STILL_SECONDS = 1.0  # between two looks at whether the same text has been there for long


def tell(text: str) -> None:
    """A line for people, on stderr."""
    print(f"sameas: {text}", file=sys.stderr, flush=True)


def shown(value: object) -> str:
    """A value from somebody's catalogue, shortened and without what steers a terminal."""
    text = "".join(sign if sign.isprintable() else "�" for sign in str(value)[: 2 * MAX_VALUE_CHARS])
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


class _Line:
    """The line that is shown. Steps that take minutes show a text once: it is shown again as time goes by."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._on_terminal = sys.stderr.isatty()
        self._text, self._since = "", 0.0
        self._printed = -math.inf

    def show(self, text: str) -> None:
        with self._lock:
            if text != self._text:
                self._text, self._since = text, time.monotonic()
            self._print(text)

    def show_again(self) -> None:
        with self._lock:
            seconds = time.monotonic() - self._since
            if self._text and seconds >= PLAIN_SECONDS:
                self._print(f"{self._text} ({seconds:.0f} s)")

    def clear(self) -> None:
        if self._on_terminal:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def _print(self, text: str) -> None:
        now = time.monotonic()
        if self._on_terminal:
            print(f"\r\x1b[2K   {text}", end="", file=sys.stderr, flush=True)
        elif now - self._printed >= PLAIN_SECONDS:
            print(f"   {text}", file=sys.stderr, flush=True)
            self._printed = now


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a line: in place on a terminal, elsewhere every few seconds."""
    line, ended = _Line(), threading.Event()

    def watch() -> None:
        while not ended.wait(STILL_SECONDS):
            line.show_again()

    watching = threading.Thread(target=watch, name="progress", daemon=True)
    watching.start()
    try:
        yield line.show
    finally:
        ended.set()
        watching.join()
        line.clear()


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
