"""Addresses behind which nothing answers, or only a part of it."""

import contextlib
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from kafka.errors import KafkaError, SaslAuthenticationFailedError

from stream.broker.answering import first_to_answer
from stream.broker.connection import (
    _warn_of_open_password,
    check_reachable,
    client_options,
    connect,
    unreachable,
)
from stream.broker.embedded import _executable, end_with_parent
from stream.broker.reading import open_consumer
from stream.cli import main
from stream.config import KafkaSettings, Secret, Settings
from stream.demo.measuring import free_port
from stream.errors import BrokerError, Refused
from tests.stream.workers import until

SOON_SECONDS = 20.0  # for a command that gives up after one, on a busy machine


@pytest.fixture
def silent() -> Iterator[str]:
    """Accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("words", ["topics", "subscribe -e"])
@pytest.mark.parametrize("which", ["silent", "embedded_kafka"])
def test_a_tls_handshake_without_an_answer_ends_a_command(
    request: pytest.FixtureRequest, words: str, which: str
) -> None:
    environment = {
        "SAMEAS_KAFKA__BOOTSTRAP_SERVERS": request.getfixturevalue(which),
        "SAMEAS_KAFKA__SECURITY_PROTOCOL": "SSL",
        "SAMEAS_KAFKA__CONNECT_TIMEOUT_SECONDS": "1",
    }
    result = CliRunner().invoke(main, words.split(), env=environment)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "does not answer the TLS handshake; check kafka.security_protocol" in result.stderr


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address where TLS answers with a certificate for another name, and the authority that signed it."""
    certificate, key = tmp_path / "other.pem", tmp_path / "other.key"
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other")
    names = ",".join(["DNS:other", "IP:10.0.0.1", *(f"DNS:a{number}" for number in range(1, 10))])
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *request, "-addext", f"subjectAltName={names}", *files], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the socket was shut down
                while True:
                    client, _ = server.accept()
                    with contextlib.suppress(OSError), client, context.wrap_socket(client, server_side=True):
                        pass

        answering = threading.Thread(target=answer)
        answering.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", certificate
        server.shutdown(socket.SHUT_RDWR)
        answering.join()


def test_a_certificate_for_another_name_is_said_to_be_that(tls_server: tuple[str, Path]) -> None:
    address, authority = tls_server
    kafka = KafkaSettings(bootstrap_servers=address, security_protocol="SSL", ssl_cafile=authority)
    with pytest.raises(
        Refused,
        match=r"not valid for '127.0.0.1'. Its names are: other, 10.0.0.1, a1, a2, a3, and 6 more; .*for an",
    ):
        check_reachable(kafka)


@pytest.mark.parametrize(
    ("openssl", "said"),
    [
        ("Hostname mismatch, certificate is not valid for 'kafka'.", "is for another name"),
        ("certificate has expired", "is out of date"),
        ("certificate is not yet valid", "is out of date"),
        ("self-signed certificate in certificate chain", "is of another authority"),
    ],
)
def test_a_certificate_is_refused_in_the_right_words(openssl: str, said: str) -> None:
    error = unreachable(KafkaSettings(), f"[SSL: CERTIFICATE_VERIFY_FAILED] {openssl} (_ssl.c:1006)")
    assert f"certificate {said}" in str(error) and isinstance(error, Refused)


@pytest.mark.parametrize(
    ("protocol", "mechanism", "times"),
    [("SASL_PLAINTEXT", "PLAIN", 1), ("SASL_PLAINTEXT", "SCRAM-SHA-256", 0), ("SASL_SSL", "PLAIN", 0)],
)
def test_a_password_that_can_be_read_on_the_way_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, protocol: Any, mechanism: Any, times: int
) -> None:
    _warn_of_open_password.cache_clear()
    kafka = KafkaSettings(
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_plain_username="ann",
        sasl_plain_password=Secret("open-secret"),
    )
    for _ in range(3):
        client_options(kafka)
    assert caplog.text.count("PLAIN without TLS sends the password as it is") == times
    assert "open-secret" not in caplog.text


