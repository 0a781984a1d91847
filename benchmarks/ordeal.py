"""One run of `benchmarks.torture`: what is sent, who is killed where, and what came of it."""

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks.chaos import Chaos
from benchmarks.mortal_worker import POINTS
from benchmarks.rig import Rig
from index.errors import SameasError

EVENTS_PER_KILL = 60
EXACT_SHARE = 0.7  # of the kills happen at an exact point
LATEST_POINT = 8  # times that a point is passed before
LONGEST_LIFE = 10.0  # seconds until a worker is killed that did not pass its point


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
    """One run: scenarios, each on topics of its own, and their outcome."""

    def __init__(self, checkpoint: Path, directory: Path, seed: int) -> None:
        self.outcome = Outcome()
        self.chance = random.Random(seed)
        self._seed = seed
        self._checkpoint = checkpoint
        self._directory = directory
        self._points: Counter[str] = Counter()

    @contextlib.contextmanager
    def scenario(self, name: str, bootstrap: str) -> Iterator[tuple[Rig, "Stream"]]:
        """Topics and a stream of inputs of its own; at the end of the block the verdict on them."""
        directory = self._directory / name.replace(" ", "-")
        directory.mkdir()
        started = time.monotonic()
        rig = Rig(bootstrap, self._checkpoint, directory)
        stream = Stream(rig, self._seed)
        yield rig, stream
        verdict = rig.verdict()
        self.outcome.events += stream.sent
        self.outcome.lost += verdict.lost
        self.outcome.invented += verdict.invented
        self.outcome.points = dict(self._points)
        said = (
            f"{stream.sent} events, {verdict.records} records, lost {verdict.lost}, "
            f"invented {verdict.invented}, {time.monotonic() - started:.0f} s"
        )
        self.outcome.scenarios[name] = said
        tell(f"{name}: {said}")
        for example in verdict.examples:
            tell(f"    {example}")

    def killed(self, point: str) -> None:
        """Counts a kill."""
        self.outcome.kills += 1
        self._points[point] += 1


class Stream:
    """The inputs of one scenario."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.sent = 0
        self._rig = rig
        self._inputs = iter(Chaos(seed))

    def feed(self, count: int) -> None:
        """Produces the next inputs."""
        self.sent += self._rig.feed(islice(self._inputs, count))


def kills(torture: Torture, bootstrap: str, count: int, name: str = "kills") -> None:
    """One worker after the other on the same state, each killed; the last one drains."""
    with torture.scenario(name, bootstrap) as (rig, stream):
        for _ in range(count):
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


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """The exit status, None if it still lives after that time."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
