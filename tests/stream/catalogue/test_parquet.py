"""What a Parquet file asks for is bounded, and what is asked for honestly is read."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from stream.catalogue import parquet_child
from stream.catalogue.opening import MAX_LINE, Meter
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput
from stream.mapping.gone import columns_to_read
from tests.stream.workers import ROOT

MOST_MB = 300  # MB that both processes together may take beyond what this one takes idle
READ = """
import json, resource, sys
from pathlib import Path
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput

def peak(who):
    return resource.getrusage(who).ru_maxrss * 1024 / 1e6

before, found = peak(resource.RUSAGE_SELF), {}
for name in sys.argv[1:]:
    told = found[Path(name).stem] = {}
    try:
        for _, row in read_rows(Path(name)):
            what = row.reason if isinstance(row, InvalidInput) else "row"
            told[what] = told.get(what, 0) + 1
    except ConfigError as error:
        told[str(error)] = 1
print(json.dumps([found, peak(resource.RUSAGE_SELF) - before + peak(resource.RUSAGE_CHILDREN)]))
"""


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(arrow.table(columns), path, compression="zstd", **options)
    return path


@pytest.mark.slow
def test_no_file_takes_more_than_its_bound(tmp_path: Path) -> None:
    long, ids = "x" * 900_000, arrow.array(range(250))
    texts = arrow.array([long] * 250, arrow.large_string())
    category = arrow.DictionaryArray.from_arrays(arrow.array([0] * 250, arrow.int32()), [long + long])
    zeros = np.zeros(20_000_000, "int8")
    files = [
        write(tmp_path / "text.parquet", {"id": ids, "t": texts}),
        write(
            tmp_path / "prefixes.parquet",
            {"id": ids, "t": texts},
            use_dictionary=False,
            column_encoding={"t": "DELTA_BYTE_ARRAY", "id": "PLAIN"},
        ),
        write(tmp_path / "category.parquet", {"id": ids, "t": category}),
        write(tmp_path / "list.parquet", {"t": arrow.array([zeros, zeros[:1]], arrow.list_(arrow.int8()))}),
        write(tmp_path / "page.parquet", {"t": arrow.array([zeros.tobytes() * 12])}, use_dictionary=False),
        write(tmp_path / "fixed.parquet", {"t": arrow.array([b"\0" * 900_000] * 50, arrow.binary(900_000))}),
    ]
    assert sum(file.stat().st_size for file in files) < 10_000_000
    done = subprocess.run(
        [sys.executable, "-c", READ, *files], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found, megabytes = json.loads(done.stdout)
    assert megabytes < MOST_MB
    assert found == {
        "text": {"row": 250},
        "prefixes": {"row": 250},
        "category": {"too-large": 250},
        "list": {"too-large": 1},
        "page": {"too-large": 1},
        "fixed": {"row": 50},
    }


def test_a_footer_of_many_columns_and_one_that_lies(tmp_path: Path) -> None:
    members = arrow.struct([(f"k{number}", arrow.int8()) for number in range(100_000)])
    parquet.ParquetWriter(tmp_path / "a.parquet", arrow.schema([("t", members)])).close()
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read: its footer takes more than 200 MiB"):
        list(read_rows(tmp_path / "a.parquet"))
    names = [f"{number}{'x' * 90}" for number in range(MAX_LINE // 90)]
    parquet.ParquetWriter(
        tmp_path / "a.parquet", arrow.schema([(name, arrow.int8()) for name in names])
    ).close()
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read: the names of its columns are longer"):
        list(read_rows(tmp_path / "a.parquet"))
    good = write(tmp_path / "b.parquet", {"id": [1, 2]}).read_bytes()
    for place in range(-60, -8, 13):
        (tmp_path / "b.parquet").write_bytes(good[:place] + b"\xff" + good[place + 1 :])
        try:
            rows = list(read_rows(tmp_path / "b.parquet"))
        except ConfigError as error:
            assert "b.parquet cannot be read: " in str(error)
        else:
            assert len(rows) <= 2


def test_only_columns_that_count_are_read(tmp_path: Path) -> None:
    columns: dict[str, list[object]] = {
        "id": [1],
        "cast": [[{"name": "a"}]],
        "_deleted": [False],
        "a.b": ["x"],
        "t": ["y"],
    }
    path = write(tmp_path / "a.parquet", columns)
    ((_, row),) = read_rows(path, ["id"], mapped=["id", "cast.name", "a.b"])
    assert row == {name: values[0] for name, values in columns.items() if name != "t"}
    ((_, row),) = read_rows(path, ["id"])
    assert row == {name: values[0] for name, values in columns.items()}
    assert columns_to_read(["id"], ["id", "t", "before", "t"]) == [
        "id",
        "t",
        "before",
    ]  # a change event, maybe
    assert columns_to_read(["id"], ["id", "t", "op_type", "op_ts"]) == ["id", "t", "op_type", "op_ts"]


def test_more_columns_than_there_is_memory_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here three columns are too many, and the fourth one is always too much from its row 70 on."""
    table: dict[str, list[str]] = {
        name: [f"{name}{n}" for n in range(100)] for name in ("id", "a", "b", "c", "d")
    }
    path = write(tmp_path / "a.parquet", table)

    class Reader(parquet.ParquetFile):  # type: ignore[misc]
        def iter_batches(self, count: int, groups: list[int], columns: list[str], **options: Any) -> Any:
            for batch in super().iter_batches(min(count, 40), groups, columns, **options):
                if len(columns) > 2 or ("d" in columns and batch.column("d")[0].as_py() == "d80"):
                    raise MemoryError
                yield batch

    with parquet.ParquetFile(path) as file:
        about = file.metadata
    monkeypatch.setattr(parquet, "ParquetFile", Reader)
    group = parquet_child._Group(arrow, path, about, 0)
    names = ["id", "a", "b", "c"]
    rows = [row for rows in group.rows(names) for row in rows]
    assert rows == [{name: table[name][n] for name in names} for n in range(100)]
    with pytest.raises(parquet_child.TooMuch):
        list(group.rows(["d"]))


