"""What was read is an entity in the end, or is counted with the place of the first."""

import itertools
import json
import random
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from stream.catalogue import account as account_module
from stream.catalogue.account import Account
from stream.catalogue.reading import read_canonical, read_events
from stream.catalogue.report import Example
from stream.cli import main
from stream.errors import InvalidInput
from stream.events import EntityEvent, Upsert
from stream.mapping.language import SourceMapping

FILMS = """id,title,year,director
7,The Silent River,1971,1
8,The Velvet Orchard,1993,2
7,The Paper Bridge,2004,3
8,The Velvet Orchard,,
9,Ice,1950,
9,Ice,1950,
"""
MAPPING = """
[sources.s]
file = "films.csv"
id = "id"
type = "film"
attributes = ["title", "year"]
relations.director = {column = "director", id = "p{director}"}
"""


def read(
    folder: Path, text: str, account: Account, source: str = "s"
) -> tuple[list[EntityEvent], list[InvalidInput]]:
    mapping = msgspec.convert(msgspec.toml.decode(text)["sources"][source], SourceMapping)
    found = [event for _, event in read_events(source, mapping, folder, None, account)]
    return (
        [event for event in found if not isinstance(event, InvalidInput)],
        [event for event in found if isinstance(event, InvalidInput)],
    )


def final(events: list[EntityEvent]) -> dict[str, EntityEvent]:
    """What the graph holds in the end: of two events of an entity the later one counts."""
    return {event.id: event for event in events}


def test_ids_that_come_twice_are_counted_and_the_order_of_rows_decides_nothing(tmp_path: Path) -> None:
    """04-duplicate-ids, in every order of the rows."""
    header, *rows = FILMS.splitlines(keepends=True)
    outcomes = []
    for order in itertools.permutations(rows):
        (tmp_path / "films.csv").write_text(header + "".join(order))
        account = Account()
        events, _ = read(tmp_path, MAPPING, account)
        report = account.report()
        assert (report.rows, report.entities) == (6, {"s": {"film": 3}})
        assert (report.ids_twice.count, report.repeated) == (2, 1)
        outcomes.append(final(events))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert isinstance(outcomes[0]["8"], Upsert) and "year" in outcomes[0]["8"].attributes  # the fuller row

    (tmp_path / "films.csv").write_text(FILMS)
    account = Account()
    read(tmp_path, MAPPING, account)
    report = account.report()
    assert report.ids_twice.first == [
        Example("7", "films.csv:4", "films.csv:2"),
        Example("8", "films.csv:5", "films.csv:3"),
    ]
    assert "ids twice: 2, first 7 in films.csv:4 (first seen in films.csv:2)" in "\n".join(report.lines())
    assert report.summary() == "6 rows, 3 entities: 3 film; refused 0"


def test_of_several_versions_the_graph_takes_the_newest(tmp_path: Path) -> None:
    rows = ["1,3,c", "1,1,a", "1,2,b", "1,2,bb", "1,3,cc"]
    mapping = '[sources.s]\nfile = "a.csv"\nid = "id"\nattributes = ["name"]\nversion = "v"\n'
    for order in itertools.permutations(rows):
        (tmp_path / "a.csv").write_text("id,v,name\n" + "\n".join(order))
        account = Account()
        events, _ = read(tmp_path, mapping, account)
        newest = max(event.version or 0 for event in events)
        last = [e for e in events if e.version == newest][-1]
        assert isinstance(last, Upsert) and (last.version, last.attributes) == (3, {"name": "cc"})
        report = account.report()
        assert report.entities == {"s": {"entity": 1}}
        assert report.updated.count and report.ids_twice.count
        assert report.updated.count + report.ids_twice.count == 4


