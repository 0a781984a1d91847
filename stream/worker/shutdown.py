"""Ending in bounded time: a worker whatever the broker does, a command whatever it is doing.

Faust waits for the broker while it stops; a thread that does not depend on it puts an end to that.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from stream.console import log, tell

GRACE_SECONDS = 8.0  # supervisors (Docker, systemd, people) lose patience after ten
AGAIN_SECONDS = 0.1
UNWIND_SECONDS = 4.0  # which a command gets to end its processes and to remove its files


class Deadline:
    """Ends the process `GRACE_SECONDS` after `start`. A kill loses nothing, so neither does this."""

    def __init__(self) -> None:
        self._started = False

    def start(self, reason: str = "") -> None:
        """Starts the clock; only the first call counts. `reason`: the error to log if time runs out."""
        if self._started:
            return
        self._started = True
        threading.excepthook = lambda _: None  # Faust's threads break while they stop without a broker
        timer = threading.Timer(GRACE_SECONDS, self._end, [reason])
        timer.daemon = True
        timer.start()

    @staticmethod
    def _end(reason: str) -> None:
        if reason:
            log.error(reason)
        log.warning(
            f"did not stop within {GRACE_SECONDS:.0f} s (is the broker down?); "
            "ended by force, nothing is lost"
        )
        os._exit(1)


def stop_on_signals(stop: asyncio.Event, deadline: Deadline) -> None:
    """SIGTERM and Ctrl-C set `stop` and start the deadline; a second Ctrl-C ends at once."""

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set() and number is signal.SIGINT:
            os._exit(130)
        tell(f"{number.name}, stopping")
        deadline.start()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C raise SystemExit, with the status that shells have for them.

    Python drops what is raised in some places (while it forks, in destructors), so it is raised again until
    it is on its way; and then no more, as it would break into what cleans up. Whatever holds that up, the
    process ends, then by force.
    """
    status = 0

    def end(number: int, _: FrameType | None) -> None:
        nonlocal status
        if not status:
            status = 128 + number
            timer = threading.Timer(UNWIND_SECONDS, os._exit, [status])
            timer.daemon = True
            timer.start()
            sys.unraisablehook = lambda _: None  # which would show what is dropped
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
        if not isinstance(sys.exception(), SystemExit):
            sys.exit(status)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, end)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
