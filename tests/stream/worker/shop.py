"""A shop's PostgreSQL with a film catalogue, watched by Debezium: what the people have who feed us."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from benchmarks.brokers import APACHE_KAFKA
from stream.demo.measuring import free_port
from stream.events import Upsert
from tests.stream.workers import until

TABLES = """
create table person (id text primary key, name text not null);
create table film (
    id text primary key, title text, year integer, released date, price numeric(8, 2),
    director_id text
);
create table film_actor (film_id text not null, person_id text not null, primary key (film_id, person_id));
"""


class Shop:
    """A running PostgreSQL. `prefix` is what its topics begin with."""

    def __init__(self, binaries: Path, directory: Path, port: int) -> None:
        self.port = port
        self.prefix = f"shop{port}.public"
        self._binaries = binaries
        self._directory = directory

    def run(self, program: str, *arguments: str, text: str | None = None) -> str:
        """One of PostgreSQL's programs, which refuse to run as root."""
        user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        done = subprocess.run(
            [*user, str(self._binaries / program), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self._directory,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        data = self._directory / "data"
        self.run("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync")
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "wal_level": "logical",
            "fsync": "off",
        }
        command = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        log = str(self._directory / "log")
        self.run("pg_ctl", "-D", str(data), "-w", "-o", command, "-l", log, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self._directory / "data"), "-m", "immediate", "stop")

    def sql(self, text: str) -> None:
        """Statements, in one transaction."""
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        self.run("psql", *address, "-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", "-", text=text)

    def put(self, entities: Sequence[Upsert]) -> None:
        """Rows for people and films; actors go into the join table."""
        rows: list[tuple[str, str]] = []
        for entity in entities:
            if entity.type == "person":
                rows.append(("person", _quoted(entity.id, entity.attributes["name"])))
                continue
            values = [entity.attributes.get(name) for name in ("title", "year", "released", "price")]
            [director] = entity.relations["directed_by"]
            rows.append(("film", _quoted(entity.id, *values, director)))
            cast = dict.fromkeys(entity.relations["starring"])
            rows += [("film_actor", _quoted(entity.id, actor)) for actor in cast]
        self.sql("".join(f"insert into {table} values ({values});\n" for table, values in rows))


def _quoted(*values: object) -> str:
    return ", ".join("null" if v is None else "'" + str(v).replace("'", "''") + "'" for v in values)


@contextlib.contextmanager
def postgres() -> Iterator[Shop]:
    """A PostgreSQL with empty tables; the test is skipped where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).resolve().parent)
    found = [path for path in found if all((path / name).exists() for name in ("initdb", "pg_ctl", "psql"))]
    if not found:
        pytest.skip("no PostgreSQL: there is no initdb, neither on the PATH nor in /usr/lib/postgresql")
    directory = Path(tempfile.mkdtemp(prefix="sameas-shop-"))
    if os.getuid() == 0:
        shutil.chown(directory, "postgres")
    shop = Shop(found[-1], directory, free_port())
    try:
        shop.start()
        try:
            shop.sql(TABLES)
            yield shop
        finally:
            shop.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def debezium(
    kafka: dict[str, Any],
    shop: Shop,
    directory: Path,
    *,
    schemas: bool,
    more: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Kafka Connect, which reads the tables and then follows their changes; yields its log.

    Args:
        more: properties of the connector.
    """
    properties = {
        "name": "shop",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": "127.0.0.1",
        "database.port": shop.port,
        "database.user": "postgres",
        "database.password": "unused",
        "database.dbname": "postgres",
        "topic.prefix": shop.prefix.partition(".")[0],
        "plugin.name": "pgoutput",
        "topic.creation.default.replication.factor": 1,
        "topic.creation.default.partitions": 1,
        **(more or {}),
    }
    directory.mkdir()
    connector = directory / "shop.properties"
    connector.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    script = [sys.executable, str(APACHE_KAFKA)]
    state = ["--dir", str(directory / "connect")]
    arguments = ["--bootstrap", kafka["plaintext"], str(connector), *(["--schemas"] if schemas else [])]
    started = subprocess.run(
        [*script, "connect", *state, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["pid"]
    try:
        admin = KafkaAdminClient(bootstrap_servers=kafka["plaintext"])
        topics = {f"{shop.prefix}.{table}" for table in ("film", "person", "film_actor")}
        until(lambda: topics <= set(admin.list_topics()), "topics of the shop")
        admin.close()
        yield directory / "connect" / "log"
    finally:
        subprocess.run([*script, "stop", *state, "--kill"], check=False, timeout=60)
