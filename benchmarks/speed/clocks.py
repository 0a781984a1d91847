"""CPU, wall and memory of this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import msgspec

from stream.engine.interface import Laps

PAGE = 4096
Stages = dict[str, float]  # seconds


class Clock(NamedTuple):
    """Seconds: of the whole process on all cores, and on the wall."""

    cpu: float
    wall: float

    def later(self, wall: float) -> "Clock":
        """With so many seconds more on the wall."""
        return Clock(self.cpu, self.wall + wall)

    def __sub__(self, other: "Clock") -> "Clock":
        return Clock(self.cpu - other.cpu, self.wall - other.wall)


class Part(msgspec.Struct):
    """A stretch of the run; CPU seconds by stage, "other threads" included."""

    name: str
    entities: int
    wall: float
    cpu: float
    stages: Stages
    stages_wall: Stages


def now() -> Clock:
    """Both clocks."""
    return Clock(time.process_time(), time.perf_counter())


def resident(pid: int | str = "self") -> int:
    """Bytes that a process has in memory now. Linux only."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def disk(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@contextmanager
def stage_cpu() -> Iterator[Stages]:
    """While it lasts, CPU seconds of the aligner's thread add up here by stage.

    `Batch.stages` has the wall seconds. Both clocks in every batch would cost a stream for the sake of this
    benchmark, so the aligner's stopwatch is exchanged instead.
    """
    total: Stages = {}

    class CpuLaps(Laps):
        def __init__(self) -> None:
            super().__init__()
            self._cpu_at = time.thread_time()

        def end(self, stage: str) -> None:
            super().end(stage)
            cpu = time.thread_time()
            total[stage] = total.get(stage, 0.0) + cpu - self._cpu_at
            self._cpu_at = cpu

    with mock.patch("stream.engine.aligner.Laps", CpuLaps):
        yield total
