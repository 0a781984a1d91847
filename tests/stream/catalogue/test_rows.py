"""Rows of every format, compressed or not; what is damaged is said with its line."""

import gzip
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.catalogue.opening import Meter
from stream.catalogue.rdf import read_rdf
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput
from stream.mapping.row import cell

CSV = b"id,name\n1,Alien\n2,Aliens\n"
NT = b"""<http://x/film/1> <http://www.w3.org/1999/02/22-rdf-syntax-ns#type> <http://x/Film> .
<http://x/film/1> <http://p/name> "Alien"@en .
<http://x/film/1> <http://p/name> "open quote .
<http://x/film/2> <http://p/name> "Aliens" .
<http://x/film/1> <http://q#by> <http://x/person/9> .
<http://x/film/1> <http://p/name> "Das Ding"@de .
"""
TTL = b"""@prefix p: <http://p/> . @prefix x: <http://x/film/> .
x:1 a <http://x/Film> ; p:name "Alien", "Aliens" ; p:year 1979 .
"""


def compressed(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        path.write_bytes(arrow.compress(data, codec="zstd", asbytes=True))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.CSV.zst", "a.tsv.gz", "a.jsonl.zst"])
def test_compressed_rows_and_how_much_was_read(tmp_path: Path, name: str) -> None:
    data = CSV
    if "tsv" in name:
        data = data.replace(b",", b"\t")
    elif "jsonl" in name:
        data = b'\n{"id": "1", "name": "Alien"}\n{"id": "2", "name": "Aliens"}\n'
    path = compressed(tmp_path / name, data)
    meter = Meter([path])
    assert list(read_rows(path, ["id"], meter)) == [
        (2, {"id": "1", "name": "Alien"}),
        (3, {"id": "2", "name": "Aliens"}),
    ]
    assert meter.done == meter.total == path.stat().st_size


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,n\n1,x\n"),
        ("a.csv", '"id","n"\n1,x\n'),
        ("a.csv", "sep=;\nid;n\n1;x\n"),
        ("a.tsv", "id\tn\n1\tx\n"),
        ("a.jsonl", '{"id": "1", "n": "x"}\n'),
        ("a.nt", "<id:1> <p:n> 'x' .\n".replace("'", '"')),
        ("a.ttl", '@prefix p: <p:> .\n<id:1> p:n "x" .\n'),
    ],
)
def test_a_byte_order_mark_is_no_part_of_any_format(
    tmp_path: Path, name: str, text: str, suffix: str
) -> None:
    path = compressed(tmp_path / (name + suffix), b"\xef\xbb\xbf" + text.encode())
    meter = Meter([path])
    ((_, row),) = read_rows(path, meter=meter, iri="id:")
    assert not isinstance(row, InvalidInput)
    rdf = "@id" in row
    assert (row["@id"], row["p:n"]) == ("1", ["x"]) if rdf else row == {"id": "1", "n": "x"}
    assert meter.share == 1


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_cut_short_is_no_short_file(tmp_path: Path, suffix: str) -> None:
    whole = compressed(
        tmp_path / f"a.csv{suffix}", CSV + b"".join(b"%d,%d\n" % (n, n * n) for n in range(9999))
    )
    cut = tmp_path / f"cut.csv{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ConfigError, match=r"cut\.csv\.\w+ cannot be read: .*(ended before|runcated)"):
        list(read_rows(cut))
    cut.write_bytes(b"no such format")
    with pytest.raises(ConfigError, match=r"cut\.csv\.\w+ cannot be read"):
        list(read_rows(cut))


def test_nul_is_no_character_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id\na\0b\n")
    assert list(read_rows(path)) == [(2, {"id": "a\ufffdb"})]


