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
from typing import Any

from stream.console import printable

SHOWN_NAMES = 5
OTHER_NAME = (62, 64)  # a host name, an IP address that is not in the certificate (X509_V_ERR of OpenSSL)
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
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in OTHER_NAME:
                names = _names((host, int(port)), context, deadline)
                text = f"{str(error).partition(' (_ssl')[0]} Its names are: {names}"
                raise ssl.SSLCertVerificationError(error.errno, text) from error
            raise
        with secured:
            _first_answer(secured)


def _names(server: tuple[str, int], context: ssl.SSLContext, deadline: float) -> str:
    """The names in a certificate, which is good but for them."""
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    try:
        nameless.load_verify_locations(cadata=b"".join(context.get_ca_certs(binary_form=True)))
        with socket.create_connection(server, timeout=_left(deadline)) as connection:
            connection.settimeout(_left(deadline))
            with nameless.wrap_socket(connection) as secured:
                found: Any = secured.getpeercert()
    except (OSError, ValueError) as error:
        return f"unknown ({error})"
    names = [name for _, name in found.get("subjectAltName", ())]
    more = [f"and {len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []
    return printable(", ".join([*(name[:100] for name in names[:SHOWN_NAMES]), *more])) or "none"


def _first_answer(connection: socket.socket) -> None:
    connection.sendall(_QUESTION)
    try:
        if not connection.recv(1):
            raise ConnectionError("disconnected")
    except TimeoutError:
        raise TimeoutError("it accepts connections, but does not answer") from None


def _left(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
