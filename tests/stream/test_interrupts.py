"""SIGTERM and Ctrl-C in the middle of what commands do: the signal is raised where the work is."""

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.catalogues import catalogues
from stream import console, interrupts
from stream.atomic import replace
from stream.cli import main
from stream.events import Upsert
from stream.interrupts import Interrupted, interruptible
from stream.learning.workspace import Workspace

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
FOREVER = threading.Event()


@BOTH
def test_a_signal_is_raised_and_its_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before
    assert "interrupts" not in {thread.name for thread in threading.enumerate()}


@BOTH
def test_what_swallowed_it_is_interrupted_again(number: signal.Signals) -> None:
    with pytest.raises(Interrupted), interruptible():
        with contextlib.suppress(BaseException):
            signal.raise_signal(number)
        FOREVER.wait()


def test_what_cleans_up_is_not_broken_into() -> None:
    cleaned = []

    def files() -> Generator[None, None, None]:
        try:
            yield
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append("files")

    with pytest.raises(ValueError), interruptible():
        try:
            with contextlib.closing(files()) as opened:
                next(opened)
                signal.raise_signal(signal.SIGINT)
        except Interrupted:
            signal.raise_signal(signal.SIGINT)
            cleaned.append("processes")
            raise ValueError("what became of it") from None
    assert cleaned == ["files", "processes"]


def test_what_does_not_come_back_ends_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, statuses = threading.Event(), set[int]()

    def end(status: int) -> None:
        statuses.add(status)
        ended.set()

    monkeypatch.setattr(interrupts, "UNWIND_SECONDS", 0)
    monkeypatch.setattr(os, "_exit", end)
    signal_handler = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(Interrupted), interruptible():
        signal.signal(signal.SIGTERM, lambda *_: None)  # as if Python never came to ask for it
        signal.raise_signal(signal.SIGTERM)
        assert ended.wait(30)
    assert statuses == {143}
    assert signal.getsignal(signal.SIGTERM) is signal_handler


Interrupt = Callable[[str], None]


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Has a signal raised when progress shows a line."""

    def at(pattern: str) -> None:
        @contextlib.contextmanager
        def progress() -> Iterator[Callable[[str], None]]:
            yield lambda text: signal.raise_signal(signal.SIGTERM) if re.search(pattern, text) else None

        monkeypatch.setattr(console, "progress", progress)
        monkeypatch.setattr("stream.commands.train.progress", progress)

    return at


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Catalogues and links, in the current directory; temporary files beside them."""
    (tmp_path / "work").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    Path("all.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, catalogues())))
    Path("links.csv").write_text("left,right\n" + "".join(f"left:f{n},right:f{n}\n" for n in range(60)))
    return tmp_path


def run(*words: object) -> Result:
    with interruptible():
        return CliRunner().invoke(main, list(map(str, words)))


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("retrieving", ""),
        ("epoch 2 of", ", and what 2 epochs have taught is lost"),
    ],
)
def test_train_says_what_is_lost(interrupt_at: Interrupt, folder: Path, stage: str, said: str) -> None:
    interrupt_at(stage)
    result = run("train", "all.jsonl", "--links", "links.csv", "--model", "model")
    assert result.exit_code == 143
    assert f"sameas: error: interrupted by SIGTERM; no model is written into model{said}\n" in result.stderr
    assert not [*Path("model").iterdir(), *(folder / "tmp").glob("sameas-*")]


def test_catalogues_that_are_not_read_to_the_end_leave_nothing(folder: Path) -> None:
    def broken() -> Iterator[Upsert]:
        yield from catalogues(1)
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted) as caught, interruptible():
        Workspace(broken())
    assert not list((folder / "tmp").iterdir()), caught


def test_align_leaves_nothing(interrupt_at: Interrupt, folder: Path, checkpoint: Path) -> None:
    interrupt_at("aligning")
    before = sorted(Path().iterdir())
    result = run("align", "all.jsonl", "--model", checkpoint)
    assert result.exit_code == 143 and result.stdout == ""
    assert "sameas: error: interrupted by SIGTERM\n" in result.stderr
    assert sorted(Path().iterdir()) == before and not list((folder / "tmp").iterdir())


@BOTH
@pytest.mark.parametrize(
    ("words", "is_awaited"),
    [
        ("topics", False),
        ("feed all.jsonl", False),
        ("subscribe", True),
        ("subscribe --exit", False),
        ("subscribe --sssom", False),
        ("link x:1 y:1", False),
        ("erase x:1", False),
        ("dead-letters list", False),
        ("replay diff live r", False),
    ],
)
def test_a_broker_that_never_answers_holds_up_nothing(
    folder: Path, words: str, is_awaited: bool, number: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            os.kill(os.getpid(), number)
            FOREVER.wait(10)
            connection.close()

        threading.Thread(target=accept, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        result = run(*words.split(), "--set", f"kafka.bootstrap_servers={address}")
    assert result.exit_code == (0 if is_awaited else 128 + number)
    assert result.stderr.count("\n") == (0 if is_awaited else 1)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    replace(file, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted), interruptible():
        replace(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
