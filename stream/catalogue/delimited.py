"""Rows of files with separated cells: CSV and TSV.

CSV is read strictly: a quote that is left open, or text behind a closing quote, is refused, and no row ends
inside another row's cell. In TSV a quote is a character like any other, and a row is a line (IANA,
text/tab-separated-values). A mapping can say otherwise of a file (`Layout`).
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from stream.catalogue.opening import MAX_LINE, format_of, read_lines, too_large
from stream.errors import ConfigError, InvalidInput
from stream.mapping.language import Quoting
from stream.mapping.row import Row, is_unicode, missing_columns, repeated_columns

SEPARATORS = {".csv": ",", ".tsv": "\t"}
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?[\r\n]*')
OPEN = "a quote is left open, or text follows a closing one"
NUMBER = re.compile(r"[-+]?[0-9.,]+")


class Layout(NamedTuple):
    """How cells are separated and quoted, and texts encoded. None: as usual for the file's suffix."""

    separator: str | None = None
    quoting: Quoting | None = None
    encoding: str | None = None


USUAL = Layout()


def read_delimited(
    path: Path, raw: IO[bytes], required: Sequence[str], mapped: Sequence[str], layout: Layout
) -> Iterator[tuple[int, Row | InvalidInput]]:
    """The rows, each with the line that it begins on, or why a line is refused.

    After a quote that is left open the next line is read as a row, if the lines that the open cell took in
    look like rows; if they do not, they are refused together with it.

    Raises:
        ConfigError: the header cannot be read, a required column is not in it, or a mapped one twice.
    """
    lines, reader, separator, header = _begin(path, raw, layout)
    if problem := missing_columns(required, dict.fromkeys(header)) or repeated_columns(mapped, header):
        others = [other for other in ";|\t," if len(header) == 1 and other in header[0]]
        hint = f"; are its cells separated by {others[0]!r}? Set `separator`" if others else ""
        raise ConfigError(f"{path}: {problem}{hint}")
    while True:
        line = lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, _refused(lines, error, separator, len(header))
            continue
        if not cells:
            continue
        last = f" (lines {line} to {lines.number})" if lines.number > line else ""
        if len(cells) != len(header):
            yield line, InvalidInput("malformed", f"{len(cells)} cells under {len(header)} columns{last}")
        elif last and _has_rows_inside(cells, separator):
            yield (
                line,
                InvalidInput("malformed", f"a cell holds what looks like rows; is a quote left open?{last}"),
            )
        elif _is_header(cells, header):
            yield line, InvalidInput("malformed", "the header once more; are several files in one?")
        elif not all(map(is_unicode, cells)):
            yield line, InvalidInput("malformed", _not_encoded(layout.encoding))
        else:
            yield line, dict(zip(header, cells, strict=True))


