"""A worker whose aligner does nothing but answer: what Faust and the broker alone cost an event.

python -m benchmarks.speed.bare_worker --config FILE [--set SECTION.KEY=VALUE]...
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from index.store import Store
from stream.config import load_settings
from stream.console import start_log
from stream.engine.interface import Batch, Counts, Dangling, Output
from stream.engine.origin import Origin
from stream.events import Message
from stream.worker.app import run_worker

RECORD = b"r" * 1200  # bytes, as long as an alignment record with its evidence
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"0123456789abcdef0123456789abcdef"),
    ("ce_source", b"sameas"),
    ("ce_type", b"sameas.alignment.revised"),
    ("ce_time", b"2026-01-01T00:00:00Z"),
]


class BareAligner:
    """Every message leads to an alignment record and an alignment event of usual sizes."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bare-")
        self._store = Store(Path(self._directory.name))
        self.origin = Origin(self._store)
        self._sequence = 0

    def pending(self) -> Iterable[Batch]:
        return []

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        outputs = []
        for message in messages:
            outputs.append(Output("alignments", message.key, RECORD))
            outputs.append(Output("alignment_events", message.key, RECORD, HEADERS))
        self.origin.apply(
            {(m.cause.topic, m.cause.partition): m.cause.offset + 1 for m in messages}, messages
        )
        self._sequence += 1
        topics = Counter(message.cause.topic for message in messages)
        return Batch(self._sequence, outputs, 0, {topic: Counts(n, n) for topic, n in topics.items()})

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        """Nothing is kept."""

    def published_ends(self) -> Mapping[int, int]:
        return {}

    def records(self) -> Iterable[tuple[bytes, bytes]]:
        return []

    def recall(self) -> Mapping[str, float]:
        return {}

    def dangling(self) -> Dangling | None:
        return Dangling({}, 0)

    def close(self) -> None:
        self._store.close()
        self._directory.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    start_log()
    run_worker(load_settings(arguments.config, {}, arguments.set), lambda: (BareAligner(), None))


if __name__ == "__main__":
    main()
