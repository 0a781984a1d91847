"""Two people's days, from end to end: a row changes in PostgreSQL, and with it what is the same as what."""

import csv
import gzip
import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.catalogues import catalogues
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.config import Settings
from stream.consuming.alignments import current_alignments
from stream.events import AlignmentEvent, AlignmentRecord, Upsert
from stream.learning.alignment import align
from tests.stream.worker.shop import Shop, debezium, postgres
from tests.stream.workers import ROOT, Process, own_settings, sameas, until

MAPPING = """
[sources.left.tables.film]
topic = "{shop}.film"
id = "id"
type = "film"
attributes = ["title", "year", "released", "price"]
{columns}

[sources.left.tables.film.relations.directed_by]
column = "director_id"

[sources.left.tables.person]
topic = "{shop}.person"
id = "id"
type = "person"
attributes = ["name"]

[sources.left.joins.film_actor]
topic = "{shop}.film_actor"
head = "film_id"
relation = "starring"
tail = "person_id"

[sources.right.tables.film]
file = "films.csv.gz"
id = "nr"
type = "film"
attributes = ["title", "year"]

[sources.right.tables.film.relations.directed_by]
column = "director"

[sources.right.tables.film.relations.starring]
column = "cast"
separator = ";"

[sources.right.tables.person]
file = "people.jsonl"
id = "nr"
type = "person"
attributes = {{name = "names.full"}}
"""
COLUMNS = 'columns = {released = "date", price = "decimal(2)"}'  # what messages without a schema do not say

Truth = set[tuple[str, str, float, bytes]]


def shop_catalogue() -> list[Upsert]:
    """What is in the shop: dates and prices too, which Debezium writes in its own way."""
    return [
        msgspec.structs.replace(
            entity,
            attributes=entity.attributes | {"released": f"{entity.attributes['year']}-03-31", "price": 8.7}
            if entity.type == "film"
            else entity.attributes,
        )
        for entity in catalogues()
        if entity.source == "left"
    ]


