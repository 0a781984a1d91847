"""Whether addresses answer, found out before a library is asked that would wait for some of it for ever.

kafka-python has no deadline for a TLS handshake, and takes one of several addresses by chance.
"""

import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterable

LATE_SECONDS = 0.5  # for those which know better than "no answer"

# ApiVersions, version 0, correlation id 0, no client id: what every broker answers, also before a login
_QUESTION = struct.pack(">ihhih", 10, 18, 0, 0, -1)


def first_to_answer(
    addresses: Iterable[str], context: ssl.SSLContext | None, seconds: float
) -> tuple[str | None, dict[str, OSError]]:
    """The first address whose broker answers, None without one; and what was in the way at others.

    Args:
        addresses: as host:port, IPv6 in brackets.
        context: for TLS.
        seconds: for all of them together; TimeoutError is in the way of those which take longer.
    """
    deadline = time.monotonic() + seconds
    answers: queue.SimpleQueue[tuple[str, OSError | None]] = queue.SimpleQueue()

    def ask(address: str) -> None:
        try:
            _ask(address, context, deadline)
            answers.put((address, None))
        except OSError as error:
            answers.put((address, error))

    problems: dict[str, OSError] = {
        address: TimeoutError(f"no answer within {seconds:.0f} s") for address in addresses
    }
    for address in problems:  # a thread each, as nothing puts an end to a lookup of names
        threading.Thread(target=ask, args=(address,), daemon=True).start()
    for _ in problems:
        try:
            address, problem = answers.get(timeout=_left(deadline + LATE_SECONDS))
        except queue.Empty:
            break
        if problem is None:
            return address, problems
        problems[address] = problem
    return None, problems


def _ask(address: str, context: ssl.SSLContext | None, deadline: float) -> None:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with socket.create_connection((host, int(port)), timeout=_left(deadline)) as connection:
        connection.settimeout(_left(deadline))
        if context is None:
            _first_answer(connection)
            return
        try:
            secured = context.wrap_socket(connection, server_hostname=host)
        except TimeoutError:
            raise TimeoutError("it accepts connections, but does not answer the TLS handshake") from None
        with secured:
            _first_answer(secured)


def _first_answer(connection: socket.socket) -> None:
    connection.sendall(_QUESTION)
    try:
        if not connection.recv(1):
            raise ConnectionError("disconnected")
    except TimeoutError:
        raise TimeoutError("it accepts connections, but does not answer") from None


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
