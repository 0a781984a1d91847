"""How tests are started makes no difference to them; and the brokers that they meet.

Those are the embedded one and an Apache Kafka where there is one, or the one of --bootstrap.
"""

import atexit
import fcntl
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from benchmarks import brokers

# A landing must not depend on luck; at a desk every run looks at new examples. No deadline: what is compiled
# for the first example takes its time.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests end with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

# What differs from one start of the tests to the next: settings, an outer make's flags, the locale and what a
# terminal wants; and the variables that the Makefile takes, as make hands on those of its command line.
_OF_THE_START = re.compile(
    r"SAMEAS_.*|MAKE.*|MFLAGS|GNUMAKEFLAGS|LC_.*|LANG|LANGUAGE|TERM|COLUMNS|LINES|(NO|FORCE|CLI)_?COLOR(_FORCE)?"
)


def _forget_the_start() -> None:
    """For the tests and for all processes that they start, as those inherit this one's environment.

    The home is an empty one, and the time zone is none that anybody has by chance.
    """
    taken = re.findall(r"^(\w+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for variable in list(os.environ):
        if _OF_THE_START.fullmatch(variable) or variable in taken or variable.startswith("XDG_"):
            del os.environ[variable]
    home = tempfile.TemporaryDirectory(prefix="sameas-home-")
    atexit.register(home.cleanup)
    os.environ |= {"HOME": home.name, "TZ": "<+14>-14"}
    time.tzset()


_forget_the_start()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bootstrap", metavar="HOST:PORT", help="run the kafka tests against this broker only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "bootstrap" in metafunc.fixturenames:
        kinds = ["embedded", "apache"]
        if metafunc.config.getoption("--bootstrap"):
            kinds = ["given"]
        elif metafunc.definition.get_closest_marker("slow"):
            # Long stories of processes, which others tell on either broker in short: one is enough.
            kinds = ["apache" if brokers.APACHE_KAFKA.exists() else "embedded"]
        metafunc.parametrize("bootstrap", kinds, indirect=True, scope="session")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: item.get_closest_marker("slow") is None
    )  # so that none of them is left for the end
    for item in items:
        if {"bootstrap", "apache_kafka", "own_kafka"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the small catalogues; only to be read. Once it is there, all loops are compiled.

    The first process that needs it makes it, for all that run tests side by side.
    """
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        base = base.parent
    directory, draft = base / "checkpoint", base / "checkpoint-draft"
    with (base / "checkpoint-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            from benchmarks.catalogues import catalogues, train_small
            from stream.learning.alignment import align

            train_small(draft)
            list(align(catalogues(), draft))
            draft.rename(directory)
    return directory


@pytest.fixture(autouse=True)
def compiled_loops(request: pytest.FixtureRequest) -> None:
    """Processes that slow tests start side by side would each compile the same loops, and be late."""
    if request.node.get_closest_marker("slow"):
        request.getfixturevalue("checkpoint")


@pytest.fixture(scope="session")
def bootstrap(request: pytest.FixtureRequest) -> str:
    """A broker's address."""
    if request.param == "given":
        return str(request.config.getoption("--bootstrap"))
    if request.param == "apache":
        return str(request.getfixturevalue("apache_kafka")["plaintext"])
    return str(request.getfixturevalue("embedded_kafka"))


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[str]:
    """The embedded broker's address."""
    from stream.broker.embedded import embedded_broker

    with embedded_broker() as broker:
        yield broker.address


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Apache Kafka: addresses by listener ("plaintext", "sasl", "tls"), "ca", and itself as "broker"."""
    with brokers.apache_kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        if kafka is None:
            pytest.skip(f"no Apache Kafka: there is no {brokers.APACHE_KAFKA.parent}, or no java on the PATH")
        yield {**kafka.addresses, "broker": kafka}


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[brokers.ApacheKafka]:
    """An Apache Kafka for a test that stops it and changes its files."""
    with brokers.apache_kafka(tmp_path / "own-kafka") as kafka:
        if kafka is None:
            pytest.skip("no Apache Kafka")
        yield kafka
