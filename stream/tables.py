"""Rows of CSV, TSV and JSON Lines files, one mapping of column to value each. Knows nothing of entities."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from stream.errors import ConfigError, InvalidInput
from stream.events import MAX_EVENT_BYTES

Row = Mapping[str, object]
NumberedRow = tuple[int, Row | InvalidInput]

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = {".jsonl", ".ndjson"}

_object_decoder = msgspec.json.Decoder(dict[str, object])


def read_rows(path: Path, required: Sequence[str] = ()) -> Iterator[NumberedRow]:
    """The rows of a file with the line that each begins on (from 1), or why a line is none.

    Raises:
        ConfigError: there is no such file, its suffix is unknown, or a required column is not in it (in JSON
            Lines: not in the first row).
    """
    rows = _numbered_rows(path, required)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def check_suffix(path: Path) -> None:
    """Raises ConfigError unless the suffix tells a format that can be read."""
    known = {*DELIMITERS, *JSON_LINES}
    if path.suffix.lower() not in known:
        raise ConfigError(f"{path}: unknown suffix; rows are read from {', '.join(sorted(known))}")


def missing_columns(required: Sequence[str], row: Row) -> str:
    """One line that names the required columns that a row lacks and those it has; empty if it lacks none."""
    missing = [column for column in required if column not in row]
    if not missing:
        return ""
    return f"no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, row))}"


def _numbered_rows(path: Path, required: Sequence[str]) -> Iterator[NumberedRow]:
    check_suffix(path)
    if path.suffix.lower() in JSON_LINES:
        return _read_json_lines(path, required)
    return _read_delimited(path, required)


def _read_delimited(path: Path, required: Sequence[str]) -> Iterator[NumberedRow]:
    csv.field_size_limit(MAX_EVENT_BYTES)
    # Undecodable bytes become surrogates, so that one bad cell costs a row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(_without_nul(file), delimiter=DELIMITERS[path.suffix.lower()])
        header = [name.strip() for name in next(reader, [])]
        if problem := missing_columns(required, dict.fromkeys(header)):
            raise ConfigError(f"{path}: {problem}")
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                reason = "too-large" if "field limit" in str(error) else "malformed"
                yield line, InvalidInput(reason, str(error))
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield line, InvalidInput("malformed", f"{len(cells)} cells under {len(header)} columns")
            elif not all(map(_is_unicode, cells)):
                yield line, InvalidInput("malformed", "not UTF-8")
            else:
                yield line, dict(zip(header, cells, strict=True))


def _read_json_lines(path: Path, required: Sequence[str]) -> Iterator[NumberedRow]:
    first = True
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
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


def decode_object(text: bytes) -> dict[str, object]:
    """A JSON object.

    Raises:
        InvalidInput: with reason `too-large` or `malformed`.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise InvalidInput("too-large", f"{len(text)} bytes; {MAX_EVENT_BYTES} are allowed")
    try:
        return _object_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("malformed", str(error)) from error


def _without_nul(file: TextIO) -> Iterator[str]:
    # The csv module of CPython 3.11 accepts NUL; ids and names with it help nobody further on.
    for line in file:
        yield line.replace("\0", "\ufffd")


def _is_unicode(cell: str) -> bool:
    if cell.isascii():
        return True
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
