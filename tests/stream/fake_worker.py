"""A real worker around a small aligner: an upsert aligns left:ID with right:ID, a delete takes it back.

    python fake_worker.py [--kill-at store|publish:N] SECTION.KEY=VALUE...

The fake keeps its state in one JSON file that is replaced atomically, as the real one does in its store.
"""

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from index import tables
from index.entity import node_key
from index.errors import SameasError, StateError
from stream.config import Settings, load_settings
from stream.console import log, start_log
from stream.engine.interface import Batch, Counts, Dangling, Output
from stream.engine.origin import Origin
from stream.errors import InvalidInput
from stream.events import (
    Delete,
    Message,
    alignment_key,
    decode_entity_event,
)
from stream.worker.app import run_worker
from tests.stream.records import aligned_pair


class State(msgspec.Struct):
    """All of it, as it stands in the file."""

    next: dict[str, int] = {}  # offset by topic/partition
    sequence: int = 0
    outbox: list[Output] = []
    records: dict[str, str] = {}
    ends: dict[int, int] = {}
    backlog: int = 0
    origin: dict[str, bytes] = {}


class FakeOrigin(Origin):
    """The real one on a part of the state, and with the offsets that stand there."""

    def __init__(self, aligner: "FakeAligner") -> None:
        self._aligner = aligner
        self._store: Any = self

    def get(self, key: bytes) -> bytes | None:
        if key.startswith(tables.OFFSETS):
            offset = self._aligner.state.next.get(_readable(key))
            return None if offset is None else node_key(offset)
        return self._aligner.state.origin.get(key.decode("latin-1"))

    def put(self, key: bytes, value: bytes) -> None:
        if key.startswith(tables.OFFSETS):
            self._aligner.state.next[_readable(key)] = int.from_bytes(value, "big")
        else:
            self._aligner.state.origin[key.decode("latin-1")] = value

    def scan(self, prefix: bytes) -> Iterable[tuple[bytes, bytes]]:
        found = {key.encode("latin-1"): value for key, value in self._aligner.state.origin.items()}
        return [(key, value) for key, value in found.items() if key.startswith(prefix)]

    def commit(self) -> None:
        self._aligner.store()


def _readable(key: bytes) -> str:
    return key[1:].decode().replace("\0", "/")


class FakeAligner:
    """The interface of the aligner, with a decision anyone can foresee."""

    def __init__(self, settings: Settings, kill_at: str = "") -> None:
        self._file = settings.state.dir / "fake.json"
        self._lock = settings.state.dir / "fake.lock"
        self._links = settings.topics.links
        self._kill_at = kill_at
        settings.state.dir.mkdir(parents=True, exist_ok=True)
        self._claim()
        self.state = (
            msgspec.json.decode(self._file.read_bytes(), type=State) if self._file.exists() else State()
        )
        self.origin = FakeOrigin(self)

    def _claim(self) -> None:
        try:
            pid = int(self._lock.read_text())
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            self._lock.write_text(str(os.getpid()))
        else:
            raise StateError(f"state directory {self._lock.parent} is in use by process {pid}")

    def pending(self) -> Sequence[Batch]:
        outbox = self.state.outbox
        return [Batch(self.state.sequence, outbox, 0)] if outbox else []

    def recall(self) -> Mapping[str, float]:
        return {"name": 1.0}

    def dangling(self) -> Dangling | None:
        return Dangling({}, 0)

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        state, topics, outputs = self.state, defaultdict[str, Counts](Counts), list[Output]()
        for message in messages:
            cause = message.cause
            counts = topics[cause.topic]
            counts.received += 1
            place = (cause.topic, cause.partition)
            if cause.offset < (self.origin.next_offset(*place) or 0):
                counts.stale += 1
                continue
            self.origin.apply({place: cause.offset + 1}, [message])
            if message.value == b"slow":
                print("slow batch", file=sys.stderr, flush=True)
                time.sleep(30)
            if message.value == b"defect":
                raise RuntimeError("a defect in the aligner")
            try:
                outputs.append(self._apply(message))
                counts.applied += 1
            except InvalidInput as error:
                headers = [("reason", error.reason.encode()), ("topic", cause.topic.encode())]
                outputs.append(Output("dead_letters", message.key, message.value, headers))
                counts.dead_lettered += 1
        state.backlog = max(0, state.backlog + (2 if messages else -1))
        state.sequence += 1
        state.outbox = outputs
        for output in outputs:
            if output.kind == "alignments" and output.value is None:
                state.records.pop((output.key or b"").decode(), None)
            elif output.kind == "alignments":
                state.records[(output.key or b"").decode()] = (output.value or b"").decode()
        self.store()
        self._maybe_die("store")
        return Batch(state.sequence, outputs, state.backlog, topics)

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        self._maybe_die("publish")
        self.state.outbox = []
        if ends is not None:
            self.state.ends = dict(ends)
        self.store()

    def published_ends(self) -> Mapping[int, int]:
        return self.state.ends

    def records(self) -> Iterable[tuple[bytes, bytes]]:
        return [(key.encode(), value.encode()) for key, value in self.state.records.items()]

    def close(self) -> None:
        self._lock.unlink()

    def _apply(self, message: Message) -> Output:
        event = decode_entity_event(message.key, message.value)
        subject, target = f"left:{event.id}", f"right:{event.id}"
        key = alignment_key(subject, target).encode()
        if isinstance(event, Delete):
            return Output("alignments", key, None)
        record = aligned_pair(
            subject, target, revision=message.cause.offset, model="fake", cause=message.cause
        )
        return Output("alignments", key, msgspec.json.encode(record))

    def store(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(self.state))
        new.replace(self._file)

    def _maybe_die(self, stage: str) -> None:
        wanted, _, batch = self._kill_at.partition(":")
        if wanted == stage and self.state.sequence >= int(batch):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill-at", default="")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    start_log()
    settings = load_settings(Path(os.devnull), overrides=arguments.overrides)
    try:
        run_worker(settings, lambda: (FakeAligner(settings, arguments.kill_at), None))
    except SameasError as error:
        log.error(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