def _is_header(cells: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a row says what the header says, also behind the byte order mark of another file."""
    is_same = len(header) > 1 and cells[-1].strip() == header[-1]  # hardly ever: the rest is compared then
    return is_same and [cell.strip("\ufeff \t") for cell in cells] == header


def _not_encoded(encoding: str | None) -> str:
    return f"not {encoding}" if encoding else "not UTF-8; set `encoding`, which `sameas map` proposes"


def read_header(path: Path, raw: IO[bytes], layout: Layout) -> list[str]:
    """The names of the columns. Raises ConfigError."""
    return _begin(path, raw, layout)[-1]


def _begin(
    path: Path, raw: IO[bytes], layout: Layout
) -> tuple["_Lines", Iterator[list[str]], str, list[str]]:
    """The lines, their rows behind the header, the separator and the header."""
    lines = _Lines(text_of(raw))
    suffix = format_of(path)
    try:
        named = lines.excel_separator()
        separator = layout.separator or named or SEPARATORS[suffix]
        reader = cells_of(lines, separator, layout.quoting or usual_quoting(suffix))
        return lines, reader, separator, [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        reason = f"it is {too_large()}" if isinstance(error, _TooLarge) else error
        raise ConfigError(f"{path}: the header cannot be read: {reason}; is a quote left open?") from error


def text_of(raw: IO[bytes]) -> io.TextIOWrapper:
    """The text. What is not UTF-8 becomes surrogates, so that one bad cell costs a row and not the file."""
    return io.TextIOWrapper(raw, encoding="utf-8", errors="surrogateescape", newline="")


def usual_quoting(suffix: str) -> Quoting:
    """What quotes mean in such files."""
    return "none" if suffix == ".tsv" else "csv"


def cells_of(lines: Iterator[str], separator: str, quoting: Quoting) -> Iterator[list[str]]:
    """The cells of each row. Raises csv.Error for a row that is not well quoted, and can go on after it."""
    csv.field_size_limit(MAX_LINE)
    return csv.reader(
        lines,
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoting == "csv" else csv.QUOTE_NONE,
        strict=True,
    )


class _TooLarge(csv.Error):
    """A line, or a row of several lines, that is longer than a row may be."""


class _Lines:
    """The lines of a file for a csv reader, which can be taken back to the second line of a row."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._lines = read_lines(file)
        self._again: list[str | InvalidInput] = []  # lines to be read once more, the next one last
        self.row: list[str] = []  # lines of the current row
        self._left = MAX_LINE  # of what the row may have
        self.number = 0  # of the last line that was read, from 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        # The csv module of CPython 3.11 accepts NUL, which is of no use in ids and names.
        line = self._again.pop() if self._again else next(self._lines)
        is_too_large = isinstance(line, InvalidInput) or len(line) > self._left
        if is_too_large and self.row:  # the next row begins with it
            self._again.append(line)
            raise _TooLarge
        self.number += 1
        if isinstance(line, InvalidInput):
            raise _TooLarge
        self.row.append(line)
        self._left -= len(line)
        return line.replace("\0", "\ufffd")

    def begin_row(self) -> int:
        """The number of the line that comes next."""
        self.row.clear()
        self._left = MAX_LINE
        return self.number + 1

    def back(self, count: int) -> None:
        """The last lines of the current row will be read again."""
        for _ in range(count):
            self._again.append(self.row.pop())
        self.number -= count

    def excel_separator(self) -> str | None:
        """What a first line such as `sep=;` names, which is left out."""
        first = next(self, "")
        if match := EXCEL_SEPARATOR.fullmatch(first):
            return match[1]
        if first:
            self.back(1)
        return None


def _refused(lines: _Lines, error: csv.Error, separator: str, columns: int) -> InvalidInput:
    """Why a row is refused that the reader could not read. Says to `lines` where to read on."""
    more = lines.row[1:]
    look_like_rows = columns > 1 and all(_is_row(line, separator, columns) for line in more[:-1])
    if more and look_like_rows and _begins_row(more[-1], separator, columns):
        lines.back(len(more))
        return InvalidInput("malformed", OPEN)
    refused = too_large() if isinstance(error, _TooLarge) else InvalidInput("malformed", OPEN)
    if not more:
        return refused
    return InvalidInput(refused.reason, f"{refused} (lines {lines.number - len(more)} to {lines.number})")


def _begins_row(line: str, separator: str, columns: int) -> bool:
    """Whether a line is a row, or has a quote that opens a cell, which an open one took for its end."""
    return _is_row(line, separator, columns) or f'{separator}"' in separator + line


def _is_row(line: str, separator: str, columns: int) -> bool:
    """Whether a line is a row by itself. Behind a comma in a text there is a blank."""
    try:
        (cells,) = cells_of(iter([line]), separator, "csv")
    except (csv.Error, ValueError):
        return False
    return len(cells) == columns and f"{separator} " not in line


def _has_rows_inside(cells: Sequence[str], separator: str) -> bool:
    """Whether a cell of several lines looks as if its quotes were text, and its lines rows.

    Then each line has as many cells as the row, and numbers in the same columns.
    """
    broken = [number for number, cell in enumerate(cells) if "\n" in cell or "\r" in cell]
    if len(broken) != 1 or len(cells) < 2:
        return False
    (at,) = broken
    parts = [part.split(separator) for part in re.split(r"\r\n|\r|\n", cells[at])]
    rows = [[*cells[:at], *parts[0]], *parts[1:-1], [*parts[-1], *cells[at + 1 :]]]
    return f"{separator} " not in cells[at] and all(
        len(row) == len(cells) and all(map(_are_alike, row, rows[0])) for row in rows
    )


def _are_alike(one: str, other: str) -> bool:
    return not one or not other or bool(NUMBER.fullmatch(one)) == bool(NUMBER.fullmatch(other))
