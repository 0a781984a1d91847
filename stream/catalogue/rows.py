"""Rows of files, one mapping of column to value each: CSV, TSV, JSON Lines, Parquet, N-Triples and Turtle.

pyarrow reads Parquet (and decompresses zstd), pyoxigraph reads RDF. Both have few dependencies, stream what
they read and are well maintained; `pip install 'sameas[files]'` brings them. Rows know nothing of entities.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO

from stream.catalogue.delimited import SEPARATORS, USUAL, Layout, read_delimited, read_header
from stream.catalogue.opening import COMPRESSED, Meter, format_of, open_bytes, read_lines, require
from stream.catalogue.rdf import RDF, read_rdf
from stream.errors import ConfigError, InvalidInput
from stream.mapping.column_types import plain_decimal, plain_duration
from stream.mapping.row import Row, decode_object, missing_columns, repeated_columns

NumberedRow = tuple[int, Row | InvalidInput]

JSON_LINES = {".jsonl", ".ndjson"}
PARQUET = {".parquet"}
PARQUET_BATCH = 4096  # rows


def read_rows(
    path: Path,
    required: Sequence[str] = (),
    meter: Meter | None = None,
    iri: str = "",
    layout: Layout = USUAL,
    mapped: Sequence[str] = (),
) -> Iterator[NumberedRow]:
    """The rows of a file, each with the line that it begins on (from 1), or why a line is refused.

    Args:
        meter: counts how much of the file has been read.
        iri: IRIs of an RDF file that begin with it are written without it (`stream/catalogue/rdf.py`).
        layout: of separated cells, and the encoding of any text.
        mapped: the columns that are used. None of them may be in a file twice.

    Raises:
        ConfigError: the file is missing, its suffix is unknown, a required column is not in it, or a mapped
            one twice. Of JSON Lines the first row is checked; an object with a key twice is refused. RDF is
            not checked, where every property may be absent.
    """
    check_suffix(path)
    suffix = format_of(path)
    if suffix in RDF:
        for _, rows in read_rdf([path], iri, meter, layout.encoding):
            yield from rows
    elif suffix in PARQUET:
        yield from _read_parquet(path, required, mapped, meter)
    else:
        with open_bytes(path, meter, layout.encoding) as file:
            if suffix in JSON_LINES:
                yield from _read_json_lines(path, file, required)
            else:
                yield from read_delimited(path, file, required, mapped, layout)


def column_names(path: Path, layout: Layout = USUAL) -> list[str]:
    """The names of a file's columns, where the file has a header; one may be there twice.

    Raises:
        ConfigError: the file cannot be read.
    """
    suffix = format_of(path)
    if suffix in SEPARATORS:
        with open_bytes(path, encoding=layout.encoding) as file:
            return read_header(path, file, layout)
    if suffix in PARQUET:
        parquet = require("pyarrow.parquet", path)
        with parquet.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    return []


def check_suffix(path: Path) -> None:
    """Raises ConfigError unless the suffix names a format that can be read."""
    known = {*SEPARATORS, *JSON_LINES, *PARQUET, *RDF}
    if format_of(path) not in known:
        raise ConfigError(
            f"{path}: unknown suffix; rows are read from {', '.join(sorted(known))}, "
            f"also with {' or '.join(COMPRESSED)}"
        )


def _read_json_lines(path: Path, file: IO[bytes], required: Sequence[str]) -> Iterator[NumberedRow]:
    first = True
    for line, text in enumerate(read_lines(file), 1):
        if isinstance(text, InvalidInput):
            yield line, text
            continue
        if not text.strip():
            continue
        try:
            row = decode_object(text)
        except InvalidInput as error:
            yield line, error
            continue
        problem = missing_columns(required, row)
        if problem and first:
            raise ConfigError(f"{path}: {problem}")
        first = False
        yield line, InvalidInput("missing-column", problem) if problem else row


def _read_parquet(
    path: Path, required: Sequence[str], mapped: Sequence[str], meter: Meter | None
) -> Iterator[NumberedRow]:
    """A row's line is its number."""
    parquet = require("pyarrow.parquet", path)
    arrow = require("pyarrow", path)
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if problem := missing_columns(required, dict.fromkeys(names)) or repeated_columns(mapped, names):
                raise ConfigError(f"{path}: {problem}")
            line, rows, size = 0, max(1, file.metadata.num_rows), path.stat().st_size
            for batch in file.iter_batches(batch_size=PARQUET_BATCH):
                for row in batch.to_pylist():
                    line += 1
                    yield line, {name: _plain(value) for name, value in row.items()}
                if meter is not None:
                    meter.done += size * batch.num_rows // rows
    except (OSError, arrow.ArrowException, OverflowError, ValueError, KeyError) as error:
        # the last three: dates beyond the year 9999, text that is not UTF-8 or a name
        # twice in a nested column, unknown time zones
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path} cannot be read: {reason}") from error


def _plain(value: object) -> object:
    """A Parquet value as JSON would hold it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return plain_duration(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()  # text which its writer did not mark as text
        except UnicodeDecodeError:
            return value  # refused where it is used
    return str(value)
