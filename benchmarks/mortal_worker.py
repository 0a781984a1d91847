"""`sameas`, but its aligner can be told to kill the process at an exact point.

    TORTURE_KILL_AT=stored:5 python -m benchmarks.mortal_worker run ...

kills with SIGKILL when the point `stored` is passed for the fifth time. The points, in the order in which a
batch passes them, are those of `POINTS`. Everything else is the worker as users run it.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import stream.engine.aligner
from sameas_command import main
from stream.engine.interface import Batch
from stream.events import Message

KILL_AT: Final = "TORTURE_KILL_AT"
POINTS: Final = (
    "recovering",  # before what a crash left is published
    "storing",  # a batch is done, but nothing is stored
    "stored",  # stored, and nothing of it published
    "published",  # the broker has everything, the outbox does not know
    "forgotten",  # before the group's offset is committed
)


class MortalAligner(stream.engine.aligner.Aligner):
    """Counts how often each point is passed."""

    _passed = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        commit = self._store.commit

        def mortal() -> None:
            self._pass("storing")
            commit()

        self._store.commit = mortal  # type: ignore[method-assign]

    def pending(self) -> Iterator[Batch]:
        self._pass("recovering")
        return super().pending()

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        batch = super().process(messages, bulk=bulk)
        self._pass("stored")
        return batch

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        self._pass("published")
        super().published(sequence, ends)
        self._pass("forgotten")

    def _pass(self, point: str) -> None:
        wanted, _, times = os.environ.get(KILL_AT, "").partition(":")
        if point == wanted:
            self._passed += 1
            if self._passed == int(times):
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    stream.engine.aligner.Aligner = MortalAligner  # type: ignore[misc]
    main()
