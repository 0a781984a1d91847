"""SIGTERM and Ctrl-C end a command within seconds, whatever it is doing. A worker has a way of its own
(`stream/worker/shutdown.py`)."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

AGAIN_SECONDS = 0.1
UNWIND_SECONDS = 4.0  # which a command gets to end its processes and to remove its files
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """SIGTERM or Ctrl-C. Its code is the status that shells have for that; 0 where it is the usual end.

    What a command has to say of it are its notes (`add_note`).
    """

    code: int

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name: Final = signal.Signals(number).name


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block SIGTERM and Ctrl-C raise Interrupted; outside of the main thread it does nothing.

    What a library catches, or Python drops (while it forks, in destructors), is raised again until it is on
    its way; and then no more, as it would break into what cleans up. Python itself looks for signals between
    two steps of the main thread, which may be far apart. So another thread ends the process, with the same
    status, where the block is not left in time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised, left = threading.Event(), threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        raised.set()
        if not _is_on_its_way():
            raise Interrupted(number)

    def show_dropped(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            hook(dropped)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watching = threading.Thread(target=_watch, args=(reader, raised, left), name="interrupts", daemon=True)
    watching.start()
    hook, sys.unraisablehook = sys.unraisablehook, show_dropped
    fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, end) for number in _ENDING}
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(fd)
        os.close(writer)
        watching.join()  # before others take over what it may still send
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        os.close(reader)


def _is_on_its_way() -> bool:
    """Whether what is handled now, or led to it, is an Interrupted."""
    error = sys.exception()
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


def _watch(reader: int, raised: threading.Event, left: threading.Event) -> None:
    """From the first signal on; what is read are numbers of signals. `raised`: their handler is called."""
    main = threading.main_thread().ident
    assert main is not None
    numbers = (byte[0] for byte in iter(lambda: os.read(reader, 1), b""))
    number = next((number for number in numbers if number in _ENDING), None)
    if number is None:
        return
    deadline = time.monotonic() + UNWIND_SECONDS
    while not left.wait(AGAIN_SECONDS):
        if time.monotonic() > deadline:
            os._exit(128 + number)
        if raised.is_set():
            signal.pthread_kill(main, number)
