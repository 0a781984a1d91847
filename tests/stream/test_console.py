"""What people see on stderr: one voice, with the time where that is no terminal."""

import io
import logging
import re
import sys

import pytest

from stream import console
from stream.console import compared, log, progress, start_log, tell


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def listen(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> io.StringIO:
    """In the test itself: pytest puts its own stderr in place after the fixtures."""
    start_log()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_lines_begin_with_their_time_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = listen(monkeypatch, io.StringIO())
    tell("ready: all of it")
    log.warning("100% of it")
    with progress() as show:
        show("feeding")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    lines = ["sameas: ready: all of it", "sameas: warning: 100% of it", "  feeding"]
    assert re.fullmatch("".join(f"{time} {line}\n" for line in lines), stream.getvalue())


def test_a_line_in_place_gives_way_to_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = listen(monkeypatch, Terminal())
    with progress() as show:
        show("feeding")
        tell("warned")
    tell("done")
    gone = "\r\x1b[2K"
    assert terminal.getvalue() == f"   feeding{gone}sameas: warned\n   feeding{gone}sameas: done\n"


def test_libraries_are_heard_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = listen(monkeypatch, Terminal())
    library = logging.getLogger("library")
    library.error("unheard")
    start_log(libraries=logging.INFO)
    library.warning("heard")
    start_log()
    assert terminal.getvalue() == "sameas: warning: library: heard\n"


def test_a_value_is_shortened_and_steers_no_terminal() -> None:
    assert console.shown("a\x1b[2Kb") == "a�[2Kb"
    assert len(console.shown("x" * 100)) == console.MAX_VALUE_CHARS


def test_each_value_is_shown_with_what_it_is_of() -> None:
    assert compared("name", "A", "name", "B") == "name: A ~ B"
    assert compared("name", "A", "kind", "B") == "name: A ~ kind: B"
    assert compared("a\x1b[31m", "A", "a\x1b[31m", "B") == "a\ufffd[31m: A ~ B"
