"""What a mapping is proposed from, and that the proposal can be used as it is."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner

from stream.catalogue.delimited import USUAL, Layout
from stream.catalogue.proposing import propose
from stream.catalogue.reading import read_events
from stream.catalogue.sniffing import sniff
from stream.cli import main
from stream.errors import ConfigError, InvalidInput
from stream.events import Cause, Delete, Message, Upsert
from stream.mapping.decoder import make_decoder
from stream.mapping.language import NULL, SourceMapping
from tests.stream.catalogue.test_rows import NT, compressed

PEOPLE = ["Weaver, Sigourney", "Hurt, John", "Holm, Ian", "Skerritt, Tom", "Cartwright, Veronica"]


def proposed(path: Path, source: str = "s") -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(propose([path], source).toml)["sources"][source]
    return table


def films(directory: Path, separator: str = ";") -> Path:
    lines = ["tconst,primaryTitle,kind,cast,director,startYear,code,rest"]
    for number in range(60):
        cast = separator.join(PEOPLE[number % 5 : number % 5 + 1 + number % 3])
        kind = ("film", "series", "short")[number % 3]
        lines.append(
            f'tt{number:07},Title {number},{kind},"{cast}","{PEOPLE[number % 4]}",{1970 + number},00{number},'
        )
    path = directory / "films.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_of_a_table(tmp_path: Path) -> None:
    path = films(tmp_path)
    table = proposed(path)
    assert (table["id"], table["type_column"], table["file"]) == ("tconst", "kind", str(path))
    assert table["attributes"] == ["primaryTitle", "startYear", "code"]
    assert table["relations"] == {
        "cast": {"column": "cast", "type": "cast", "separator": ";"},
        "director": {"column": "director", "type": "director"},  # 'Last, First' is one name
    }
    mapping = msgspec.convert(table, SourceMapping)
    events = [event for _, event in read_events("s", mapping, Path())]
    assert len(events) == 60 + 5 + 4 and not any(isinstance(event, InvalidInput) for event in events)


def test_commas_that_separate_now_two_and_now_three(tmp_path: Path) -> None:
    path = tmp_path / "papers.csv"
    names = ["A. Aho", "J. Ullman", "R. Sethi", "D. Knuth", "B. Kernighan"]
    rows = [f'{n},"{", ".join(names[n % 5 : n % 5 + 1 + n % 4])}"' for n in range(40)]
    path.write_text("key,authors\n" + "\n".join(rows) + "\n")
    table = proposed(path)
    assert table["relations"]["authors"] == {"column": "authors", "type": "author", "separator": ","}
    assert table["type"] == "paper"


def test_nested_rows_and_what_some_lack(tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    rows: list[dict[str, Any]] = [
        {
            "nr": n,
            "maker": {"name": f"Studio {n % 4}"},
            "cast": [{"name": PEOPLE[n % 5]}, {"name": PEOPLE[n % 3]}],
        }
        for n in range(40)
    ]
    rows[5]["plot"] = "A commercial vessel picks up a signal " * 4
    path.write_text("\n".join(map(json.dumps, rows)))
    table = proposed(path)
    assert table["id"] == "nr" and table["optional"] == ["plot"] and table["attributes"] == ["plot"]
    assert table["relations"]["maker"] == {"column": "maker.name", "type": "maker"}
    assert table["relations"]["cast"] == {"column": "cast.name", "type": "cast"}
    assert len([e for _, e in read_events("s", msgspec.convert(table, SourceMapping), Path())]) == 40 + 4 + 5


def test_a_row_without_id_and_one_twice_make_no_other_column_the_id(tmp_path: Path) -> None:
    path = tmp_path / "library.csv"
    rows = [f"L{n},Title {n % 30},shelf {n}" for n in range(40)]
    path.write_text("\n".join(["Record ID,title,note", *rows, ",Untitled,shelf x", rows[3]]) + "\n")
    assert proposed(path)["id"] == "Record ID"
    path.write_text("\n".join(["sku,title", *(row.rpartition(",")[0] for row in [*rows, rows[3]])]) + "\n")
    assert proposed(path)["id"] == "sku"


def test_names_with_commas_apart_by_slashes_and_measures_with_units(tmp_path: Path) -> None:
    path = tmp_path / "library.csv"
    rows = [f'L{n},"{" / ".join(PEOPLE[n % 5 : n % 5 + 1 + n % 3])}",{n % 9 + 90} p.' for n in range(60)]
    path.write_text("record_id,responsibility,extent\n" + "\n".join(rows) + "\n")
    table = proposed(path)
    assert table["relations"]["responsibility"]["separator"] == " / "
    assert table["attributes"] == ["extent"]


def test_messages_of_debezium(tmp_path: Path) -> None:
    path = tmp_path / "film.jsonl"
    rows = [{"id": n, "title": f"Title {n}", "released": 9000 + n, "seen_at": 10**15 + n} for n in range(20)]
    path.write_text("\n".join(json.dumps({"op": "r", "before": None, "after": row}) for row in rows))
    table = proposed(path)
    assert table["topic"] == "SERVER.SCHEMA.film" and table["id"] == "id"
    assert table["columns"] == {"released": "date", "seen_at": "timestamp-micros"}
    msgspec.convert(table, SourceMapping)


def envelopes(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps({"op": "c", "before": None, "after": row}) for row in rows))
    return path


def test_objects_that_are_values(tmp_path: Path) -> None:
    """Of a column with objects there are its parts or itself, as the worker reads it, and never both."""
    point = {"x": 10.5, "y": 59.25, "wkb": "AA==", "srid": None}
    rows: list[dict[str, Any]] = [
        {"id": n, "price": {"scale": 1, "value": "fQ=="}, "at": point, "maker": {"name": "Fox"}}
        for n in range(9)
    ]
    rows += [{"id": 9, "price": None, "at": None, "maker": None}, {"id": 10, "price": [rows[0]["price"]]}]
    table = proposed(envelopes(tmp_path / "film.jsonl", rows))
    assert table["attributes"] == {"price": "price", "at": "at", "maker": "maker.name"}
    decode = make_decoder({"s": msgspec.convert(table, SourceMapping)}, "e", "l")
    (event,) = decode(Message(Cause(table["topic"], 0, 0), b"0", json.dumps(rows[0]).encode(), 0.0))
    assert event == Upsert("s", "0", "film", {"price": 12.5, "at": "POINT(10.5 59.25)", "maker": "Fox"})


@pytest.mark.parametrize("numbers", [["Vw==", "BNI=", "AYag"], ["AYag", "AMfx", "ASfB"]])
def test_a_numeric_without_its_schema_is_no_relation(tmp_path: Path, numbers: list[str]) -> None:
    rows = [
        {"id": n, "price": numbers[n % 3], "studio": ["Fox2", "Quarry", "Mill"][n % 3]} for n in range(30)
    ]
    found = propose([envelopes(tmp_path / "film.jsonl", rows)], "s")
    table = tomllib.loads(found.toml)["sources"]["s"]
    assert [*table["relations"]] == ["studio"] and table["attributes"] == []
    assert any(
        line.startswith("price: left out: base64") and "decimal(SCALE, base64)" in line for line in found.seen
    )


def test_change_events_of_others(tmp_path: Path) -> None:
    path = tmp_path / "dump.jsonl"
    rows: list[dict[str, Any]] = [{"id": n, "title": f"Title {n}", "year": 1970 + n} for n in range(9)]
    events = [
        {"database": "shop", "table": "films", "type": "insert", "ts": n, "data": row}
        for n, row in enumerate(rows)
    ]
    events.append(events[3] | {"type": "delete"})
    path.write_text("\n".join(map(json.dumps, events)))
    table = proposed(path)
    assert (table["envelope"], table["id"], table["type"]) == ("maxwell", "id", "film")
    assert table["attributes"] == ["title", "year"] and "relations" not in table
    decode = make_decoder({"s": msgspec.convert(table, SourceMapping)}, "e", "l")
    cause = Cause(table["topic"], 0, 0)
    assert decode(Message(cause, None, json.dumps(events[-1]).encode(), 0.0)) == [Delete("s", "3")]


@pytest.mark.parametrize(
    ("flag", "here", "gone"),
    [("deleted_at", None, "2024-01-02T00:00:00Z"), ("isDeleted", False, True), ("Op", "I", "D")],
)
def test_what_says_which_rows_are_gone(tmp_path: Path, flag: str, here: object, gone: object) -> None:
    path = tmp_path / "film.jsonl"
    rows = [{"id": n, "title": f"Title {n}", flag: gone if n == 3 else here} for n in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = propose([path], "s")
    table = tomllib.loads(found.toml)["sources"]["s"]
    assert (table["deleted"], table["attributes"]) == (flag, ["title"])
    assert any(line.startswith(f"{flag}: says which rows are gone") for line in found.seen)
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    assert events[3] == Delete("s", "3") and sum(isinstance(event, Upsert) for event in events) == 8


def test_flags_of_tools_need_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "film.jsonl"
    rows = [{"id": n, "title": f"Title {n}", "_fivetran_deleted": n == 3} for n in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    table = proposed(path)
    assert "deleted" not in table and table["attributes"] == ["title"]
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    assert events[3] == Delete("s", "3")


def test_rdf_and_triples(tmp_path: Path) -> None:
    film = b"<http://x/film/%d>"
    more = b"".join(
        b'%s <http://p/name> "Film %d" .\n%s <http://q#after> %s .\n'
        % (film % n, n, film % n, film % (n - 1))
        for n in range(3, 30)
    )
    table = proposed(compressed(tmp_path / "films.nt.gz", NT + more))
    assert (table["id"], table["attributes"]) == ("@id", ["@type", "name"])
    assert table["optional"] == ["@type", "by", "after"]
    assert table["relations"]["after"] == {"column": "after"}
    path = tmp_path / "t.tsv"
    path.write_text("head\trelation\ttail\n1\tby\t2\n")
    (join,) = proposed(path)["joins"].values()
    assert join == {"file": str(path), "head": "head", "relation_column": "relation", "tail": "tail"}


def test_no_column_tells_the_rows_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f"{n // 5},{n % 5}\n" for n in range(20)))
    assert proposed(path)["id"] == "{a}/{b}"
    path.write_text("a\nx\nx\n")
    found = propose([path], "s")
    assert tomllib.loads(found.toml)["sources"]["s"]["id"] == "a"
    assert any("A GUESS" in line for line in found.seen)


ROWS = [["id", "name", "note"], *([str(n), f"Name {n}", "x, y and z"] for n in range(5))]


@pytest.mark.parametrize(
    ("name", "separator"),
    [("a.csv", ";"), ("a.csv.gz", "|"), ("a.csv", "\t"), ("a.tsv", ";"), ("a.tsv", "|")],
)
@pytest.mark.parametrize("before", ["", "\ufeff", "sep=;\n", "\ufeffsep=;\r\n"])
def test_another_separator_is_noticed(tmp_path: Path, name: str, separator: str, before: str) -> None:
    if "sep" in before:
        before = before.replace(";", separator)
    path = compressed(
        tmp_path / name, (before + "".join(separator.join(row) + "\n" for row in ROWS)).encode()
    )
    found = propose([path], "s")
    table = tomllib.loads(found.toml)["sources"]["s"]
    assert table["separator"] == separator and f"the file: separator is {separator!r}" in found.seen
    assert (table["id"], table["attributes"]) == ("id", ["name", "note"]) and "quoting" not in table
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    assert events[4] == Upsert("s", "4", table["type"], {"name": "Name 4", "note": "x, y and z"})
    del table["separator"]
    if not before.strip("\ufeff"):
        with pytest.raises(ConfigError, match=r"no column 'id', .* separated by '.+'\? Set `separator`"):
            list(read_events("s", msgspec.convert(table, SourceMapping), Path()))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,name;other\n1,a;b\n2,c\n"),
        ("a.csv", "name\na;b\nc;d\n"),
        ("a.csv", "id,name\n"),
        ("a.tsv", "id\tname\n1\ta,b\n2\tc,d\n"),
        ("a.tsv", 'id\tname\n1\t"Rain" again\n2\t"Open\n3\t"Rain"\n'),
        ("a.csv", 'id,name\n1,"a\nb"\n2,"x ""y"""\n'),
        ("a.csv", '"id","name"\n"1","a"\n"2","b\n"3","c"\n'),
    ],
)
def test_what_is_as_usual_needs_no_setting(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert sniff(tmp_path / name) == USUAL


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("a.tsv", '"id"\t"name"\n1\t"a"\n', Layout(quoting="csv")),
        ("a.tsv", 'id\tname\n1\t"a ""b"""\n', Layout(quoting="csv")),
        ("a.tsv", '"id"\t"name"\n"1"\t"a"\n"2"\t"b" c\n' + '"3"\t"d"\n' * 9, Layout(quoting="csv")),
        ("a.tsv", 'id\tname\n1\t"a\tb"\n2\tc\n', Layout(quoting="csv")),
        ("a.csv", 'id,name\n1,"a" b\n2,"c\n3,"d" e\n', Layout(quoting="none")),
        ("a.csv", 'id|name\n1|"a" b\n2|"c\n3|"d" e\n', Layout("|", "none")),
    ],
)
def test_what_quotes_mean_is_noticed(tmp_path: Path, name: str, text: str, layout: Layout) -> None:
    (tmp_path / name).write_text(text)
    assert sniff(tmp_path / name) == layout


