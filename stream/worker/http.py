"""Metrics and health of a worker over HTTP on loopback: /livez, /readyz, /metrics."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from stream.config import MetricsSettings
from stream.errors import ConfigError
from stream.worker.metrics import Metrics


def serve(
    settings: MetricsSettings,
    metrics: Metrics,
    ready: Callable[[], bool],
    status: Callable[[], str] = lambda: "",
) -> str | None:
    """Serves in a daemon thread; the address, None when no port is set.

    /livez answers while the process runs; /readyz answers 200 when `ready()`, else 503, and says `status()`.

    Raises:
        ConfigError: the port is in use.
    """
    if settings.port is None:
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/livez":
                self._answer(200, b"alive\n")
            elif self.path == "/readyz":
                code, word = (200, "ready") if ready() else (503, "not ready")
                self._answer(code, f"{word}\n{status()}".encode())
            elif self.path == "/metrics":
                self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
            else:
                self._answer(404, b"/livez, /readyz or /metrics\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Health checks are no news."""

    try:
        server = ThreadingHTTPServer((settings.host, settings.port), Handler)
    except OSError as error:
        raise ConfigError(
            f"metrics: cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return f"http://{settings.host}:{server.server_address[1]}"
