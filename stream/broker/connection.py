"""Connecting to a broker: the `[kafka]` settings as clients want them, and why none answers."""

import contextlib
import functools
import logging
import queue
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from kafka import KafkaAdminClient
from kafka.errors import (
    IllegalSaslStateError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from stream.broker.answering import first_to_answer
from stream.config import KafkaSettings
from stream.console import log
from stream.errors import BrokerError, ConfigError, Refused

LOOK_SECONDS = 0.05  # between two looks at why a client is not connected yet
GARBLED = "Invalid frame length"  # an alert of TLS, read as the plain protocol
HUNG_UP = ("disconnected", "EOF occurred", GARBLED)  # also how a refused login arrives, and a wrong protocol
HUNG_UP_TIMES = 4
GRACE_SECONDS = 2.0  # after which a library is late that was to give up
LASTING = (TimeoutError, ssl.SSLCertVerificationError)
FINAL = (SaslAuthenticationFailedError, IllegalSaslStateError, UnsupportedSaslMechanismError)

_Client = TypeVar("_Client")


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What every kafka-python client is built with.

    Raises:
        ConfigError: the certificates or the password file cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.servers,
        "security_protocol": kafka.security_protocol,
        "bootstrap_timeout_ms": int(kafka.connect_timeout_seconds * 1000),
        "client_id": "sameas",
    }
    if kafka.security_protocol.startswith("SASL"):
        if kafka.security_protocol == "SASL_PLAINTEXT" and kafka.sasl_mechanism == "PLAIN":
            _warn_of_open_password()
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_plain_username,
            "sasl_plain_password": sasl_password(kafka),
        }
    context = ssl_context(kafka)
    return options | {"ssl_context": context} if context else options


@functools.cache  # once a process
def _warn_of_open_password() -> None:
    log.warning(
        "kafka.sasl_mechanism PLAIN without TLS sends the password as it is, and whoever is on the way reads "
        "it: set kafka.security_protocol = SASL_SSL, or a mechanism of SCRAM"
    )


def sasl_password(kafka: KafkaSettings) -> str:
    """The password itself, from the setting or the file."""
    if kafka.sasl_plain_password is not None:
        return kafka.sasl_plain_password.reveal()
    assert kafka.sasl_plain_password_file is not None  # the settings were checked
    try:
        return kafka.sasl_plain_password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"kafka.sasl_plain_password_file: cannot be read: {error}") from error


def ssl_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """A client's TLS context, None when the protocol has no TLS."""
    if not kafka.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_cafile)
        context.check_hostname = kafka.ssl_check_hostname
        if kafka.ssl_certfile:
            password = kafka.ssl_password.reveal() if kafka.ssl_password else None
            context.load_cert_chain(kafka.ssl_certfile, kafka.ssl_keyfile, password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"kafka.ssl_cafile, ssl_certfile or ssl_keyfile cannot be used: {error}") from error
    return context


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
    client = connect(kafka, lambda options: KafkaAdminClient(**options, request_timeout_ms=15_000))
    try:
        _check_advertised(client, kafka)
        yield client
    finally:
        client.close()


def connect(kafka: KafkaSettings, build: Callable[[dict[str, Any]], _Client]) -> _Client:
    """The client that is built with the options given, when it is connected.

    Raises:
        BrokerError: as `check_reachable`.
    """
    options = client_options(kafka)
    seconds, context = kafka.connect_timeout_seconds, options.get("ssl_context")
    if context is not None or len(kafka.servers) > 1:
        server, obstacles = first_to_answer(kafka.servers, context, seconds)
        if server is not None:
            options["bootstrap_servers"] = [server]
        elif any(isinstance(problem, LASTING) for problem in obstacles.values()):
            raise unreachable(kafka, _listed(obstacles))  # others may still start, but the time is over
    with _connection_problems() as problems:
        try:
            return _unless_refused(lambda: build(options), problems, seconds + GRACE_SECONDS)
        except (KafkaError, OSError, ValueError) as error:
            raise unreachable(kafka, _most_telling(problems) or error) from error


def _check_advertised(client: KafkaAdminClient, kafka: KafkaSettings) -> None:
    """Clients go where brokers say that they are, which may be another address than the one that answers."""
    brokers = client._manager.cluster.brokers()
    said = {f"[{b.host}]:{b.port}" if ":" in b.host else f"{b.host}:{b.port}" for b in brokers}
    if not said or not said.isdisjoint(kafka.servers):
        return
    server, obstacles = first_to_answer(sorted(said), ssl_context(kafka), kafka.connect_timeout_seconds)
    if server is None:
        raise BrokerError(
            f"the broker at {', '.join(kafka.servers)} says that it is at {', '.join(obstacles)}, which "
            f"cannot be reached from here: {_listed(obstacles)}; check the broker's advertised.listeners"
        )