def test_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;price;lat;n\n1;1.234,50;52,520;1.000\n2;99,9;48,857;7\n3;-0,5;NULL;8\n")
    table = proposed(path)
    assert (table["separator"], table["decimal"]) == (";", ",")
    assert table["attributes"] == ["price", "lat", "n"] and "relations" not in table
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    assert [event.attributes for event in events if isinstance(event, Upsert)] == [
        {"price": 1234.5, "lat": 52.52, "n": 1000},
        {"price": 99.9, "lat": 48.857, "n": 7},
        {"price": -0.5, "n": 8},
    ]
    for text in (
        "id;n\n1;52,520\n2;1,000\n",  # thousands, as likely
        "id;n;p\n1;5,5;1.25\n2;1,5;3.5\n",
        'id,n\n1,"5,5"\n2,"1,5"\n',  # two ids in a cell, as likely
    ):
        path.write_text(text)
        assert "decimal" not in proposed(path)


def test_columns_of_one_name_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,name,year,name\n1,a,1990,b\n2,c,1991,\n")
    found = propose([path], "s")
    assert tomllib.loads(found.toml)["sources"]["s"]["attributes"] == ["year"]
    assert "name: left out: several columns have this name; give each a name of its own" in found.seen


def test_triples_with_another_separator(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("head;relation;tail\n1;by;2\n")
    (join,) = proposed(path)["joins"].values()
    assert join["separator"] == ";"


def test_spellings_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "firms.csv"
    cells = ["NULL", "\\N", "-", "NO", "?", "Rome", "Oslo", "Rome", "NULL", "Oslo", "NO", "NO"]
    path.write_text("id,city,gone\n" + "".join(f"{n},{cell},n/a\n" for n, cell in enumerate(cells)))
    found = propose([path], "s")
    table = tomllib.loads(found.toml)["sources"]["s"]
    assert table["null"] == [*NULL, "-", "?"]
    assert "null: taken for absent: n/a (12), NULL (2), \\N (1), - (1), ? (1)" in found.seen
    assert "gone: left out: always blank" in found.seen
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    made = {event.id for event in events if isinstance(event, Upsert) and event.type == "city"}
    assert made == {"city/NO", "city/Rome", "city/Oslo"}
    path.write_text("id,city\n1,NO\n2,NA\n")
    assert "null" not in proposed(path)


def test_a_column_of_nothing_but_separators_is_an_attribute(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_text("id,cast\n1,;\n2,;;\n3,;\n")
    assert tomllib.loads(propose([path], "s").toml)["sources"]["s"]["attributes"] == ["cast"]


def test_what_needs_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"op":"upsert","source":"x","id":"1","type":"t"}\n')
    with pytest.raises(ConfigError, match=r"holds canonical events; .* needs no mapping"):
        propose([path], "s")
    path.write_text("")
    with pytest.raises(ConfigError, match="has no rows"):
        propose([path], "s")


WESTERN = ["Zürich", "Genève", "Málaga", "Köln – Hauptbahnhof", "Côte d’Azur", "Bern"]


@pytest.mark.parametrize(
    ("encoding", "names", "guess"),
    [
        ("utf-8", WESTERN, None),
        ("cp1252", WESTERN, "cp1252"),
        ("utf-16", WESTERN, "utf-16"),
        ("utf-16-be", WESTERN, "utf-16-be"),
        ("cp1251", ["Москва", "Санкт-Петербург", "Казань"], "cp1251"),
        ("cp1253", ["Αθήνα", "Θεσσαλονίκη", "Πάτρα"], "cp1253"),
        ("shift_jis", ["東京", "大阪", "名古屋", "カタカナ市"], "cp932"),
        ("gb18030", ["北京", "上海", "广州", "深圳"], "gb18030"),
        ("euc_kr", ["서울", "부산", "대구", "인천"], "cp949"),
    ],
)
def test_encodings_are_proposed(tmp_path: Path, encoding: str, names: list[str], guess: str | None) -> None:
    path = tmp_path / "cities.csv"
    rows = [f"{n},{name} {n},{1900 + n}" for n, name in enumerate(names * 4)]
    path.write_text("\n".join(["id,name,year", *rows]), encoding=encoding)
    proposal = propose([path], "s")
    table = tomllib.loads(proposal.toml)["sources"]["s"]
    assert table.get("encoding") == guess
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    assert {e.attributes["name"] for e in events if isinstance(e, Upsert)} >= {
        f"{names[0]} 0",
        f"{names[1]} 1",
    }
    is_guessed = guess is not None and guess != "utf-16"
    assert any("A GUESS" in line and names[0] in line for line in proposal.seen) == is_guessed


def test_parquet_has_no_encoding(tmp_path: Path) -> None:
    """Its bytes are no text, and looked like one in Latin-1."""
    path = tmp_path / "films.parquet"
    parquet.write_table(arrow.table({"id": ["a", "b"], "name": ["Zoë", "Åsa"], "score": [1.5, 2.25]}), path)
    assert "encoding" not in proposed(path)


def test_a_few_cells_that_are_no_utf_8_make_no_other_encoding(tmp_path: Path) -> None:
    path = tmp_path / "cities.csv"
    path.write_bytes(b"id,name\n1,Z\xfcrich\n" + "2,Köln\n3,Málaga\n".encode())
    assert sniff(path) == USUAL


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "films.csv"
    path.write_bytes(b"\xd0\x00\x8f,\xfe\n1,2\n" * 3)
    result = CliRunner().invoke(main, ["map", str(path)])
    assert result.exit_code == 0, result.stderr
    assert "A GUESS" in result.stderr


def test_the_command_prints_toml_and_reasons_apart(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["map", str(films(tmp_path)), "--source", "my-films"])
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["sources"]["my-films"]["id"] == "tconst"
    assert "sameas: rest: left out: always blank" in result.stderr
    assert "sameas: kind: type: film (20), series (20), short (20)" in result.stderr
    (tmp_path / "cast.csv").write_text("tconst,name\ntt0000001,Anna\ntt0000001,Boris\ntt0000002,Anna\n")
    result = CliRunner().invoke(main, ["map", str(tmp_path / "films.csv"), str(tmp_path / "cast.csv")])
    assert result.exit_code == 0
    assert "sameas: cast.csv: tconst: relation: ids of films.csv" in result.stderr
    (tmp_path / "sameas.toml").write_text(result.stdout)
    arguments = ["--config", str(tmp_path / "sameas.toml"), "--source", tmp_path.name, "--dry-run"]
    result = CliRunner().invoke(main, ["feed", *arguments])
    assert result.exit_code == 0 and "refused 0" in result.stderr
    result = CliRunner().invoke(main, ["map", str(tmp_path / "gone.csv")])
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and "cannot be read" in result.stderr


def test_a_sample_is_no_larger_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"id": "f{number}", "title": "{"x" * 80}"}}\n' for number in range(100)))
    assert propose([path], "s").seen[0] == "100 rows, 2 columns"
    monkeypatch.setattr("stream.catalogue.columns.SAMPLE_CHARS", 1_200)
    assert propose([path], "s").seen[0] == "the first 11 rows, 2 columns"
    monkeypatch.setattr("stream.catalogue.columns.SAMPLE_CHARS", 10)
    assert propose([path], "s").seen[0] == "the first 1 rows, 2 columns"
    monkeypatch.setattr("stream.catalogue.columns.SAMPLE_CHARS", 1 << 24)
    monkeypatch.setattr("stream.catalogue.columns.SAMPLE_ROWS", 100)
    assert propose([path], "s").seen[0] == "100 rows, 2 columns"
    monkeypatch.setattr("stream.catalogue.columns.SAMPLE_ROWS", 99)
    assert propose([path], "s").seen[0] == "the first 99 rows, 2 columns"