def test_parquet_values_are_what_json_would_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = arrow.table(
        {
            "id": [1, 2],
            "day": [date(2001, 3, 31), None],
            "at": [datetime(2001, 3, 31, 12), None],
            "price": [Decimal("8.70"), Decimal("9.00")],
            "cast": [[{"name": "S. Weaver"}, {"name": "J. Hurt"}], []],
            "raw": [b"text", b"\xff"],
        }
    )
    parquet.write_table(table, path)
    meter = Meter([path])
    (_, first), (line, second) = read_rows(path, ["id", "cast.name"], meter)
    assert first == {
        "id": 1,
        "day": "2001-03-31",
        "at": "2001-03-31T12:00:00",
        "price": 8.7,
        "cast": [{"name": "S. Weaver"}, {"name": "J. Hurt"}],
        "raw": "text",
    }
    assert not isinstance(second, InvalidInput)
    assert line == 2 and second["price"] == 9 and second["raw"] == b"\xff"
    assert meter.share == 1
    with pytest.raises(ConfigError, match=r"a\.parquet: no column 'nr'; there are 'id', 'day'"):
        list(read_rows(path, ["nr"]))
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read"):
        list(read_rows(path))


@pytest.mark.parametrize(
    "column",
    [
        arrow.array([10**7], arrow.int32()).cast(arrow.date32()),
        arrow.array([2**62], arrow.timestamp("us")),
        arrow.array([1], arrow.timestamp("us", tz="Nowhere/Else")),
        arrow.Array.from_buffers(
            arrow.string(), 1, [None, arrow.py_buffer(bytes(4) + b"\1\0\0\0"), arrow.py_buffer(b"\xff")]
        ),
    ],
    ids=["date", "timestamp", "time zone", "text"],
)
def test_parquet_values_that_python_has_not(tmp_path: Path, column: arrow.Array) -> None:
    parquet.write_table(arrow.table({"id": column}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read: "):
        list(read_rows(tmp_path / "a.parquet"))


def test_a_mapped_column_that_is_in_the_file_twice(tmp_path: Path) -> None:
    for name, text in (("a.csv", "id,n, n\n1,x,y\n"), ("a.tsv", "id\tn\tn\n1\tx\ty\n")):
        (tmp_path / name).write_text(text)
    arrays = [arrow.array(["1"]), arrow.array(["x"]), arrow.array(["y"])]
    parquet.write_table(arrow.Table.from_arrays(arrays, names=["id", "n", "n"]), tmp_path / "a.parquet")
    for name in ("a.csv", "a.tsv", "a.parquet"):
        with pytest.raises(ConfigError, match=rf"{name}: 2 columns are called 'n', numbers 2 and 3; give"):
            list(read_rows(tmp_path / name, ["id"], mapped=["id", "n"]))
        with pytest.raises(ConfigError, match="2 columns are called 'n'"):
            list(read_rows(tmp_path / name, ["id"], mapped=["id", "n.en"]))
        ((_, row),) = read_rows(tmp_path / name, ["id"], mapped=["id"])
        assert not isinstance(row, InvalidInput) and row["id"] == "1"


def test_a_name_twice_in_a_nested_column_of_parquet(tmp_path: Path) -> None:
    maker = arrow.StructArray.from_arrays([arrow.array(["x"]), arrow.array(["y"])], names=["n", "n"])
    parquet.write_table(arrow.table({"maker": maker}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read: .*duplicate field names"):
        list(read_rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 1, "n": "x", "n": "y"}',
        '{"id": 1, "n": "x", "n": "x"}',
        '{"n": 1, "id" \t: 1, "n" : 2}',
        '{"id": {"n": 1, "n": 2}}',
        '{"id": [{"m": {}}, {"n": 1, "n": {"n": 2}}]}',
        '{"id": ":", "\\u006e": "\\":", "n": 2}',
    ],
)
def test_a_key_that_is_twice_in_an_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id": 0, "n": "12:30", "m": {{"n": "a\\": b"}}}}\n{text}\n{{"id": 2}}\n')
    (first, _), (line, refusal), (last, _) = read_rows(path)
    assert (first, line, last) == (1, 2, 3)
    assert isinstance(refusal, InvalidInput) and refusal.reason == "malformed"
    assert str(refusal) == "the key 'n' is twice in an object"


