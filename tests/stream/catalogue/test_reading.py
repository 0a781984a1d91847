"""Files become entity events with their lines; everything else gets a reason."""

import gzip
import json
from pathlib import Path

import msgspec
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from stream.catalogue.account import Account
from stream.catalogue.reading import read_canonical, read_events
from stream.errors import ConfigError, InvalidInput
from stream.events import Delete, EntityEvent, Upsert
from stream.mapping.language import Relation, SourceMapping
from tests.stream.mapping.mappings import AIRPORTS, FILMS, film, mapping, upserts


def read_all(source: str, text: str, base: Path) -> list[tuple[int, EntityEvent | InvalidInput]]:
    return list(read_events(source, mapping(text), base))


def test_a_table_is_read_with_its_lines(tmp_path: Path) -> None:
    (tmp_path / "imdb.csv").write_bytes(
        "\ufeffid,title,year,actor,prequel\n"
        '1,"two\nlines",1979,A,\n'
        "\n"
        "2,short\n"
        '3,"more, cells",1,B,,,\n'.encode()
        + b"4,\xff,1,B,\n"
        + "5,Überfall,1,A;B,\n".encode()
    )
    found = read_all("imdb", FILMS, tmp_path)
    assert [(line, e.id) for line, e in found if isinstance(e, Upsert)] == [
        (2, "person/A"),
        (2, "1"),
        (8, "person/B"),
        (8, "5"),
    ]
    assert [(line, e.reason, str(e)) for line, e in found if isinstance(e, InvalidInput)] == [
        (5, "malformed", "imdb.csv:5: 2 cells under 5 columns"),
        (6, "malformed", "imdb.csv:6: 7 cells under 5 columns"),
        (7, "malformed", "imdb.csv:7: not UTF-8; set `encoding`, which `sameas map` proposes"),
    ]


@pytest.mark.parametrize(
    ("encoding", "suffix"),
    [
        ("cp1252", ".csv"),
        ("utf-16", ".csv"),
        ("utf-16-le", ".tsv"),
        ("shift_jis", ".jsonl"),
        ("latin-1", ".csv.gz"),
    ],
)
def test_any_encoding_is_read_as_the_mapping_says(tmp_path: Path, encoding: str, suffix: str) -> None:
    name = "東京" if encoding == "shift_jis" else "Zürich"
    separator = "\t" if suffix == ".tsv" else ","
    rows = [["id", "name"], *([str(n), f"{name} {n}"] for n in range(1, 30_000, 1000))]
    text = "\n".join(separator.join(row) for row in rows)
    if suffix == ".jsonl":
        text = "\n".join(json.dumps({"id": a, "name": b}, ensure_ascii=False) for a, b in rows[1:])
    data = text.encode(encoding)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    mapping = SourceMapping(file=f"a{suffix}", id="id", attributes=["name"], encoding=encoding)
    events = [event for _, event in read_events("s", mapping, tmp_path)]
    assert [event.attributes["name"] for event in events if isinstance(event, Upsert)] == [
        b for _, b in rows[1:]
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,Zürich\n", encoding=encoding)
    ((_, event),) = read_events("s", SourceMapping(file="a.csv", id="id", attributes=["name"]), tmp_path)
    assert isinstance(event, Upsert) and event.attributes == {"name": "Zürich"}


def test_what_is_not_in_the_encoding_costs_its_row_and_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,name\n1,Z\xfcrich\n2,\x81\n3,Gen\xe8ve\n")
    (tmp_path / "b.csv").write_bytes("id,name\n1,x\n2,y".encode("utf-16-le") + b"\x00\xd8\x00")
    for file, encoding, line in (("a.csv", "cp1252", 3), ("b.csv", "utf-16-le", 3)):
        mapping = SourceMapping(file=file, id="id", attributes=["name"], encoding=encoding)
        found = [event for _, event in read_events("s", mapping, tmp_path)]
        (refusal,) = (event for event in found if isinstance(event, InvalidInput))
        assert str(refusal) == f"{file}:{line}: not {encoding}" and len(found) == 3 - (file == "b.csv")


@pytest.mark.parametrize("encoding", ["cp9999", "", "hex", "idna", "a\0b"])
def test_an_encoding_that_is_none(encoding: str) -> None:
    with pytest.raises(ValueError, match="encoding: "):
        SourceMapping(file="a.csv", id="id", encoding=encoding)


def test_a_huge_cell_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "imdb.csv").write_text(
        f"id,title,year,actor,prequel\n1,{'x' * 10_000_000},1,,\n2,y,1,,\n",
    )
    (_, refusal), (line, event) = read_all("imdb", FILMS, tmp_path)
    assert isinstance(refusal, InvalidInput) and refusal.reason == "too-large"
    assert isinstance(event, Upsert) and (line, event.id) == (3, "2")


def test_tsv(tmp_path: Path) -> None:
    (tmp_path / "airports.tsv").write_text('row\tname\tcity\tcountry\n1\tO\'Hare, "Orchard"\tChicago\tUS\n')
    events = upserts([e for _, e in read_all("airports", AIRPORTS, tmp_path) if isinstance(e, Upsert)])
    assert events["1"].attributes == {"label": 'O\'Hare, "Orchard"'}


def test_json_lines(tmp_path: Path) -> None:
    text = FILMS.replace("imdb.csv", "imdb.jsonl")
    rows = [film(id=1), {"id": 2}]
    (tmp_path / "imdb.jsonl").write_text("\n".join([*map(json.dumps, rows), "{", "[]", ""]))
    (_, event), *refusals = read_all("imdb", text, tmp_path)
    assert isinstance(event, Upsert) and event.id == "1"
    assert [(line, e.reason) for line, e in refusals if isinstance(e, InvalidInput)] == [
        (2, "missing-column"),
        (3, "malformed"),
        (4, "malformed"),
    ]