def _listed(obstacles: Mapping[str, OSError]) -> str:
    if len(obstacles) == 1:
        return str(*obstacles.values())
    return "; ".join(f"{address}: {problem}" for address, problem in obstacles.items())


def unreachable(kafka: KafkaSettings, reason: BaseException | str) -> BrokerError:
    """The one message for a broker that cannot be used, with its address and what to do."""
    text = str(reason).replace("111 ECONNREFUSED", "connection refused") or type(reason).__name__
    text = re.sub(r"^(\[Error \d+\] )?(\w+Error: )+", "", text)
    closed = "disconnected" in text or GARBLED in text
    login = kafka.security_protocol.startswith("SASL")
    said = f"{type(reason).__name__} {text}"
    refused = "SaslAuthentication" in said or "uthentication" in text or "SaslMechanism" in said
    if refused:
        advice = "check kafka.sasl_mechanism, sasl_plain_username and the password"
    elif closed and login:
        advice = "check kafka.security_protocol, sasl_mechanism, sasl_plain_username and the password"
    elif closed or "TLS handshake" in text or isinstance(reason, IllegalSaslStateError):
        advice = "check kafka.security_protocol"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        advice = _of_certificate(text)
    elif "ertificate" in text or "SSL" in text:
        advice = "check kafka.security_protocol and ssl_cafile"
    else:
        advice = "is it running, is kafka.bootstrap_servers right? `sameas broker` starts one for trying out"
    kind = Refused if refused or "CERTIFICATE_VERIFY_FAILED" in text else BrokerError
    return kind(f"no usable Kafka broker at {', '.join(kafka.servers)}: {text}; {advice}")


def _of_certificate(text: str) -> str:
    """What to do about a certificate that OpenSSL does not accept, in its words."""
    if "not valid for" in text:  # Hostname mismatch, IP address mismatch
        return (
            "the broker's certificate is for another name: take one that stands in it for "
            "kafka.bootstrap_servers and the broker's advertised.listeners, or set "
            "kafka.ssl_check_hostname = false"
        )
    if "expired" in text or "not yet valid" in text:
        return (
            "the broker's certificate is out of date: have it renewed, unless this machine's clock is wrong"
        )
    return "the broker's certificate is of another authority: check kafka.security_protocol and ssl_cafile"


def _unless_refused(build: Callable[[], _Client], problems: list[BaseException], seconds: float) -> _Client:
    """What `build` returns or raises; the first problem that will not go away ends it, as does time."""
    outcome: queue.SimpleQueue[_Client | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(build())
        except BaseException as error:
            outcome.put(error)

    deadline = time.monotonic() + seconds
    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            found = outcome.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            if (final := _final(problems)) is not None:
                raise final from None
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {seconds:.0f} s") from None
            continue
        if isinstance(found, BaseException):
            raise found
        return found


def _final(problems: list[BaseException]) -> BaseException | None:
    """A refusal, or the last problem with a broker that is there and has hung up again and again."""
    hung_up = {id(problem) for problem in problems if any(sign in str(problem) for sign in HUNG_UP)}
    for problem in problems:
        if isinstance(problem, FINAL) or "CERTIFICATE_VERIFY_FAILED" in str(problem):
            return problem
    return _most_telling(problems) if len(hung_up) >= HUNG_UP_TIMES else None


def _most_telling(problems: list[BaseException]) -> BaseException | None:
    """The refused login, which connections that are merely closed may follow; else the last problem."""
    for problem in reversed(problems):
        if "uthentication" in f"{type(problem).__name__} {problem}" or "SSL" in str(problem):
            return problem
    return problems[-1] if problems else None


@contextlib.contextmanager
def _connection_problems() -> Iterator[list[BaseException]]:
    """kafka-python says only 'unable to bootstrap'; the reason is in the warnings that it logs.

    A client that was given up tries on in its own thread. What it says is no problem of the next one, and is
    not told: after a failure the library is silent until a client is connected.
    """
    problems: list[BaseException] = []
    others = {thread.ident for thread in threading.enumerate()}

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread in others:
                return
            arguments = record.args if isinstance(record.args, tuple) else ()
            problems.extend(
                argument
                for argument in arguments
                if isinstance(argument, BaseException) and not isinstance(argument, KafkaTimeoutError)
            )

    logger, collector = logging.getLogger("kafka"), Collector(logging.WARNING)
    level = logger.level
    logger.addHandler(collector)
    logger.propagate = False  # said once, as the error, and not four times as warnings
    logger.setLevel(logging.WARNING)  # whatever the program lets through otherwise
    try:
        yield problems
        logger.propagate = True
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
