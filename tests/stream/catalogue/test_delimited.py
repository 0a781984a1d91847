"""CSV and TSV: which rows there are, and that none is lost inside another row's cell."""

from pathlib import Path

import msgspec
import pytest

from stream.catalogue.delimited import USUAL, Layout
from stream.catalogue.reading import read_events
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput
from stream.events import Upsert
from stream.mapping.language import SourceMapping
from tests.stream.catalogue.test_rows import compressed

HEADER = "id,year,title\n"


def read(path: Path, layout: Layout = USUAL) -> tuple[list[list[object]], list[tuple[int, str]]]:
    """The cells of the rows, and the lines and messages of what is refused."""
    rows, refused = [], []
    for line, row in read_rows(path, layout=layout):
        if isinstance(row, InvalidInput):
            refused.append((line, f"{row.reason}: {row}"))
        else:
            rows.append([*row.values()])
    return rows, refused


def csv_file(directory: Path, text: str) -> Path:
    path = directory / "a.csv"
    path.write_text(text, newline="")
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_quotes_in_tsv_are_text(tmp_path: Path, suffix: str) -> None:
    lines = ["id\ttitle\tby", '1\t"Rain" again\tx', '2\t"Open\tx', '3\tA "B"\t"', '4\t""\tx', '5\t"C"\ty']
    path = compressed(tmp_path / f"a.tsv{suffix}", "\n".join(lines).encode())
    assert read(path) == ([line.split("\t") for line in lines[1:]], [])


def test_a_mapping_says_what_separates_cells_and_what_quotes_mean(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\tname\n1\t"A\tB"\n')
    (tmp_path / "a.csv").write_text('id|name\n2|"A"\n')
    (tmp_path / "t.csv").write_text("head;tail\n1;2\n")
    join = {"file": "t.csv", "head": "head", "tail": "tail", "relation": "r", "separator": ";"}
    table = {"id": "id", "attributes": ["name"]}
    tables = {
        "t": {**table, "file": "a.tsv", "quoting": "csv"},
        "c": {**table, "file": "a.csv", "separator": "|", "quoting": "none"},
    }
    source = msgspec.convert({"tables": tables, "joins": {"j": join}}, SourceMapping)
    assert [event for _, event in read_events("s", source, tmp_path)] == [
        Upsert("s", "1", "entity", {"name": "A\tB"}, {"r": ["2"]}),
        Upsert("s", "2", "entity", {"name": '"A"'}),
    ]


@pytest.mark.parametrize("setting", [{"separator": ";;"}, {"separator": '"'}, {"quoting": "all"}])
def test_what_a_mapping_cannot_say(setting: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(setting))):
        msgspec.convert({"id": "id", **setting}, SourceMapping)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"file": "a.jsonl", "separator": ";"}, SourceMapping)  # of canonical events


def test_the_first_line_that_excel_writes(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "\ufeffsep=;\r\nid;t\r\n1;A, B\r\n2\r\n")
    assert read(path) == ([["1", "A, B"]], [(4, "malformed: 1 cells under 2 columns")])


def test_cells_of_several_lines(tmp_path: Path) -> None:
    whole = [
        '1,1950,"Two\nlines"',
        '2,1951,"Three, four\r\nlines, or so\nof ""text"""',
        '3,1952,"Berlin\nMain Street, 1, Germany"',
        '4,1953,"One\nTwo,Three,Four"',
        '"5\n5",1954,x',
    ]
    rows, refused = read(csv_file(tmp_path, HEADER + "\n".join(whole)))
    assert (len(rows), refused) == (5, [])


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize(
    "after",
    [
        ["3,x,z", "4,x,z"],  # to the end of the file
        ["3,x,z", '4,x,"z"', "5,x,z"],
        ['3,"x",z', '4,x,"z, z"', '5,x,"z\nz"', "6,x,z"],
        ['3,"x",z', '4,"",""', '5,x,"z"', "6,x,z"],
        ['3,"x""y",z'],
    ],
)
def test_a_quote_left_open_costs_its_own_row(
    tmp_path: Path, after: list[str], column: int, ending: str
) -> None:
    cells = ["2", "y", "z"]
    cells[column] = '"' + cells[column]
    lines = ["id,a,b", "1,x,z", ",".join(cells), *after]
    rows, refused = read(csv_file(tmp_path, ending.join(lines) + ending))
    assert [row[0] for row in rows] == ["1", *(line[0] for line in after)]
    ((line, message),) = refused
    assert line == 3 and message.startswith("malformed: a quote is left open")


def test_a_quote_left_open_before_a_million_bytes(tmp_path: Path) -> None:
    count = 150_000
    text = HEADER + '0,1950,"Open\n' + "".join(f"{n},1950,T\n" for n in range(1, count))
    rows, refused = read(csv_file(tmp_path, text))
    assert len(rows) == count - 1 and [line for line, _ in refused] == [2]


@pytest.mark.parametrize(
    "lines",
    [
        ['2,1951,"Open', '3,1952,Closed"'],  # by the last character of another title
        ['2,1951,"Open', "3,1952,Between", '4,1953,Closed"'],
        ['2,"1951,Open', '3,1952",Closed'],
        ['"2,1951,Open', '3",1952,Closed'],
        ['2,,"Open', '3,1952,Closed"'],
    ],
)
def test_rows_that_end_inside_another_rows_cell_are_refused(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join(['1,1950,"T"', *lines, "9,1959,T"])
    rows, refused = read(csv_file(tmp_path, HEADER + text))
    assert [row[0] for row in rows] == ["1", "9"]
    ((line, message),) = refused
    assert line == 3 and message.endswith(f"is a quote left open? (lines 3 to {2 + len(lines)})")


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('2,1951,"He said\n"hello" to all"\n', None),  # two lines, both refused by themselves
        ('2,1951,"One\ntwo\n"three" four"\n', 5),
        ('2,1951,"Main St\nBerlin"s, 10115, Germany\n', 4),
        ('2,1951,"One\ntwo\n', 4),
    ],
)
def test_what_is_inside_a_damaged_cell_is_no_row(tmp_path: Path, text: str, last: int | None) -> None:
    rows, refused = read(csv_file(tmp_path, HEADER + "1,1950,T\n" + text))
    assert [row[0] for row in rows] == ["1"]
    assert refused[0][0] == 3
    assert refused[0][1].endswith(f"(lines 3 to {last})") if last else [line for line, _ in refused] == [3, 4]


def test_text_behind_a_closing_quote(tmp_path: Path) -> None:
    rows, refused = read(csv_file(tmp_path, HEADER + '1,1950,"A" B\n2,1951,5" disk\n'))
    assert rows == [["2", "1951", '5" disk']]
    assert refused == [(2, "malformed: a quote is left open, or text follows a closing one")]


def test_the_header_has_a_quote_left_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.csv: the header cannot be read: .*is a quote left open"):
        read(csv_file(tmp_path, 'id,"name\n1,"x"\n'))


def test_a_header_among_the_rows_is_no_entity(tmp_path: Path) -> None:
    """What `cat a.csv b.csv` makes; the second file's byte order mark is in the middle."""
    path = csv_file(tmp_path, "id,name\n1,Rain\n id, name\n2,name\n\ufeffid,name\n3,Ice\n")
    again = "malformed: the header once more; are several files in one?"
    assert read(path) == ([["1", "Rain"], ["2", "name"], ["3", "Ice"]], [(3, again), (5, again)])