def write_right(directory: Path) -> list[Upsert]:
    """The other catalogue as files, as another tool exports them."""
    right = [entity for entity in catalogues() if entity.source == "right"]
    with gzip.open(directory / "films.csv.gz", "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["nr", "title", "year", "director", "cast"])
        for e in right:
            if e.type == "film":
                cast = ";".join(e.relations["starring"])
                writer.writerow(
                    [e.id, e.attributes["title"], e.attributes["year"], *e.relations["directed_by"], cast]
                )
    people = [{"nr": e.id, "names": {"full": e.attributes["name"]}} for e in right if e.type == "person"]
    (directory / "people.jsonl").write_text("\n".join(map(json.dumps, people)))
    return right


def truth(records: Iterable[AlignmentRecord]) -> Truth:
    return {(r.subject_id, r.object_id, r.confidence, msgspec.json.encode(r.evidence)) for r in records}


class Day:
    """A worker between the two catalogues, and what a batch run says about them."""

    def __init__(self, settings: Settings, directory: Path, entities: Iterable[Upsert]) -> None:
        self.directory = directory
        self._settings = settings
        self._entities = {f"{e.source}:{e.id}": e for e in entities}
        topics = msgspec.structs.asdict(settings.topics) | {"partitions": 1}
        self._options = [
            option for key, value in topics.items() for option in ("--set", f"topics.{key}={value}")
        ]
        self._options += ["--set", f"kafka.group_id={settings.kafka.group_id}"]
        self._options += ["--bootstrap", settings.kafka.bootstrap_servers]

    def start(self, *command: str) -> Process:
        return sameas(*command, *self._options, log=self.directory / f"{command[0]}.log")

    def output(self, *command: str) -> str:
        with self.start(*command) as process:
            assert process.wait() == 0, process.text
        return process.text

    def now(self, *changed: Upsert, gone: str = "") -> None:
        """What the catalogues are from here on."""
        self._entities |= {f"{e.source}:{e.id}": e for e in changed}
        self._entities.pop(gone, None)

    def expected(self) -> Truth:
        return truth(align([*self._entities.values()], self.directory / "checkpoint"))

    def settles(self, worker: Process) -> Truth:
        """The topic says what a batch run over both catalogues says, to the last digit of each score."""
        expected = self.expected()
        until(
            lambda: truth(current_alignments(self._settings).values()) == expected,
            "agreement with a batch run",
            worker,
        )
        return expected

    def events_about(self, name: str) -> list[str]:
        records = read_topic(self._settings, self._settings.topics.alignment_events)
        events = [msgspec.json.decode(record.value, type=AlignmentEvent) for record in records]
        return [event.event for event in events if name in (event.subject_id, event.object_id)]


@pytest.mark.slow
@pytest.mark.parametrize("schemas", [False, True], ids=["bare", "schemas"])
def test_a_row_changes_and_the_alignment_moves(
    apache_kafka: dict[str, Any], checkpoint: Path, tmp_path: Path, schemas: bool
) -> None:
    """A data engineer with a catalogue and a change stream."""
    settings = own_settings(apache_kafka["plaintext"], tmp_path)
    ensure_topics(settings)
    shutil.copytree(checkpoint, tmp_path / "checkpoint")
    left = shop_catalogue()
    day = Day(settings, tmp_path, [*left, *write_right(tmp_path)])
    with postgres() as shop:
        shop.put(left)
        mapping = MAPPING.format(shop=shop.prefix, columns="" if schemas else COLUMNS)
        (tmp_path / "sameas.toml").write_text(mapping)
        with debezium(apache_kafka, shop, tmp_path / "debezium", schemas=schemas):
            day.output("feed", "--source", "right")
            with day.start("run") as worker:
                worker.wait_for("ready")
                pairs = {pair[:2] for pair in day.settles(worker)}
                same = [n for n in range(60) if (f"left:f{n}", f"right:f{n}") in pairs]
                assert len(same) >= 48
                change_a_film(day, shop, worker, next(e for e in left if e.id == f"f{same[0]}"))
                lose_a_film_of_the_export(day, worker, f"f{same[1]}")
                assert worker.end() == 0
            assert "dead-lettered 0" in worker.text.splitlines()[-1], worker.text
    ask(day)


def change_a_film(day: Day, shop: Shop, worker: Process, old: Upsert) -> None:
    """Its row, the join table, the end of both."""
    name = f"left:{old.id}"
    shop.sql(f"update film set title = 'zzz qqq', year = 1901, director_id = null where id = '{old.id}'")
    attributes = old.attributes | {"title": "zzz qqq", "year": 1901}
    day.now(
        msgspec.structs.replace(old, attributes=attributes, relations={"starring": old.relations["starring"]})
    )
    seen = len(day.events_about(name))
    day.settles(worker)
    assert day.events_about(name)[-1] == "withdrawn"

    title, year, director = old.attributes["title"], old.attributes["year"], old.relations["directed_by"][0]
    shop.sql(
        f"update film set title = '{title}', year = {year}, director_id = '{director}' where id = '{old.id}'"
    )
    day.now(old)
    day.settles(worker)
    assert day.events_about(name)[-1] in ("aligned", "revised") and len(day.events_about(name)) > seen

    seen = len(day.events_about(name))
    shop.sql(
        f"delete from film_actor where film_id = '{old.id}';"
        f"insert into film_actor values ('{old.id}', 'p1'), ('{old.id}', 'p2');"
    )
    cast = old.relations | {"starring": ["p1", "p2"]}
    day.now(msgspec.structs.replace(old, relations=cast))
    day.settles(worker)
    assert len(day.events_about(name)) > seen, "the join table moved nothing"

    shop.sql(f"delete from film_actor where film_id = '{old.id}'; delete from film where id = '{old.id}';")
    day.now(gone=name)
    day.settles(worker)
    assert day.events_about(name)[-1] == "withdrawn"


def lose_a_film_of_the_export(day: Day, worker: Process, film_id: str) -> None:
    path = day.directory / "films.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    kept = [line for line in lines if not line.startswith(f"{film_id},")]
    assert len(kept) == len(lines) - 1
    path.write_bytes(gzip.compress("\n".join(kept).encode()))
    assert "deleted 1 entities" in day.output("feed", "--source", "right", "--delete-missing")
    day.now(gone=f"right:{film_id}")
    day.settles(worker)


def ask(day: Day) -> None:
    """A consumer of the alignments: as SSSOM, as RDF, and of one film."""
    expected = {pair[:2] for pair in day.expected()}
    exported = day.output("subscribe", "--sssom")
    rows = [line.split("\t") for line in exported.splitlines() if not line.startswith("#")]
    columns = rows.pop(0)
    ends = columns.index("subject_id"), columns.index("object_id")
    assert {(row[ends[0]], row[ends[1]]) for row in rows} == expected
    validator = ROOT / ".venv-sssom" / "bin" / "sssom"
    if validator.exists():
        path = day.directory / "pairs.sssom.tsv"
        path.write_text(exported)
        subprocess.run([validator, "validate", path], check=True, capture_output=True)
    people = [pair for pair in expected if pair[0].startswith("left:p")]
    assert day.output("subscribe", "--rdf", "--type", "person").count("owl#sameAs") == len(people)
    one = sorted(expected)[0]
    (record,) = map(json.loads, day.output("subscribe", "-e", "--entity", one[0]).splitlines())
    assert (record["subject_id"], record["object_id"]) == one
