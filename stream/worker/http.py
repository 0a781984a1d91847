"""Metrics and health of a worker over HTTP on loopback: /livez, /readyz, /metrics.

Whoever reaches the port may open connections, and files are what the worker's store needs, too. So there are
few connections at a time, none lasts long, and a request is short. For one more than there may be the oldest
one is closed: connections that are held open keep no other out.
"""

import contextlib
import io
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stream.config import MetricsSettings
from stream.console import log
from stream.errors import ConfigError
from stream.worker.metrics import Metrics

MAX_CONNECTIONS: Final = 32
CONNECTION_SECONDS: Final = 5.0  # from its beginning to its end
REQUEST_BYTES: Final = 8192  # of a request's line and headers


def serve(
    settings: MetricsSettings,
    metrics: Metrics,
    obstacle: Callable[[], str],
    status: Callable[[], str] = lambda: "",
) -> str | None:
    """Serves in a daemon thread; the address, None when no port is set.

    /livez answers while the process runs; /readyz answers 200 unless there is an obstacle, else 503 and says
    which; both times it says `status()`.

    Raises:
        ConfigError: the port is in use.
    """
    if settings.port is None:
        return None

    class Handler(_Handler):
        def do_GET(self) -> None:
            if self.path == "/livez":
                self.answer(200, b"alive\n")
            elif self.path == "/readyz":
                reason = obstacle()
                code, word = (503, f"not ready: {reason}") if reason else (200, "ready")
                self.answer(code, f"{word}\n{status()}".encode())
            elif self.path == "/metrics":
                self.answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            else:
                self.answer(404, b"/livez, /readyz or /metrics\n")

    try:
        server = _Server((settings.host, settings.port), Handler)
    except OSError as error:
        raise ConfigError(
            f"metrics: cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"http://{settings.host}:{server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """One request, read whole before any of it is looked at."""

    def handle(self) -> None:
        request = b""
        while b"\n\r\n" not in request and b"\n\n" not in request:
            if len(request) == REQUEST_BYTES:
                self.wfile.write(b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n")
                return
            part = self.request.recv(REQUEST_BYTES - len(request))
            if not part:
                return
            request += part
        self.rfile = io.BufferedReader(io.BytesIO(request))
        super().handle()

    def answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Health checks are no news."""


class _Server(ThreadingHTTPServer):
    """A thread a connection. A thread that waits for its client ends when its socket is shut down."""

    request_queue_size = 128  # that are not accepted yet; of a full queue a client tries again after a second

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        super().__init__(address, handler)
        self._since: dict[Any, float] = {}  # open connections, the oldest first
        self._lock = threading.Lock()
        self._room = threading.Semaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self._shut_down(most=MAX_CONNECTIONS - 1)
            self._room.acquire()
        with self._lock:
            self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called twice a second, and after each request."""
        self._shut_down(before=time.monotonic() - CONNECTION_SECONDS)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._lock:
            known = self._since.pop(request, None)
        if known is not None:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that went are no news, either."""
        if not isinstance(sys.exception(), OSError):
            log.error("metrics: a request failed", exc_info=True)

    def _shut_down(self, *, most: int = MAX_CONNECTIONS, before: float = 0.0) -> None:
        """Those that began before a time, and the oldest of more than `most`."""
        with self._lock:
            connections = list(self._since.items())
        for number, (request, since) in enumerate(connections):
            if since < before or number < len(connections) - most:
                with contextlib.suppress(OSError):  # it ended by itself
                    request.shutdown(socket.SHUT_RDWR)
