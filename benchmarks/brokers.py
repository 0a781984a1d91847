"""The brokers that workers are tested and tortured on."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from index.errors import SameasError
from stream.broker.embedded import EmbeddedBroker

ROOT = Path(__file__).resolve().parent.parent
APACHE_KAFKA = ROOT.parent / "shared" / "kafka" / "kafka"


class ApacheKafka:
    """One that is there for development; see its README.

    Attributes:
        directory: of its files.
        addresses: by listener ("plaintext", "sasl", "tls"), and "ca", once it is started.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}

    @property
    def address(self) -> str:
        return self.addresses["plaintext"]

    def start(self) -> None:
        self.addresses = json.loads(self._run("start"))

    def stop(self, *, kill: bool) -> None:
        self._run("stop", *(["--kill"] if kill else []))

    def restart(self, *, kill: bool) -> None:
        self.stop(kill=kill)
        self.start()

    def _run(self, command: str, *flags: str) -> str:
        line = [sys.executable, str(APACHE_KAFKA), command, "--dir", str(self.directory), *flags]
        done = subprocess.run(line, capture_output=True, text=True, timeout=90)
        if done.returncode != 0:
            raise SameasError(f"Apache Kafka: {command} failed: {done.stderr.strip()}")
        return done.stdout


Broker = EmbeddedBroker | ApacheKafka


@contextlib.contextmanager
def apache_kafka(directory: Path) -> Iterator[ApacheKafka | None]:
    """None where there is no Apache Kafka, or no Java."""
    if not APACHE_KAFKA.exists() or shutil.which("java") is None:
        yield None
        return
    kafka = ApacheKafka(directory)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop(kill=True)