def test_of_several_addresses_one_that_answers_is_enough(embedded_settings: Settings, silent: str) -> None:
    servers = f"{silent},127.0.0.1:1,{embedded_settings.kafka.bootstrap_servers}"
    kafka = msgspec.structs.replace(
        embedded_settings.kafka, bootstrap_servers=servers, connect_timeout_seconds=2
    )
    settings = msgspec.structs.replace(embedded_settings, kafka=kafka)
    for _ in range(5):  # kafka-python would take one by chance
        check_reachable(kafka)
        with open_consumer(settings):
            pass


def test_of_several_addresses_one_that_answers_with_tls_is_enough(
    apache_kafka: dict[str, Any], silent: str
) -> None:
    kafka = KafkaSettings(
        bootstrap_servers=f"{silent},{apache_kafka['tls']}",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_plain_username="alice",
        sasl_plain_password=Secret("alice-secret"),
        ssl_cafile=Path(apache_kafka["ca"]),
    )
    for _ in range(5):
        check_reachable(kafka)


def test_what_is_in_the_way_is_said_of_each_address(silent: str) -> None:
    servers = f"{silent},127.0.0.1:1"
    with pytest.raises(BrokerError) as told:
        check_reachable(KafkaSettings(bootstrap_servers=servers, connect_timeout_seconds=1))
    assert f"{silent}: it accepts connections, but does not answer" in str(told.value)
    assert "127.0.0.1:1: [Errno 111] Connection refused" in str(told.value)


def test_an_address_of_ipv6() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6")
    with server:
        address = f"[::1]:{server.getsockname()[1]}"
        assert first_to_answer([address], None, 0.2)[1].keys() == {address}
        connection, _ = server.accept()
        connection.close()


@contextlib.contextmanager
def broker_that_says(advertised: str) -> Iterator[str]:
    """An embedded broker that answers at one address and names another."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            *(_executable(), "broker", "--storage-engine=memory://tansu/", f"--listener-url=tcp://{address}"),
            f"--advertised-listener-url=tcp://{advertised}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent,
    )
    try:
        until(lambda: first_to_answer([address], None, 1)[0], "answer")
        yield address
    finally:
        process.kill()
        process.wait()


def test_an_advertised_address_that_cannot_be_reached_is_named(silent: str) -> None:
    for elsewhere, reason in (("127.0.0.1:1", "Connection refused"), (silent, "does not answer")):
        with broker_that_says(elsewhere) as address:
            started = time.monotonic()
            with pytest.raises(BrokerError) as told:
                check_reachable(KafkaSettings(bootstrap_servers=address, connect_timeout_seconds=1))
            assert time.monotonic() - started < SOON_SECONDS
        assert f"the broker at {address} says that it is at {elsewhere}, which cannot be" in str(told.value)
        assert reason in str(told.value) and "advertised.listeners" in str(told.value)


def test_an_advertised_address_that_answers_is_right(embedded_kafka: str) -> None:
    with broker_that_says(embedded_kafka) as address:
        check_reachable(KafkaSettings(bootstrap_servers=address, connect_timeout_seconds=5))


def test_a_client_that_was_given_up_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    """It tries on in its own thread, and its refused password was taken for the next one's problem."""
    caplog.set_level(logging.WARNING)
    asked, said = threading.Event(), threading.Event()

    def given_up() -> None:
        while asked.wait():
            asked.clear()
            logging.getLogger("kafka.net").error("lost: %s", SaslAuthenticationFailedError("password"))
            said.set()

    threading.Thread(target=given_up, daemon=True).start()

    def hear_it() -> None:
        asked.set()
        assert said.wait(30)
        said.clear()

    def fail(_: dict[str, Any]) -> None:
        hear_it()
        raise KafkaError("my own problem")

    with pytest.raises(BrokerError, match="my own problem"):
        connect(KafkaSettings(), fail)
    hear_it()
    assert not caplog.records
    connect(KafkaSettings(), lambda _: hear_it())
    hear_it()
    assert len(caplog.records) == 1
