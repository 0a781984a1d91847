"""Rows of files, one mapping of column to value each: CSV, TSV, JSON Lines, Parquet, N-Triples and Turtle.

pyarrow reads Parquet (and decompresses zstd), pyoxigraph reads RDF. Both have few dependencies, stream what
they read and are well maintained; `pip install 'sameas[files]'` brings them. Rows know nothing of entities.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from stream.catalogue import parquet
from stream.catalogue.delimited import SEPARATORS, USUAL, Layout, read_delimited, read_header
from stream.catalogue.opening import COMPRESSED, Meter, format_of, open_bytes, read_lines
from stream.catalogue.parquet import PARQUET, read_parquet
from stream.catalogue.rdf import RDF, read_rdf
from stream.errors import ConfigError, InvalidInput
from stream.mapping.row import Row, decode_object, missing_columns

NumberedRow = tuple[int, Row | InvalidInput]

ONE_A_LINE = "one object a line is expected"
OTHER_FORMATS = {
    **dict.fromkeys(
        (".json", ".geojson"), "; `jq -c '.[]' IN > OUT.jsonl` writes the rows of a JSON array one a line"
    ),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "; save the sheet as CSV in UTF-8"),
    **dict.fromkeys((".txt", ".dat", ".tab"), "; a table in plain text has to be called .csv or .tsv"),
}
JSON_LINES = {".jsonl", ".ndjson"}


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
        yield from read_parquet(path, required, mapped, meter)
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
    return parquet.column_names(path) if suffix in PARQUET else []


def check_suffix(path: Path) -> None:
    """Raises ConfigError unless the suffix names a format that can be read."""
    known = {*SEPARATORS, *JSON_LINES, *PARQUET, *RDF}
    if format_of(path) not in known:
        raise ConfigError(
            f"{path}: unknown suffix; rows are read from {', '.join(sorted(known))}, "
            f"also with {' or '.join(COMPRESSED)}{OTHER_FORMATS.get(format_of(path), '')}"
        )


def _explained(error: InvalidInput, text: bytes) -> InvalidInput:
    """Why the first line is no row: of other JSON there is more to say than that it ends there."""
    begin = text.strip()
    if begin.startswith(b"["):
        return InvalidInput(error.reason, f"{ONE_A_LINE}, and no array: `jq -c '.[]'` writes its rows so")
    if begin == b"{":
        return InvalidInput(error.reason, f"{ONE_A_LINE}: `jq -c .` writes them so")
    return error


def _read_json_lines(path: Path, file: IO[bytes], required: Sequence[str]) -> Iterator[NumberedRow]:
    first = is_begin = True
    for line, text in enumerate(read_lines(file), 1):
        if isinstance(text, InvalidInput):
            yield line, text
            continue
        if not text.strip():
            continue
        try:
            row = decode_object(text)
            if row.get("type") == "FeatureCollection" and isinstance(row.get("features"), list):
                raise InvalidInput("malformed", f"{ONE_A_LINE}: `jq -c '.features[]'` writes GeoJSON so")
        except InvalidInput as error:
            yield line, _explained(error, text) if is_begin else error
            continue
        finally:
            is_begin = False
        problem = missing_columns(required, row)
        if problem and first:
            raise ConfigError(f"{path}: {problem}")
        first = False
        yield line, InvalidInput("missing-column", problem) if problem else row
