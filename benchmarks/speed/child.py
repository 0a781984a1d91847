"""Each measurement in a process of its own: its memory starts small, and it may end like a killed worker."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import ParamSpec, TypeVar

import torch

from index.errors import SameasError
from stream.demo.child import answer_of

P = ParamSpec("P")
T = TypeVar("T")


def in_child(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function returns in a fresh process, which kills itself afterwards: nothing is closed there.

    Raises:
        SameasError: the process ended without an answer.
    """
    return answer_of(multiprocessing.get_context("spawn"), _answer, function, args, kwargs)


def _answer(
    connection: Connection,
    function: Callable[..., object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> None:
    torch.set_num_threads(1)
    try:
        answer = function(*args, **kwargs)
    except SameasError as error:
        answer = error
    connection.send(answer)
    os.kill(os.getpid(), signal.SIGKILL)