def test_a_quote_left_open_in_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'"id,t\n' + b"x,y\n" * 400_000)
    with pytest.raises(
        ConfigError, match=r"a\.csv: the header cannot be read: it is longer than .* quote left open"
    ):
        list(read_rows(tmp_path / "a.csv"))


def test_n_triples_are_grouped_by_subject(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.nt.gz", NT)
    (line, refusal), (_, first), (_, second) = read_rows(path, ["anything"], iri="http://x/")
    assert isinstance(refusal, InvalidInput) and (line, refusal.reason) == (3, "malformed")
    assert not isinstance(first, InvalidInput) and not isinstance(second, InvalidInput)
    assert (first["@id"], first["@type"]) == ("film/1", ["Film"])
    assert first["name"] == first["http://p/name"] == ["Alien", "Das Ding"]
    assert first["name@de"] == ["Das Ding"] and first["by"] == ["person/9"]
    assert (second["@id"], second["name"]) == ("film/2", ["Aliens"])


def test_turtle(tmp_path: Path) -> None:
    path = tmp_path / "a.ttl"
    path.write_bytes(TTL)
    ((_, row),) = read_rows(path, iri="http://x/film/")
    assert not isinstance(row, InvalidInput)
    assert (row["@id"], row["@type"]) == ("1", ["Film"])
    assert (row["name"], row["year"]) == (["Alien", "Aliens"], ["1979"])
    path.write_bytes(TTL + b"x:2 p:name oops ;\n")
    with pytest.raises(ConfigError, match=r"a\.ttl:3: not valid Turtle: "):
        list(read_rows(path))


def test_paths_lead_into_what_is_nested() -> None:
    row = {"a": {"b": {"c": 1}}, "x.y": 2, "l": [{"n": "p"}, {"n": ["q", "r"]}, {}], "t": "text"}
    assert cell(row, "a.b.c") == 1
    assert cell(row, "x.y") == 2
    assert cell(row, "l.n") == ["p", "q", "r", None]
    assert cell({"t": " "}, "t.n") is None and cell({"t": "-"}, "t.n.m", {"-"}) is None
    for path in ("t.n", "a.b.c.d", "l.n.m"):
        with pytest.raises(InvalidInput, match=r"an object with '.' is expected, not"):
            cell(row, path)
    assert cell(row, "a.z.c") is None and cell(row, "gone.z") is None


TERMS = ["<http://x/1>", "<http://x/2>", "<http://x/3>", "_:a", "_:b"]
TRIPLES = st.tuples(
    st.sampled_from(TERMS),
    st.sampled_from(["<http://p/n>", "<http://q/n>"]),
    st.sampled_from([*TERMS, '"t"', '"u"@de']),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.lists(TRIPLES, max_size=15), min_size=1, max_size=3),
    most=st.sampled_from([0, 2_000, 5_000]),
)
def test_subjects_that_go_to_the_disk_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[list[tuple[str, str, str]]], most: int
) -> None:
    paths = [tmp_path / f"{number}.nt" for number in range(len(files))]
    for path, triples in zip(paths, files, strict=True):
        path.write_text("".join(f"{' '.join(triple)} .\n" for triple in triples))

    def read() -> list[object]:
        return [(path, list(rows)) for path, rows in read_rdf(paths, "http://x/")]

    monkeypatch.setattr("stream.catalogue.rdf.OPEN_BYTES", 1 << 30)
    held = read()
    monkeypatch.setattr("stream.catalogue.rdf.OPEN_BYTES", most)
    assert read() == held


def test_a_subject_of_too_many_values_is_refused_from_the_disk_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.catalogue.rdf.OPEN_BYTES", 0)
    path = tmp_path / "a.nt"
    text = "x" * 300_000
    path.write_text("".join(f'<x:1> <p:n> "{n}{text}" .\n<x:2> <p:n> "{n}" .\n' for n in range(5)))
    (_, refused), (_, row) = read_rows(path)
    assert isinstance(refused, InvalidInput) and refused.reason == "too-large"
    assert not isinstance(row, InvalidInput) and row["p:n"] == ["0", "1", "2", "3", "4"]
