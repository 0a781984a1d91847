"""What people see: text and nothing else; on stderr one voice, with the time where that is no terminal."""

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from index.errors import MAX_MESSAGE_CHARS
from stream import console
from stream.cli import main
from stream.console import (
    Lasting,
    compared,
    escaped,
    flush_stdout,
    log,
    printable,
    progress,
    put,
    put_json,
    start_log,
    tell,
    waiting,
)
from stream.errors import ConfigError, InvalidInput
from tests.stream.workers import until

ROOT = Path(__file__).resolve().parent.parent.parent
# clears a screen, also in C1, writes a clipboard, goes back in the line, turns the writing, breaks the line
HOSTILE = "\x1b[2J\x1b]52;c;eA==\x07\r\x9b2J\u202e\u2028\nsameas: error: forged"


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


def is_text(line: str) -> bool:
    """Whether a line steers nothing."""
    return not any(
        unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs") or sign in "\u202e" for sign in line
    )


def test_a_value_is_shortened_and_steers_no_terminal() -> None:
    assert console.shown("a\x1b[2Kb") == "a�[2Kb"
    assert len(console.shown("x" * 100)) == console.MAX_VALUE_CHARS


@given(st.text(st.characters(codec="utf-8")))
def test_whatever_is_shown_is_text_and_whatever_is_json_says_the_same(text: str) -> None:
    assert is_text(printable(text)) and len(printable(text)) == len(text)
    line = escaped(json.dumps({text: [text]}, ensure_ascii=False, indent=1))
    assert is_text(line) and json.loads(line) == {text: [text]}


def test_scripts_that_need_joiners_keep_them() -> None:
    texts = [
        "می\u200cخواهم",
        "क्\u200dष",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "東京\u3000都",
        "a\u0301",
    ]
    assert [printable(text) for text in texts] == texts
    assert printable("half a pair: \ud800") == "half a pair: �"  # which could not be written


def test_what_is_told_is_one_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = listen(monkeypatch, Terminal())
    tell(f"fed {HOSTILE}")
    log.error(f"failed: {HOSTILE}{'x' * 100_000}, see the log")
    told, failed = terminal.getvalue().removesuffix("\n").split("\n")
    assert is_text(told) and told.startswith("sameas: fed �[2J")
    assert is_text(failed) and len(failed) < 2 * console.MAX_LINE_CHARS and failed.endswith(", see the log")


def test_progress_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = listen(monkeypatch, Terminal())
    with progress() as show:
        show(HOSTILE)
    line, gone = terminal.getvalue()[: -len("\r\x1b[2K")], terminal.getvalue()[-len("\r\x1b[2K") :]
    assert is_text(line) and gone == "\r\x1b[2K"


def test_a_traceback_is_lines_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = listen(monkeypatch, Terminal())
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        log.exception("a defect")
        sys.excepthook(type(error), error, error.__traceback__)
    lines = terminal.getvalue().split("\n")
    assert all(map(is_text, lines)) and lines.count("Traceback (most recent call last):") == 2


def test_an_error_keeps_its_beginning_and_its_end() -> None:
    error = InvalidInput("missing-column", f"films.csv:3: no column {'x' * 10_000_000}; rename it")
    assert len(str(error)) == MAX_MESSAGE_CHARS
    assert str(error).startswith("films.csv:3: no column x") and str(error).endswith("x; rename it")
    assert str(InvalidInput("malformed", "short")) == "short"


def test_lines_on_stdout_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    put(f"a{HOSTILE}", "b\tc")
    put_json(json.dumps({"a": HOSTILE}, ensure_ascii=False, indent=1))
    table, line, rest = capsys.readouterr().out.split("\n")
    one, other = table.split("\t")
    assert is_text(one) and other == "b�c" and rest == ""
    assert is_text(line) and json.loads(line) == {"a": HOSTILE}


def test_a_full_disk_under_stdout_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        put("first")
        with pytest.raises(ConfigError, match="stdout cannot be written: No space left on device"):
            flush_stdout()
        put("second")  # goes nowhere, so that leaving the process is quiet
        flush_stdout()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["config", "--help"], ["config", "show"]])
def test_that_is_so_for_whatever_a_command_prints(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, words: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main.main(words)
    assert ended.value.code == 1
    assert caplog.messages == ["stdout cannot be written: No space left on device"]


@pytest.mark.parametrize(
    ("closed", "status", "said"), [(1, 1, "stdout cannot be written: Bad file descriptor"), (2, 0, "")]
)
def test_a_stream_that_the_caller_closed_is_no_defect(closed: int, status: int, said: str) -> None:
    """Its number would be that of the next file; a log to it went to stdout."""
    ended = subprocess.run(
        f"{sys.executable} -m sameas_command config show {closed}>&-",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, said in ended.stderr) == (status, True)
    assert ended.stderr.count("\n") == status and (ended.stdout.count("\n") > 1) == (closed == 2)


def test_a_wrong_word_on_the_command_line_is_shown_as_text() -> None:
    result = CliRunner().invoke(main, [f"serve{HOSTILE}"])
    assert result.exit_code == 2 and all(map(is_text, result.stderr.split("\n")))


def test_each_value_is_shown_with_what_it_is_of() -> None:
    assert compared("name", "A", "name", "B") == "name: A ~ B"
    assert compared("name", "A", "kind", "B") == "name: A ~ kind: B"
    assert compared("a\x1b[31m", "A", "a\x1b[31m", "B") == "a\ufffd[31m: A ~ B"


def test_nothing_else_writes_to_stdout_or_stderr() -> None:
    writers = {"print", "click.echo", "click.secho"}
    writers |= {f"sys.{name}.{write}" for name in ("stdout", "stderr") for write in ("write", "buffer.write")}
    found = {
        str(path.relative_to(ROOT))
        for room in ("stream", "model", "index")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in writers
    }
    assert found == {"stream/console.py"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock for what lasts: the seconds that it shows."""
    now = [1000.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_what_lasts_for_an_hour_fits_a_screen(clock: list[float]) -> None:
    said: list[str] = []
    lasting = Lasting(said.append)
    for _ in range(3600):
        lasting.look("no broker")
        clock[0] += 1
    assert said[:4] == ["no broker", "no broker (6 s)", "no broker (12 s)", "no broker (24 s)"]
    assert 10 < len(said) < 20 and said[-1].partition("(")[2] > "3,000"


def test_what_does_not_last_is_not_said_and_what_comes_again_begins_anew(clock: list[float]) -> None:
    said: list[str] = []
    lasting = Lasting(said.append)
    for text, seconds in (("a", 0.9), ("", 9), ("a", 0.9), ("b", 1), ("b", 9), ("b", 1), ("", 0), ("b", 1)):
        lasting.look(text)
        clock[0] += seconds
    assert not lasting.is_said
    lasting.look("b")
    assert lasting.is_said and said == ["b", "b (10 s)", "b"]


def test_of_what_is_waited_for_the_innermost_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with waiting("too quick to be said"):
        pass
    monkeypatch.setattr(console, "STILL_SECONDS", 0.01)
    with waiting("the whole"):
        with waiting("its first step"):
            until(lambda: "its first step" in caplog.text, "a line")
            assert "the whole" not in caplog.text
        until(lambda: "the whole" in caplog.text, "a line")
    assert "too quick" not in caplog.text