@pytest.mark.parametrize("name", ["imdb.csv", "imdb.tsv", "imdb.jsonl"])
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, name: str) -> None:
    contents = {".csv": "id,titel", ".tsv": "id\ttitel", ".jsonl": '{"id": 1, "titel": "x"}'}
    (tmp_path / name).write_text(contents[Path(name).suffix])
    with pytest.raises(ConfigError, match=rf"{name}: no column 'title', 'year'.*; there are 'id', 'titel'"):
        read_all("imdb", FILMS.replace("imdb.csv", name), tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"imdb\.csv cannot be read: No such file"):
        read_all("imdb", FILMS, tmp_path)
    with pytest.raises(ConfigError, match=r"imdb\.xlsx: unknown suffix; rows are read from \.csv, \.jsonl"):
        read_all("imdb", FILMS.replace("imdb.csv", "imdb.xlsx"), tmp_path)
    with pytest.raises(ConfigError, match=r"sources\.s: no file to read"):
        list(read_events("s", SourceMapping(topic="t", id="id"), tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_canonical(tmp_path / "gone.jsonl", Account()))
    with pytest.raises(ConfigError, match=r"canonical events in a \.jsonl file"):
        list(read_canonical(tmp_path / "events.csv", Account()))


def test_triples_are_grouped_by_head(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,name\n1,Paris\n2,France\n")
    (tmp_path / "t.csv").write_text("head,relation,tail\n1,in,2\n3,near,1\n1,near,9\n1,in,2\n1,,2\n1,in,4\n")
    source = SourceMapping(file="e.csv", id="id", attributes=["name"], triples="t.csv")
    found = list(read_events("fr", source, tmp_path))
    assert [e.reason for _, e in found if isinstance(e, InvalidInput)] == ["bad-id"]
    events = upserts([e for _, e in found if isinstance(e, Upsert)])
    assert events["1"].relations == {"in": ["2", "4"], "near": ["9"]}
    assert events["2"].relations == {}
    assert events["3"] == Upsert("fr", "3", "entity", {}, {"near": ["1"]})  # a head without a row
    assert set(events) == {"1", "2", "3"}


def test_a_triples_file_may_stand_alone_and_name_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("s\tp\to\na\tknows\tb\n")
    source = msgspec.convert(
        {"type": "person", "triples": {"file": "t.tsv", "head": "s", "relation": "p", "tail": "o"}},
        SourceMapping,
    )
    assert list(read_events("x", source, tmp_path)) == [(0, Upsert("x", "a", "person", {}, {"knows": ["b"]}))]


def test_canonical_lines(tmp_path: Path) -> None:
    lines = [
        '{"op": "upsert", "source": "a", "id": "1", "type": "t"}',
        "",
        '{"op": "delete", "source": "b", "id": "1"}',
        '{"op": "merge"}',
    ]
    (tmp_path / "events.jsonl").write_text("\ufeff" + "\n".join(lines))
    found = list(read_canonical(tmp_path / "events.jsonl", Account()))
    assert found[:2] == [(1, Upsert("a", "1", "t")), (3, Delete("b", "1"))]
    assert isinstance(found[2][1], InvalidInput) and found[2][1].reason == "malformed"
    of_one = list(read_events("a", SourceMapping(file="events.jsonl"), tmp_path))
    assert isinstance(of_one[1][1], InvalidInput) and of_one[1][1].reason == "wrong-source"


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_with_gaps_as_pandas_writes_them(tmp_path: Path, suffix: str) -> None:
    by, score = [12.0, float("nan"), 13.0], [1.5, 2.0, float("nan")]
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        path.write_text("id,by,score\n1,12.0,1.5\n2,,2.0\n3,13.0,\n")
    elif suffix == "jsonl":
        rows = [{"id": n + 1, "by": by[n], "score": score[n]} for n in range(3)]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(arrow.table({"id": [1, 2, 3], "by": by, "score": score}), path)
    relations = {"by": Relation("by", id="person/{by}")}
    source = SourceMapping(file=path.name, id="id", attributes=["score"], relations=relations)
    assert [event for _, event in read_events("s", source, tmp_path)] == [
        Upsert("s", "1", "entity", {"score": 1.5}, {"by": ["person/12"]}),
        Upsert("s", "2", "entity", {"score": 2.0}),
        Upsert("s", "3", "entity", {}, {"by": ["person/13"]}),
    ]


def test_an_optional_column_that_is_in_the_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,n,n\n1,x,y\n")
    source = SourceMapping(file="a.csv", id="id", attributes=["n"], optional=["n"])
    with pytest.raises(ConfigError, match=r"a\.csv: 2 columns are called 'n'"):
        list(read_events("s", source, tmp_path))
    join = {"file": "a.csv", "head": "id", "tail": "n", "relation": "r"}
    source = msgspec.convert({"id": "id", "joins": {"j": join}}, SourceMapping)
    with pytest.raises(ConfigError, match=r"a\.csv: 2 columns are called 'n'"):
        list(read_events("s", source, tmp_path))


def test_a_key_that_is_twice_in_a_canonical_event(tmp_path: Path) -> None:
    event = '{"op": "upsert", "source": "a", "id": "1", "type": "t", "attributes": {"n": "x"}}'
    lines = [event, event.replace('"n": "x"', '"n": "x", "n": "y"'), event.replace('"id"', '"id": "2", "id"')]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    (_, first), *refused = read_canonical(tmp_path / "events.jsonl", Account())
    assert isinstance(first, Upsert)
    assert [(line, str(error)) for line, error in refused] == [
        (2, "the key 'n' is twice in an object"),
        (3, "the key 'id' is twice in an object"),
    ]
