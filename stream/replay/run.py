"""A run of a replay on disk: its plan, its progress and its timeline."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import xxhash

from index.errors import StateError, StoreError
from index.store import lock
from stream.atomic import replace
from stream.broker.ranges import Range
from stream.broker.topics import alignments_to_read, delete_topics, find_partitions, input_specs, output_specs
from stream.config import Settings
from stream.engine.interface import Counts, EvidenceDetail, Search
from stream.errors import ConfigError
from stream.events import UNDECODABLE
from stream.replay.timeline import Timeline

LIVE: Final = "live"  # what `diff` calls the worker's own alignments
PREFIX: Final = "sameas.replay"
_T = TypeVar("_T", bound=msgspec.Struct)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run reads, with which model and settings. All but the offsets is as the command gave it."""

    since: str  # as asked for: "the beginning", a date, or a duration
    until: str
    model: str
    threshold: float
    one_to_one: bool
    search: Search = "exact"
    evidence: EvidenceDetail = "full"
    links: str  # digest of the known links
    sources: str  # digest of the mappings
    ranges: list[Range]

    @property
    def messages(self) -> int:
        """How many offsets; compaction may have left fewer messages."""
        return sum(part.end - part.start for part in self.ranges)


class RunProgress(msgspec.Struct):
    """What a run has done, in all its sessions together. A kill may lose what the last batch adds."""

    counts: Counts
    seconds: float = 0.0
    time: float = 0.0  # of the stream: when the last message of the current batch was written
    finished: bool = False


class Run:
    """A run's name, directory, and settings: the worker's with other topics and another state directory.

    Raises:
        ConfigError: the name cannot be used.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        if not _NAME.fullmatch(name) or name == LIVE:
            raise ConfigError(f"--run {name}: up to 64 letters, digits, '_' and '-', and not {LIVE!r}")
        self.name = name
        self.home = settings.state.dir.parent / "replay" / name
        outputs = {
            role: f"{PREFIX}.{name}.{role.replace('_', '-')}"
            for role in ("alignments", "alignment_events", "dead_letters")
        }
        if set(outputs.values()) & set(msgspec.structs.astuple(settings.topics)):
            raise ConfigError(
                f"--run {name}: the worker itself writes to {PREFIX}.{name}.*; take another name"
            )
        self.settings = msgspec.structs.replace(
            settings,
            topics=msgspec.structs.replace(settings.topics, **outputs),
            state=msgspec.structs.replace(settings.state, dir=self.home / "state"),
        )

    @property
    def plan(self) -> Plan | None:
        """The plan that the run was started with, None if it was not started."""
        return _read(self.home / "run.json", Plan)

    @property
    def progress(self) -> RunProgress:
        return _read(self.home / "progress.json", RunProgress) or RunProgress(Counts())

    @property
    def timeline(self) -> Timeline:
        return Timeline(self.home / "timeline.jsonl")

    def agree(self, plan: Plan) -> Plan:
        """The plan to follow: this one, or the run's own if the same command started it already.

        Raises:
            ConfigError: another command started it.
        """
        started = self.plan
        if started is None:
            return plan
        for name in ("since", "until", "model", "threshold", "one_to_one", "search", "links", "sources"):
            old, new = getattr(started, name), getattr(plan, name)
            if old != new and not (name == "links" and self.progress.finished):
                told = f"{name}={old}, not {new}"
                if name in ("links", "sources"):
                    told = f"other {'known links' if name == 'links' else 'mappings'}"
                raise ConfigError(
                    f"run {self.name} was started with {told}; take another --run, or forget this one with "
                    f"`sameas replay remove {self.name}`"
                )
        return started

    def save(self, name: str, content: msgspec.Struct) -> None:
        """Writes one of the run's files, whole or not at all. Raises StateError."""
        with self.refusals():
            replace(self.home / name, msgspec.json.encode(content))

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Turns what the file system refuses within the block into a StateError."""
        try:
            yield
        except OSError as error:
            raise StateError(
                f"run {self.name}: {error.filename or self.home}: {error.strerror}; runs are kept beside "
                "state.dir, where they need room and the right to write"
            ) from error


def run_names(settings: Settings) -> list[str]:
    """The runs that are kept beside the worker's state."""
    return sorted(path.name for path in (settings.state.dir.parent / "replay").glob("*") if path.is_dir())


def remove_run(run: Run) -> list[str]:
    """Deletes a run's topics and its directory; their names.

    Raises:
        StateError: the run is active, or its directory cannot be deleted.
        BrokerError: the topics cannot be deleted.
    """
    with run.refusals():
        has_state = run.settings.state.dir.exists()
    if has_state:
        try:
            lock(run.settings.state.dir).close()
        except StoreError as error:
            raise StateError(str(error)) from error
    gone = delete_topics(run.settings, output_specs(run.settings))
    with run.refusals():
        if run.home.exists():
            shutil.rmtree(run.home)
            gone.append(str(run.home))
    return gone


def digest(content: object) -> str:
    """16 hexadecimal digits of something that can be written as JSON."""
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(content))


def _read(path: Path, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, *UNDECODABLE) as error:
        raise StateError(f"{path}: {error}; `sameas replay remove` forgets the run") from error


def check_access(run: Run, live: Settings, *, execute: bool, report: bool) -> None:
    """Raises Refused with all rights that the command will need and the user lacks.

    Args:
        live: the worker's settings, whose alignments a report compares with.
    """
    specs = input_specs(live)
    if execute:
        specs += output_specs(run.settings)
    if report:
        specs.append(alignments_to_read(live))
    find_partitions(live, specs)
