"""Ending in bounded time, whatever the broker does.

Faust waits for the broker while it stops; a thread that does not depend on it puts an end to that.
"""

import asyncio
import os
import signal
import threading

from stream.console import log, tell

GRACE_SECONDS = 8.0  # supervisors (Docker, systemd, people) lose patience after ten


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
