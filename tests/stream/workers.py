"""Helpers for tests with real processes: start, wait for a line, stop, and look into topics."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import psutil
from click.testing import CliRunner, Result
from kafka import KafkaProducer, TopicPartition

from stream.broker.connection import admin_client
from stream.broker.reading import read_topic
from stream.cli import main
from stream.config import KafkaSettings, Settings, StateSettings, TopicSettings
from stream.consuming.alignments import current_alignments
from stream.events import Delete, EntityEvent, Upsert

ROOT = Path(__file__).resolve().parent.parent.parent
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
SESSION_SECONDS = 3.0  # what the embedded broker needs; its groups form in half of that
READS = r"sameas: reads .*messages behind"  # what a worker says that has the partitions
STANDBY = r"sameas: ready: standing by"  # and one that has none
DONE_SECONDS = 120.0  # for a whole command, on a busy machine; a group may have to time out first


def own_settings(bootstrap: str, directory: Path) -> Settings:
    """Settings with a group, topics and a state directory that no other test uses."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=bootstrap, group_id=name, session_timeout_seconds=SESSION_SECONDS
        ),
        topics=TopicSettings(
            entities=f"{name}.entities",
            links=f"{name}.links",
            alignments=f"{name}.alignments",
            alignment_events=f"{name}.alignment_events",
            dead_letters=f"{name}.dead_letters",
        ),
        state=StateSettings(dir=directory / "state"),
    )


class Process:
    """A child process whose stderr and stdout go to a file."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        self.state = Path()  # a fake worker's file
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=log.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """Returns the text of the first match in the output, which has to come while the process lives."""
        found: str = until(lambda: self._search(pattern), f"{pattern!r} in the output", self)
        return found

    def _search(self, pattern: str) -> str | None:
        alive = self.process.poll() is None
        match = re.search(pattern, self.text)
        if match is None and not alive:
            raise AssertionError(f"ended with {self.process.returncode} before {pattern!r}:\n{self.text}")
        return match[0] if match else None

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Sends the signal; the exit status, which has to come within the time."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = DONE_SECONDS) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.text}") from None


def until(condition: Any, what: str, process: Process | None = None) -> Any:
    """Polls until the condition is true and returns its value."""
    deadline = time.monotonic() + DONE_SECONDS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(
                f"no {what} within {DONE_SECONDS} s" + (f":\n{process.text}" if process else "")
            )
        time.sleep(0.05)


def lives(process: psutil.Process) -> bool:
    """A zombie does not: it has ended, and init has not asked for it yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def worker(settings: Settings, name: str = "worker", kill_at: str = "", **more: str) -> Process:
    """A worker around the fake aligner, with these settings; `more` as section__key=value."""
    directory = settings.state.dir.parent
    overrides = {
        "kafka.bootstrap_servers": settings.kafka.bootstrap_servers,
        "kafka.group_id": settings.kafka.group_id,
        "kafka.session_timeout_seconds": settings.kafka.session_timeout_seconds,
        **{f"topics.{key}": value for key, value in msgspec.structs.asdict(settings.topics).items()},
        "state.dir": directory / f"state-{name}",
        "align.batch_size": 50,
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    process = Process(
        [
            sys.executable,
            str(FAKE_WORKER),
            *([f"--kill-at={kill_at}"] if kill_at else []),
            *(f"{key}={value}" for key, value in overrides.items()),
        ],
        directory / f"{name}-{time.monotonic_ns()}.log",
    )
    process.state = directory / f"state-{name}" / "fake.json"
    return process


def sameas(*arguments: str, log: Path, **environment: str) -> Process:
    """The command line, as people start it."""
    return Process([sys.executable, "-m", "sameas_command", *arguments], log, **environment)


def cli_environment(settings: Settings, **more: str) -> dict[str, str]:
    """The settings of a test as the command line takes them; `more` as section__key=value."""
    values = {
        "kafka__bootstrap_servers": settings.kafka.bootstrap_servers,
        "kafka__group_id": settings.kafka.group_id,
        "kafka__session_timeout_seconds": settings.kafka.session_timeout_seconds,
        "state__dir": settings.state.dir,
        **{f"topics__{key}": value for key, value in msgspec.structs.asdict(settings.topics).items()},
        **more,
    }
    return {f"SAMEAS_{key.upper()}": str(value) for key, value in values.items()}


def command(settings: Settings, *words: str, **more: str) -> Result:
    """The command line in this process; `more` as section__key=value."""
    done = CliRunner().invoke(main, words, env=cli_environment(settings, **more))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def upserts(numbers: Iterable[int]) -> list[EntityEvent]:
    return [Upsert(source="x", id=str(number), type="thing") for number in numbers]


def deletes(numbers: Iterable[int]) -> list[EntityEvent]:
    return [Delete(source="x", id=str(number)) for number in numbers]


def produce(settings: Settings, topic: str, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
    """Raw records, as anybody may write them."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    try:
        for key, value in records:
            producer.send(topic, key=key, value=value)
        producer.flush(timeout=30)
    finally:
        producer.close(timeout=5)


def aligned(settings: Settings) -> set[str]:
    """The numbers that are aligned now."""
    return {record.subject_id.removeprefix("left:") for record in current_alignments(settings).values()}


def wait_until_aligned(settings: Settings, expected: set[str], process: Process) -> None:
    until(lambda: aligned(settings) == expected, "expected alignments", process)


def dead_letters(settings: Settings) -> list[Any]:
    return list(read_topic(settings, settings.topics.dead_letters))


def numbers(*several: range) -> set[str]:
    return {str(number) for one in several for number in one}


def committed(settings: Settings) -> int | None:
    """The group's offset in the entity topic."""
    with admin_client(settings.kafka) as admin:
        offsets = admin.list_group_offsets(settings.kafka.group_id)[settings.kafka.group_id]
    found = offsets.get(TopicPartition(settings.topics.entities, 0))
    return None if found is None else int(found.offset)


def fetch(url: str) -> str:
    """What a server answers, also when it refuses."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())
