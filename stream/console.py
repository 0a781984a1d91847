"""What people see on stderr: the log, progress, and values shortened.

There is one logger, `sameas`. Its info level is what sameas tells people; warnings and errors say that they
are. Lines stand alone on a terminal; elsewhere each begins with its time.
"""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

MAX_VALUE_CHARS = 24

PLAIN_SECONDS = 5.0  # between two lines of progress where stderr is no terminal
STILL_SECONDS = 1.0  # between two looks at whether the same text has been there for long

log: Final = logging.getLogger("sameas")
tell: Final = log.info


def shown(value: object) -> str:
    """A value from a catalogue, shortened and without what steers a terminal."""
    text = printable(str(value)[: 2 * MAX_VALUE_CHARS])
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def printable(text: str) -> str:
    """A text without what steers a terminal."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def compared(key: str, value: str, other_key: str, other: str) -> str:
    """Two values, with what each is of: `title: A ~ name: B`, or `name: A ~ B` where that is the same."""
    keys = shown(key), shown(other_key)
    return f"{keys[0]}: {value} ~ {'' if key == other_key else f'{keys[1]}: '}{other}"


def start_log(libraries: int = logging.CRITICAL) -> None:
    """From now on the log goes to stderr.

    Args:
        libraries: the level from which on other loggers than `sameas` are heard.
    """
    root = logging.getLogger()
    root.addHandler(_HANDLER)
    root.setLevel(libraries)
    log.setLevel(logging.INFO)


class _Format(logging.Formatter):
    """`sameas: text`, `sameas: warning: text`; other loggers stand with their names."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        origin = "" if record.name == log.name else f"{record.name}: "
        return f"{_time(record.created)}sameas: {level}{origin}{record.message}"


class _Handler(logging.Handler):
    """Prints each record above the line that `progress` shows in place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            with _Line.lock:
                _Line.hide()
                print(text, file=sys.stderr, flush=True)
                _Line.restore()
        except Exception:
            self.handleError(record)


class _Line:
    """The line that is shown. Steps that take minutes show a text once: it is shown again as time goes by."""

    lock: Final = threading.RLock()
    in_place: str = ""  # what stands on the terminal's last line

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._text, self._since = "", 0.0
        self._printed = -math.inf

    def show(self, text: str) -> None:
        with self.lock:
            if text != self._text:
                self._text, self._since = text, time.monotonic()
            self._print(text)

    def show_again(self) -> None:
        with self.lock:
            seconds = time.monotonic() - self._since
            if self._text and seconds >= PLAIN_SECONDS:
                self._print(f"{self._text} ({seconds:.0f} s)")

    def clear(self) -> None:
        with self.lock:
            self.hide()
            _Line.in_place = ""

    def _print(self, text: str) -> None:
        now = time.monotonic()
        if self._on_terminal:
            self.hide()
            _Line.in_place = f"   {text}"
            self.restore()
        elif now - self._printed >= PLAIN_SECONDS:
            print(f"{_time()}  {text}", file=sys.stderr, flush=True)
            self._printed = now

    @staticmethod
    def hide() -> None:
        if _Line.in_place:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def restore() -> None:
        if _Line.in_place:
            print(_Line.in_place, end="", file=sys.stderr, flush=True)


def _time(seconds: float | None = None) -> str:
    """The time (of now, unless given) in UTC and a blank, where stderr is no terminal."""
    return "" if sys.stderr.isatty() else time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(seconds))


_HANDLER: Final = _Handler()
_HANDLER.setFormatter(_Format())


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
