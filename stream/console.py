"""What people see: lines on stdout; on stderr the log, progress and what lasts. All of it is shown as text.

Catalogues, topics and files may hold anything. What steers a terminal, forges a line or hides text is
replaced here, where it leaves, and nowhere else, so nothing else writes to stdout or stderr
(`tests/stream/test_console.py`).

There is one logger, `sameas`. Its info level is what sameas tells people; warnings and errors say that they
are. Lines stand alone on a terminal; elsewhere each begins with its time.
"""

import errno
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

from index.errors import shortened
from stream.errors import ConfigError

MAX_VALUE_CHARS = 24
MAX_LINE_CHARS = 4_000  # of the log and of progress

PLAIN_SECONDS = 5.0  # between two lines of progress where stderr is no terminal
STILL_SECONDS = 1.0  # between two looks at whether the same text has been there for long
CALM_SECONDS = 600.0  # between two lines about what lasts for very long

log: Final = logging.getLogger("sameas")
tell: Final = log.info


# Controls (C0, DEL, C1), line separators, marks that turn the direction of writing, signs without a width,
# halves of surrogate pairs. Joiners are left, which Persian, Hindi and emoji need.
_STEERING: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with a sign in place of all that is not to be read: escapes, line breaks, bidi marks."""
    return _STEERING.sub("�", text)


def escaped(text: str) -> str:
    """JSON (or TOML) that says the same in one line, with \\uXXXX for everything that is not to be read.

    JSON itself asks this only of the controls before the blank.
    """
    return _STEERING.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    sign = match[0]
    return " " if sign in "\t\n\r" else f"\\u{ord(sign):04x}"  # these three stand between values


def shown(value: object) -> str:
    """A value from a catalogue, shortened."""
    text = printable(str(value)[: 2 * MAX_VALUE_CHARS])
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def width(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese, Japanese and Korean signs two, accents none."""
    return sum(
        0 if unicodedata.combining(sign) else 1 + (unicodedata.east_asian_width(sign) in "WF")
        for sign in text
    )


def fitted(text: str, columns: int) -> str:
    """As much of a text as has room in so many columns, with an ellipsis where it is cut."""
    taken = kept = 0
    for sign in text:
        taken += width(sign)
        kept += taken < columns
    if taken <= columns:
        return text
    return f"{text[:kept]}…" if columns > 0 else ""


def compared(key: str, value: str, other_key: str, other: str) -> str:
    """Two values, with what each is of: `title: A ~ name: B`, or `name: A ~ B` where that is the same."""
    keys = shown(key), shown(other_key)
    return f"{keys[0]}: {value} ~ {'' if key == other_key else f'{keys[1]}: '}{other}"


def put(*cells: str, flush: bool = False) -> None:
    """Prints a line to stdout: one for people, or the cells of a table for programs, separated by tabs.

    Raises:
        ConfigError: it cannot be written.
    """
    _write("\t".join(map(printable, cells)), flush=flush)


def put_json(text: str, *, flush: bool = False) -> None:
    """Prints JSON to stdout, in one line. Raises ConfigError if it cannot be written."""
    _write(escaped(text), flush=flush)


def flush_stdout() -> None:
    """Writes what waits. Raises ConfigError if it cannot be written."""
    with _writing():
        sys.stdout.flush()


def _write(line: str, *, flush: bool) -> None:
    with _writing():
        sys.stdout.write(line + "\n")
        if flush:
            sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever reads has enough
            raise
        discard_stdout()
        raise ConfigError(f"stdout cannot be written: {error.strerror}") from error


def open_closed_streams() -> None:
    """Opens those of stdin, stdout and stderr that are closed: else the next file takes their number.

    What is printed to stderr is then lost; printing to stdout is an error.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), "r" if name == "stdin" else "w"))


def discard_stdout() -> None:
    """What waits or follows is lost. The interpreter flushes at its end, which must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def start_log(libraries: int = logging.CRITICAL) -> None:
    """From now on the log goes to stderr.

    Args:
        libraries: the level from which on other loggers than `sameas` are heard.
    """
    sys.excepthook = _show_defect
    root = logging.getLogger()
    root.addHandler(_HANDLER)
    root.setLevel(libraries)
    log.setLevel(logging.INFO)


class _Format(logging.Formatter):
    """`sameas: text`, `sameas: warning: text`; other loggers stand with their names."""

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        origin = "" if record.name == log.name else f"{record.name}: "
        message = printable(shortened(record.getMessage(), MAX_LINE_CHARS))
        trace = f"\n{_as_lines(self.formatException(record.exc_info))}" if record.exc_info else ""
        return f"{_time(record.created)}sameas: {level}{origin}{message}{trace}"


def _as_lines(text: str) -> str:
    """A traceback, whose lines are its own and may quote anything."""
    return "\n".join(printable(shortened(line, MAX_LINE_CHARS)) for line in text.rstrip("\n").split("\n"))


def _show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(_as_lines("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr)


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
        text = printable(shortened(text, MAX_LINE_CHARS))
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


class Lasting:
    """Says what lasts: after a second, and again at growing intervals, so that an hour of it fits a screen.

    Args:
        say: how.
    """

    def __init__(self, say: Callable[[str], None] = tell) -> None:
        self._say = say
        self._text, self._since, self._due = "", 0.0, 0.0
        self.is_said = False  # since it began

    def look(self, text: str) -> None:
        """Takes note that this is so now, "" if nothing is. To be called again and again."""
        now = time.monotonic()
        if text != self._text:
            self._text, self._since, self._due, self.is_said = text, now, STILL_SECONDS, False
        seconds = now - self._since
        if text and seconds >= self._due:
            self._say(f"{text} ({seconds:,.0f} s)" if self.is_said else text)
            self._due = seconds + min(max(PLAIN_SECONDS, seconds), CALM_SECONDS)
            self.is_said = True


_waits: Final[list[Lasting]] = []  # of blocks within each other


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what the block does if it takes long. Of blocks within each other the innermost speaks."""
    lasting, ended = Lasting(), threading.Event()

    def watch() -> None:
        while not ended.wait(STILL_SECONDS):
            if _waits[-1:] == [lasting]:
                lasting.look(text)

    lasting.look(text)
    _waits.append(lasting)
    watching = threading.Thread(target=watch, name="waiting", daemon=True)
    watching.start()
    try:
        yield
    finally:
        _waits.remove(lasting)
        ended.set()
        watching.join()
