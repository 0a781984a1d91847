"""A worker as an operator sees it: a process with a log, and metrics over HTTP."""

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from index.errors import SameasError
from stream.broker.embedded import end_with_parent
from stream.demo.measuring import free_port

START_SECONDS = 60.0
STOP_SECONDS = 15.0
STALL_SECONDS = 60.0  # without any progress a worker is stuck
POLL_SECONDS = 0.1
READS = "messages behind"  # what a worker says when it has its partitions

# -P: modules are not looked for in the working directory, where a `model.py` may lie.
SAMEAS_RUN = ("-P", "-m", "sameas_command", "run")

EVENTS_METRIC = "sameas_events_total"
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.M)


class Status(msgspec.Struct, frozen=True):
    """What a worker's metrics say: messages applied, stale or dead-lettered; entities that wait."""

    received: int
    backlog: int
    dead_lettered: int


class WorkerProcess:
    """`sameas run` as a child process."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
        self.process = process
        self._address = address
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def status(self) -> Status:
        """The worker's figures. Raises SameasError when it has ended."""
        samples = _SAMPLE.findall(self._get("/metrics"))
        by_outcome = {labels: float(value) for name, labels, value in samples if name == EVENTS_METRIC}
        backlog = sum(float(value) for name, _, value in samples if name == "sameas_backlog_entities")
        return Status(
            int(sum(by_outcome.values())),
            int(backlog),
            int(sum(value for labels, value in by_outcome.items() if 'outcome="dead_lettered"' in labels)),
        )

    def wait_until_done(self, messages: int, each: Callable[[Status], None] = lambda status: None) -> None:
        """Returns when so many messages are received and nothing waits; `each` is given the figures.

        Raises:
            SameasError: the worker ended, or nothing moved for a minute.
        """
        last, moved = None, time.monotonic()
        done = 0
        while True:
            status = self.status()
            each(status)
            # Twice, because the figures of one batch do not change in one instant.
            done = done + 1 if status.received >= messages and status.backlog == 0 else 0
            if done == 2:
                return
            if status != last:
                last, moved = status, time.monotonic()
            elif time.monotonic() - moved > STALL_SECONDS:
                raise SameasError(
                    f"the worker has not moved for {STALL_SECONDS:.0f} s at {status.received:,} of "
                    f"{messages:,} messages: {self._last_words()}"
                )
            time.sleep(POLL_SECONDS)

    def wait_until_reading(self) -> None:
        """It may be behind then. Raises SameasError when it ends, or does not read in a minute."""
        deadline = time.monotonic() + START_SECONDS
        while READS not in self.log.read_text(errors="replace"):
            self._check_alive()
            if time.monotonic() > deadline:
                raise SameasError(
                    f"the worker did not read after {START_SECONDS:.0f} s: {self._last_words()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ends the worker by SIGTERM, or by SIGKILL if that does not help."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _get(self, path: str) -> str:
        self._check_alive()
        try:
            with urllib.request.urlopen(f"http://{self._address}{path}", timeout=10) as answer:
                text: str = answer.read().decode()
        except http.client.HTTPException as error:  # killed in the middle of its answer
            raise ConnectionError(f"the worker's answer to {path} broke off") from error
        return text

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            raise SameasError(f"the worker ended (status {self.process.returncode}): {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].partition("Z sameas: ")[2] or lines[-1] if lines else "it said nothing"


@contextlib.contextmanager
def worker_process(
    config: Path, overrides: Sequence[str], log: Path, program: Sequence[str] = SAMEAS_RUN
) -> Iterator[WorkerProcess]:
    """A worker that reads. It ends with the block, at once if a signal to this process ends the block.

    Args:
        config: its `sameas.toml`.
        overrides: "section.key=value", as `--set` takes them. The environment does not count.
        log: where its stderr goes.
        program: what Python runs, in place of `sameas run`.

    Raises:
        SameasError: it ended, or does not read in a minute; with the last line of its log.
    """
    address = f"127.0.0.1:{free_port()}"
    settings = [*overrides, f"metrics.port={address.partition(':')[2]}"]
    command = [sys.executable, *program, "--config", str(config)]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAMEAS_")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the command around it, which then stops it
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
    worker = WorkerProcess(process, address, log)
    try:
        worker.wait_until_reading()
        yield worker
    except (KeyboardInterrupt, SystemExit):
        process.kill()  # nothing is lost by that, and it may take seconds to end by itself
        raise
    finally:
        worker.stop()