def test_tables_whose_ids_clash_are_counted(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("id,title\n1,Ice\n2,Snow\n")
    (tmp_path / "people.csv").write_text("id,name\n1,Ada\n")
    table = '[sources.s.tables.{0}]\nfile = "{1}.csv"\nid = "{2}"\ntype = "{0}"\nattributes = ["{3}"]\n'
    clash = table.format("film", "films", "id", "title") + table.format("person", "people", "id", "name")
    account = Account()
    read(tmp_path, clash, account)
    report = account.report()
    assert report.ids_twice.first == [Example("1", "people.csv:2", "films.csv:2")]
    assert sum(report.entities["s"].values()) == 2
    assert 'id = "film/{id}"' in "\n".join(report.lines())
    apart = table.format("film", "films", "f/{id}", "title") + table.format("person", "people", "id", "name")
    account = Account()
    read(tmp_path, apart, account)
    assert not account.report().problems and account.entities == 3


def test_targets_that_never_come_are_counted_by_relation(tmp_path: Path) -> None:
    """07-float-ids, the second half: relations lead to people that are nowhere."""
    (tmp_path / "films.csv").write_text("id,title,d,g\n1,a,7.5,x\n2,b,7.5,y\n3,c,8,x\n4,d,3,\n")
    (tmp_path / "people.csv").write_text("id,name\n8,Ada\n")
    mapping = """
[sources.s.tables.film]
file = "films.csv"
id = "film/{id}"
attributes = ["title"]
relations.directed_by = {column = "d", id = "person/{d}"}
relations.genre = {column = "g", type = "genre"}
relations.self = {column = "id", id = "film/{id}"}
[sources.s.tables.person]
file = "people.csv"
id = "person/{id}"
attributes = ["name"]
relations.knows = {column = "id", id = "nobody/{id}"}
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert [(m.source, m.relation, m.count, m.first) for m in report.missing_targets] == [
        (
            "s",
            "directed_by",
            2,
            [Example("person/7.5", "films.csv:2"), Example("person/3", "films.csv:5")],
        ),
        ("s", "knows", 1, [Example("nobody/8", "people.csv:2")]),
    ]
    assert report.problems == {"missing_targets": 3}
    assert "relation directed_by of s: 2 of its targets never came, first person/7.5 in films.csv:2" in (
        "\n".join(report.lines())
    )


def test_targets_may_come_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often those that wait are sorted out."""
    monkeypatch.setattr(account_module, "LEAST_WAITING", 3)
    chance = random.Random(1)
    numbers = list(range(200))
    chance.shuffle(numbers)
    account = Account()
    for number in numbers:
        targets = [str((number * k) % 230) for k in range(1, 6)]
        account.take_event(Upsert("s", str(number), "t", {}, {"r": targets}), account.place("f", 1))
    (missing,) = account.report().missing_targets
    assert missing.count == len({n * k % 230 for n in numbers for k in range(1, 6)} - set(numbers))


def test_heads_of_joins_without_a_row(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("id\n1\n")
    (tmp_path / "people.csv").write_text("id\n1\n")
    (tmp_path / "cast.csv").write_text("film,person\n1,1\n5,1\n6,2\n5,1\n1,9\n")
    mapping = """
[sources.s.tables.film]
file = "films.csv"
id = "film/{id}"
[sources.s.tables.person]
file = "people.csv"
id = "person/{id}"
[sources.s.joins.cast]
file = "cast.csv"
head = "film/{film}"
relation = "starring"
tail = "person/{person}"
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert report.missing_heads.count == 2
    assert report.missing_heads.first == [Example("film/5", "cast.csv:3"), Example("film/6", "cast.csv:4")]
    assert [(m.relation, m.count) for m in report.missing_targets] == [("starring", 1)]


def test_canonical_events_are_updates_and_their_order_counts(tmp_path: Path) -> None:
    def event(**more: object) -> str:
        return json.dumps({"op": "upsert", "source": "s", "id": "1", "type": "t", **more}) + "\n"

    lines = [
        event(),
        event(),
        event(attributes={"a": 1}),
        '{"op":"delete","source":"s","id":"1"}\n',
        event(attributes={"a": 2}),
        event(attributes={"a": 3}, version=1),
        event(attributes={"a": 4}, version=1),
        '{"op":"delete","source":"s","id":"2"}\n',
    ]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    account = Account()
    assert len(list(read_canonical(tmp_path / "events.jsonl", account))) == len(lines)
    report = account.report()
    assert (report.rows, report.repeated, report.updated.count) == (8, 1, 2)
    assert report.updated.first[0] == Example("1", "events.jsonl:3", "events.jsonl:2")
    assert report.ids_twice.first == [Example("1", "events.jsonl:7", "events.jsonl:6")]
    assert report.entities == {"s": {"t": 1}} and account.exists("s:1") and not account.exists("s:2")


def test_rows_of_which_nothing_is_left_are_counted(tmp_path: Path) -> None:
    """As where a name is in another column. An entity made of a cell has a name, one of a join a relation."""
    (tmp_path / "a.csv").write_text("id,name,by\n1,,\n2,A,\n3,,Ann\n4,NULL, \n5,,\n")
    (tmp_path / "j.csv").write_text("h,t\n5,1\n")
    mapping = """
[sources.s]
file = "a.csv"
id = "id"
attributes = ["name"]
relations.by = {column = "by", type = "person"}
joins.j = {file = "j.csv", head = "h", relation = "on", tail = "t"}
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert report.blank_entities.first == [Example("1", "a.csv:2"), Example("4", "a.csv:5")]
    assert not report.problems and any(
        "without any attribute or relation: 2" in line for line in report.lines()
    )


def test_rows_that_seem_to_be_deleted_are_counted(tmp_path: Path) -> None:
    """Many tables keep them. A column that the mapping reads, or a number, may mean something else."""
    (tmp_path / "a.csv").write_text(
        "id,deleted_at,isDeleted,deleted\n1,,0,7\n2,2024-01-02,false,\n3,NULL,true,2\n4,soon,no,5\n"
    )
    mapping = '[sources.s]\nfile = "a.csv"\nid = "id"\n'
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    counts = {found.column: (found.count, found.first[0].name) for found in report.deleted_rows}
    assert counts == {"deleted_at": (1, "2"), "isDeleted": (1, "3")} and not report.problems
    told = (
        "rows of s which deleted_at seems to call deleted: 1, first 2 in a.csv:3; if they are, set `deleted`"
    )
    assert any(line.startswith(told) for line in report.lines())
    for setting, entities in (('attributes = ["deleted_at", "isDeleted"]', 4), ('deleted = "isDeleted"', 3)):
        account = Account()
        read(tmp_path, mapping + setting, account)
        assert (account.report().deleted_rows, account.entities) == ([], entities)


def test_deletions_of_what_did_not_come_are_counted(tmp_path: Path) -> None:
    """In events and in rows. They are fed all the same: what they name may be in the topic."""
    (tmp_path / "a.jsonl").write_text(
        '{"op": "upsert", "source": "a", "id": "A1", "type": "film"}\n'
        '{"op": "delete", "source": "a", "id": "a1"}\n'
        '{"op": "delete", "source": "a", "id": "A1"}\n{"op": "delete", "source": "a", "id": "A1"}\n'
    )
    account = Account()
    assert len([*read_canonical(tmp_path / "a.jsonl", account)]) == 4
    assert account.report().absent_deletes.first == [Example("a1", "a.jsonl:2")]
    (tmp_path / "b.csv").write_text("Op,id,title\nI,1,A\nD,2,B\nD,1,A\n")
    account = Account()
    mapping = '[sources.s]\nfile = "b.csv"\nid = "id"\ndeleted = "Op"\nattributes = ["title"]'
    events, refused = read(tmp_path, mapping, account)
    report = account.report()
    assert (len(events), refused, account.entities) == (3, [], 0)
    assert (report.absent_deletes.count, report.problems) == (1, {})
    assert "deletions of what did not come before: 1, first 2 in b.csv:3; " in "\n".join(report.lines())


def test_filled_cells_in_which_a_path_finds_nothing_are_counted(tmp_path: Path) -> None:
    """08-path-into-text: what is called otherwise is not absent without a word."""
    rows = [
        {"id": 1, "genres": [{"name": "Drama"}], "maker": {"name": "Forge", "at": {"city": "Aa"}}},
        {"id": 2, "genres": [{"name": "Drama"}, {"label": "War"}], "maker": {"nome": "Lago"}},
        {"id": 3, "genres": [], "maker": {"name": None, "at": {}}},
        {"id": 4, "genres": None, "maker": {}},
        {"id": 5, "genres": [{}], "maker": {"name": "", "at": {"town": "Bb"}}, "a.b": 1},
    ]
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mapping = """
[sources.s]
file = "films.jsonl"
id = "id"
attributes = ["genres.name", "maker.name", "maker.at.city", "a.b"]
optional = ["a.b"]
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert [(cells.column, cells.count, cells.filled) for cells in report.unread_cells] == [
        ("genres.name", 1, 3),
        ("maker.name", 1, 4),
        ("maker.at.city", 2, 4),
    ]
    assert report.unread_cells[1].first == [Example("{'nome': 'Lago'}", "films.jsonl:2")]
    assert report.problems == {"unread_cells": 4}
    assert "maker.name: nothing found in 1 of 4 filled cells, first {'nome': 'Lago'} in films.jsonl:2" in (
        [*report.lines()]
    )
    optional = mapping.replace('["a.b"]', '["a.b", "genres.name", "maker.name", "maker.at.city"]')
    account = Account()
    read(tmp_path, optional, account)
    assert not account.report().problems


@pytest.mark.parametrize(
    ("logical", "good", "bad"),
    [
        ("date", [11412, "2001-03-31", "31.03.2001", "", None, "NULL"], ["11412", 11412.0, "soon", 10**12]),
        ("timestamp-micros", [10**15, "2001-03-31T12:00:00Z", "2001-03-31 12:00:00"], ["1000000", True]),
        ("time-millis", [43200000, "12:00:00"], ["43200000", 10**9]),
        ("duration-micros", [10**9, "PT2H16M5S", "2:16:05"], ["1000"]),
        ("decimal(2)", ["BNI=", 12.5, 12, "12.50"], ["cheap", "1.2.3"]),
        ("json", ["[1]", [1], 7], []),
        ("text", ["x", 1], []),
    ],
)
def test_filled_cells_that_a_type_could_not_read_are_counted(
    tmp_path: Path, logical: str, good: list[object], bad: list[object]
) -> None:
    mapping = f"""
[sources.s]
file = "a.jsonl"
id = "id"
attributes = ["v"]
columns = {{v = "{logical}"}}
"""
    cells = [*good, *bad]
    rows = (json.dumps({"id": number, "v": value}) for number, value in enumerate(cells))
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    account = Account()
    events, refused = read(tmp_path, mapping, account)
    assert len(events) == len(cells) and not refused
    unread = account.report().unread_cells
    filled = [value for value in cells if value not in ("", None, "NULL")]
    assert [(c.column, c.type, c.count, c.filled) for c in unread] == (
        [("v", logical, len(bad), len(filled))] if bad else []
    )
    if bad:
        assert unread[0].first[0] == Example(repr(bad[0]), f"a.jsonl:{len(good) + 1}")
        told = f"v: {logical} could not read {len(bad)} of {len(filled)} filled cells"
        assert told in "\n".join(account.report().lines())


def test_optional_columns_that_no_row_has_are_named(tmp_path: Path) -> None:
    """A property that is misspelt would be absent for ever."""
    (tmp_path / "a.nt").write_text('<x:1> <http://x/label> "A"@en .\n<x:2> <http://x/name> "B" .\n')
    mapping = """
[sources.s]
file = "a.nt"
id = "@id"
attributes = ["label@en", "label@fr", "name", "nmae"]
optional = ["label@en", "label@fr", "name", "nmae"]
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert report.unseen_columns == {"s": ["label@fr", "nmae"]} and not report.problems
    assert "no row of s has a column label@fr, nmae, which the mapping calls optional" in [*report.lines()]


def test_cells_that_may_mean_nothing_are_counted(tmp_path: Path) -> None:
    """Each became an entity; but a town is called None, and NA is the code of Namibia."""
    rows = [("", "NA", "Oslo"), ("None", "DE", "-"), ("Ann", "NA", "NA"), (" None ", "NULL", ["Rome", "?"])]
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"id": n, "by": by, "land": land, "city": city}) + "\n"
            for n, (by, land, city) in enumerate(rows)
        )
    )
    mapping = """
[sources.s]
file = "a.jsonl"
id = "id"
attributes = ["land", "city"]
relations.by = {column = "by", type = "person"}
"""
    account = Account()
    read(tmp_path, mapping, account)
    report = account.report()
    assert [(cells.column, cells.count) for cells in report.unclear_cells] == [("city", 3), ("by", 2)]
    assert not report.problems
    assert (
        "by: 2 cells often mean nothing, first None in a.jsonl:2; list such texts in the mapping's `null`"
        in report.lines()
    )
    account = Account()
    read(tmp_path, mapping + 'null = ["None"]', account)
    assert not account.report().unclear_cells
    assert account.report().entities == {"s": {"entity": 4, "person": 1}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "films.csv").write_text(FILMS)
    (tmp_path / "sameas.toml").write_text(MAPPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def feed(*options: str) -> Result:
    return CliRunner().invoke(main, ["feed", "--source", "s", "--dry-run", *options])


def test_a_dry_run_shows_the_account(folder: Path) -> None:
    shown = feed("--account", "account.json")
    assert shown.exit_code == 0
    for line in ("6 rows, 3 entities: 3 film; refused 0", "ids twice: 2", "relation director of s: 3 of"):
        assert line in shown.stderr
    found = json.loads((folder / "account.json").read_bytes())
    assert found["problems"] == {"ids_twice": 2, "missing_targets": 3}
    assert found["ids_twice"]["first"][0] == {
        "name": "7",
        "place": "films.csv:4",
        "first_seen": "films.csv:2",
    }


def test_what_is_counted_is_an_error_where_that_is_wanted(folder: Path) -> None:
    shown = feed("--strict", "--account", "-")
    assert shown.exit_code == 1
    assert "error: --strict: 2 ids twice, 3 missing targets" in shown.stderr
    assert json.loads(shown.stdout.splitlines()[-1])["problems"]["ids_twice"] == 2
    (folder / "films.csv").write_text("id,title,year,director\n1,a,1950,\n1,a,1950,\n")
    shown = feed("--strict")
    assert shown.exit_code == 0 and "rows that say the same as one before: 1" in shown.stderr
