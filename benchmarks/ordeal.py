"""One run of `benchmarks.torture`: what is sent, who is killed where, and what came of it."""

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks.brokers import Broker
from benchmarks.chaos import Chaos
from benchmarks.mortal_worker import POINTS
from benchmarks.rig import Rig
from index.errors import SameasError
from stream.config import Settings
from stream.demo.worker_process import WorkerProcess

EVENTS = 200
EVENTS_PER_KILL = 60
EXACT_SHARE = 0.7  # of the kills happen at an exact point
LATEST_POINT = 8  # times that a point is passed before
LONGEST_LIFE = 10.0  # seconds until a worker is killed that did not pass its point
LONGEST_WORK = 2.0  # seconds from the inputs until something happens to the worker
END_SECONDS = 60.0


class Outcome(msgspec.Struct):
    """What a run did, and how many records and dead letters are not what they should be."""

    kills: int = 0
    events: int = 0
    lost: int = 0
    invented: int = 0
    seconds: float = 0.0
    scenarios: dict[str, str] = {}
    points: dict[str, int] = {}  # where the kills happened

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or invented."""
        return self.lost == self.invented == 0


class Torture:
    """One run: scenarios, each on topics of its own, and their outcome.

    Args:
        checkpoint: the model's directory.
        directory: for states and logs.
        seed: of what is sent and where workers are killed.
        kills: how many times a worker is killed in the scenario of that name.
    """

    def __init__(self, checkpoint: Path, directory: Path, seed: int, kills: int) -> None:
        self.outcome = Outcome()
        self.chance = random.Random(seed)
        self.kills = kills
        self._seed = seed
        self._checkpoint = checkpoint
        self._directory = directory
        self._points: Counter[str] = Counter()

    @contextlib.contextmanager
    def scenario(self, name: str, broker: Broker) -> Iterator[tuple[Rig, "Stream"]]:
        """Topics and a stream of inputs of its own; at the end of the block the verdict on them."""
        directory = self._directory / name.replace(" ", "-")
        directory.mkdir()
        started, before = time.monotonic(), msgspec.structs.replace(self.outcome)
        self.chance = random.Random(f"{self._seed} {name}")
        rig = Rig(broker, self._checkpoint, directory, self.chance)
        stream = Stream(rig, self._seed)
        yield rig, stream
        records = self.judge(rig)
        self.outcome.events += stream.sent
        self.outcome.points = dict(self._points)
        said = (
            f"{stream.sent} events, {records} records, lost {self.outcome.lost - before.lost}, "
            f"invented {self.outcome.invented - before.invented}, {time.monotonic() - started:.0f} s"
        )
        self.outcome.scenarios[name] = said
        tell(f"{name}: {said}")

    def judge(self, rig: Rig, outputs: Settings | None = None) -> int:
        """Compares the topics with the truth, and counts; how many records there should be.

        Args:
            outputs: whose topics have the alignments and dead letters; the worker's if not given.
        """
        verdict = rig.verdict(outputs)
        self.outcome.lost += verdict.lost
        self.outcome.invented += verdict.invented
        for example in verdict.examples:
            tell(f"    {rig.directory.name}: {example}")
        return verdict.records

    def killed(self, point: str) -> None:
        """Counts a kill."""
        self.outcome.kills += 1
        self._points[point] += 1


Scenario = Callable[[Torture, Rig, "Stream"], None]


class Stream:
    """The inputs of one scenario."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.sent = 0
        self._rig = rig
        self._seed = seed
        self._inputs = iter(Chaos(seed))

    def begin_plain(self) -> None:
        """To be called first: what two partitions say of one entity then has one outcome in any order."""
        self._inputs = iter(Chaos(self._seed, plain=True))

    def feed(self, count: int, partition: int | None = None) -> None:
        """Produces the next inputs, all to this partition if one is given, else where their keys belong."""
        self.sent += self._rig.feed(islice(self._inputs, count), partition)


def kills(torture: Torture, rig: Rig, stream: Stream) -> None:
    """One worker after the other on the same state, each killed; the last one drains."""
    for _ in range(torture.kills):
        live_and_die(torture, rig, stream)
    stream.feed(EVENTS_PER_KILL)
    rig.drain()


def live_and_die(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A worker that is killed at an exact point or at any moment; some inputs come before it, some after."""
    chance = torture.chance
    exact = chance.random() < EXACT_SHARE
    point, times = chance.choice(POINTS), chance.randint(1, LATEST_POINT)
    delay = chance.uniform(0, 1.5)
    early = chance.random() < 0.3
    if point == "recovering":
        times = 1
    stream.feed(EVENTS_PER_KILL // 2)
    with rig.worker(kill_at=f"{point}:{times}" if exact else "") as worker:
        if not exact and early:  # while it starts
            wait(worker.process, delay * 4)
        else:
            with contextlib.suppress(SameasError):  # it may die on the way
                worker.wait_until_reading()
        stream.feed(EVENTS_PER_KILL // 2)
        died = wait(worker.process, LONGEST_LIFE if exact else delay)
        if died not in (None, -9):
            raise SameasError(f"a worker ended by itself, status {died}; see {worker.log}")
        torture.killed(point if died == -9 else "any moment")


def expect_refusal(worker: WorkerProcess, *words: str) -> None:
    """The worker ends with one line that has all of these words."""
    status = wait(worker.process, END_SECONDS)
    log = worker.log.read_text(errors="replace")
    lines = [line for line in log.splitlines() if "sameas: error: " in line]
    if status != 1 or not any(all(word in line for word in words) for line in lines) or "Traceback" in log:
        raise SameasError(f"status {status} instead of a refusal with {words}; see {worker.log}")


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """The exit status, None if it still lives after that time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