def test_whole_numbers_of_any_size(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        {
            "id": arrow.array([2**64 - 1], arrow.uint64()),
            "d": arrow.array([Decimal(10) ** 60], arrow.decimal256(70, 0)),
        },
    )
    meter = Meter([path])
    assert list(read_rows(path, meter=meter)) == [(1, {"id": 2**64 - 1, "d": 10**60})]
    assert meter.share == 1


def test_maps_are_read_and_counted_by_the_row(tmp_path: Path) -> None:
    """Arrow flattens lists, and no maps."""
    kind = arrow.map_(arrow.string(), arrow.list_(arrow.int32()))
    rows: list[Any] = [[("a", [n]), ("b", None)] if n % 3 else None for n in range(50)]
    column = arrow.array(rows, kind)
    path = write(tmp_path / "a.parquet", {"m": column})
    expected = [{"m": row and [[*pair] for pair in row]} for row in rows]
    assert [row for _, row in read_rows(path)] == expected
    sizes = [parquet_child._bytes(arrow, column.slice(n, 1)) for n in range(len(rows))]
    assert max(sizes) < 3 * min(sizes[1:3]) and sum(sizes) < 2 * parquet_child._bytes(arrow, column)


def test_the_rows_before_what_is_too_much_are_read(tmp_path: Path) -> None:
    """And those of the row groups behind it."""
    zeros = np.zeros(20_000_000, "int8")
    kind = arrow.schema([("t", arrow.list_(arrow.int8()))])
    with parquet.ParquetWriter(tmp_path / "a.parquet", kind, compression="zstd") as writer:
        for values in ([zeros[:1]] * 100 + [zeros], [zeros[:1]]):
            writer.write_table(arrow.table({"t": arrow.array(values, kind.field("t").type)}))
    *rows, (line, refused), (last, row) = read_rows(tmp_path / "a.parquet")
    assert [line for line, _ in rows] == [*range(1, 101)] and (line, last) == (101, 102)
    assert isinstance(refused, InvalidInput) and "row 101: to read them takes more than" in str(refused)
    assert row == {"t": [0]}
