"""A step in a process of its own, so that its memory is free again afterwards."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from typing import ParamSpec, TypeVar

from index.errors import SameasError
from stream.broker.embedded import end_with_parent

P = ParamSpec("P")
T = TypeVar("T")


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls the function in a forked process, which never outlives this call. Returns what it returns.

    Raises:
        SameasError: the function raised it, or the process ended without an answer; of a defect it has
            shown the traceback.
    """
    return answer_of(multiprocessing.get_context("fork"), _answer, function, args, kwargs)


def answer_of(
    context: ForkContext | SpawnContext,
    target: Callable[..., None],
    function: Callable[..., T],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> T:
    """What `target` answers in a process that ends with this call.

    Args:
        target: is given a connection, the function and its arguments; sends what the function returned, or
            the SameasError that it raised.

    Raises:
        SameasError: the answer is one, or there is none.
    """
    ours, theirs = context.Pipe(duplex=False)
    # no daemon: it may have such a child of its own
    process = context.Process(target=target, args=(theirs, function, args, kwargs))
    process.start()
    try:
        theirs.close()
        answer = ours.recv()
    except EOFError:
        process.join()
        raise SameasError(f"{function.__name__} ended with status {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(answer, SameasError):
        raise answer
    result: T = answer
    return result


def _answer(
    connection: Connection,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which then ends this process
    if sys.platform == "linux":
        end_with_parent()
    try:
        answer = function(*args, **kwargs)
    except SameasError as error:
        answer = error
    connection.send(answer)
