"""The port with health and metrics, with clients that mean no good."""

import contextlib
import resource
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from stream.config import MetricsSettings
from stream.worker import http
from stream.worker.metrics import Metrics
from tests.stream.workers import fetch, until

GET = b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection


@pytest.fixture
def address() -> str:
    served = http.serve(MetricsSettings(port=0), Metrics(), lambda: "", lambda: "in force: all\n")
    assert served is not None
    return served


@contextlib.contextmanager
def connected(address: str, count: int = 1) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is said yet."""
    port = int(address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(count)
        ]


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def answer(client: socket.socket) -> bytes:
    """Everything up to the end of the connection, which the server may also reset."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_connections_that_are_held_open_keep_no_other_out(address: str, many_files: None) -> None:
    """A worker's store needs files, too: a thousand connections once took all that it may have."""
    files, threads = open_files(), threading.active_count()
    with connected(address, 301) as clients:
        for client in clients[::2]:
            client.sendall(GET[:10])
        assert fetch(f"{address}/readyz") == "ready\nin force: all\n"
        assert open_files() - files - len(clients) <= http.MAX_CONNECTIONS + 1
        assert threading.active_count() - threads <= http.MAX_CONNECTIONS + 1
        assert answer(clients[0]) == b""  # the oldest one was closed
        clients[-1].sendall(GET[10:])
        assert answer(clients[-1]).endswith(b"ready\nin force: all\n")  # the newest was not
    until(lambda: open_files() <= files, "closed connections")


def test_a_connection_has_an_end(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one on which something comes now and then: the time is that of the whole connection."""
    with connected(address) as [client]:
        client.sendall(GET[:-2])
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(30)
        monkeypatch.setattr(http, "CONNECTION_SECONDS", 0.0)
        assert answer(client) == b""


def test_a_request_has_a_size(address: str) -> None:
    with connected(address) as [client]:
        client.sendall(GET[:-2] + b"X: " + b"x" * (http.REQUEST_BYTES - len(GET) - 1))
        assert answer(client).startswith(b"HTTP/1.0 431 ")
    assert fetch(f"{address}/livez") == "alive\n"


@pytest.mark.parametrize("said", [b"", GET[:10], GET])
def test_aborted_connections_are_no_news(
    address: str, said: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with connected(address, 100) as clients:
        for client in clients:
            client.sendall(said)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            client.close()
    assert fetch(f"{address}/livez") == "alive\n"
    assert capfd.readouterr().err == "" and not caplog.records


def test_a_defect_is_news(caplog: pytest.LogCaptureFixture) -> None:
    def obstacle() -> str:
        raise RuntimeError("a defect")

    served = http.serve(MetricsSettings(port=0), Metrics(), obstacle)
    assert served is not None
    with connected(served) as [client]:
        client.sendall(GET)
        assert answer(client) == b""
    assert "a defect" in caplog.text


def test_a_worker_that_is_not_ready_says_why_and_is_alive() -> None:
    served = http.serve(MetricsSettings(port=0), Metrics(), lambda: "an obstacle", lambda: "in force: all\n")
    assert fetch(f"{served}/readyz") == "not ready: an obstacle\nin force: all\n"
    with pytest.raises(HTTPError, match="503"):
        urlopen(f"{served}/readyz")
    assert fetch(f"{served}/livez") == "alive\n"


def test_other_paths_and_methods(address: str, tmp_path: Path) -> None:
    assert fetch(f"{address}/../{tmp_path}") == "/livez, /readyz or /metrics\n"
    with connected(address) as [client]:
        client.sendall(b"\x16\x03\x01\x02\x00" * 200 + b"\n\n")  # as TLS begins
        assert b"400" in answer(client)
    assert "sameas_backlog_entities 0.0" in fetch(f"{address}/metrics")
