"""How a CSV or TSV file is laid out, where its suffix does not say it, and how any text is encoded."""

import csv
import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stream.catalogue.delimited import (
    EXCEL_SEPARATOR,
    SEPARATORS,
    USUAL,
    Layout,
    cells_of,
    text_of,
    usual_quoting,
)
from stream.catalogue.opening import (
    MAX_LINE,
    first_bytes,
    format_of,
    marked_encoding,
    open_bytes,
    read_lines,
    require,
)
from stream.catalogue.parquet import PARQUET
from stream.errors import InvalidInput
from stream.mapping.language import Quoting

SAMPLE_LINES = 200
SAMPLE_BYTES, GUESSED_BYTES = 1 << 24, 1 << 16
MULTIBYTE = re.compile(r"[^\x00-\x7f\ufffd]")
BEYOND_ASCII = re.compile(r"\w*[^\W\x00-\x7f]\w*")
ENOUGH = 0.9  # of the rows, with as many cells as the header


class _Fit(NamedTuple):
    columns: int
    share: float  # of the rows that have as many cells as the header

    @property
    def is_good(self) -> bool:
        return self.columns > 1 and self.share >= ENOUGH


def sniff(path: Path) -> Layout:
    """What the first lines say that differs from what is usual for the suffix.

    Raises:
        ConfigError: the file cannot be read.
    """
    if format_of(path) in PARQUET:
        return USUAL  # no text
    encoding = guess_encoding(path)
    if format_of(path) not in SEPARATORS:
        return Layout(encoding=encoding)
    with open_bytes(path, encoding=encoding) as file:
        lines = list(_first_lines(read_lines(text_of(file))))
    return _sniff_lines(lines, format_of(path))._replace(encoding=encoding)


def guess_encoding(path: Path) -> str | None:
    """The encoding of a text, None if it is UTF-8: by its byte order mark, else by what its letters would be.

    Raises:
        ConfigError: the file cannot be read; or charset-normalizer is needed, and not installed.
    """
    start = first_bytes(path, SAMPLE_BYTES)
    if marked := marked_encoding(start):
        return marked
    for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):  # most letters have a byte of 0 in it
        if start[offset:4096:2].count(0) > len(start[:4096]) // 8:
            return encoding
    text = getincrementaldecoder("utf-8")("replace").decode(start)
    if text.count("\ufffd") <= len(MULTIBYTE.findall(text)):  # a few bad cells make no other encoding
        return None
    try:
        if _is_western(start.decode("cp1252")):
            return "cp1252"
    except UnicodeDecodeError:
        pass
    best = require("charset_normalizer", path).from_bytes(start[:GUESSED_BYTES]).best()
    return "latin-1" if best is None else str(best.encoding)


def _is_western(text: str) -> bool:
    """Whether words with letters beyond ASCII have more letters of ASCII, as in Western Europe."""
    words = BEYOND_ASCII.findall(text)
    return sum(2 * sum(map(str.isascii, word)) >= len(word) for word in words) > ENOUGH * len(words)


def _sniff_lines(lines: Sequence[str], suffix: str) -> Layout:
    named = EXCEL_SEPARATOR.fullmatch(lines[0]) if lines else None
    if named:
        return Layout(named[1])
    separator, quoting = SEPARATORS[suffix], usual_quoting(suffix)
    other: Quoting = "none" if quoting == "csv" else "csv"
    are_marks = bool(lines) and lines[0].startswith('"')  # no column's name begins with a quote
    usual = _fit(lines, separator, quoting)
    if usual.is_good:
        has_marks = usual.share < 1 or are_marks or any('""' in line for line in lines)
        as_csv = _fit(lines, separator, "csv")
        is_quoted = quoting == "none" and has_marks and (as_csv.share == 1 or (are_marks and as_csv.is_good))
        return Layout(quoting="csv") if is_quoted else USUAL
    fits = {
        Layout(None if s == separator else s, q): _fit(lines, s, q or quoting)
        for q in (None, other)
        if not are_marks or (q or quoting) == "csv"
        for s in dict.fromkeys((separator, *SEPARATORS.values(), ";", "|"))
    }
    good = {layout: fit for layout, fit in fits.items() if fit.is_good}
    return max(good, key=lambda layout: good[layout].columns, default=USUAL)


def _first_lines(lines: Iterable[str | InvalidInput]) -> Iterator[str]:
    """As many as are enough, and together not larger than a line may be."""
    size = 0
    for line in islice(lines, SAMPLE_LINES):
        if isinstance(line, InvalidInput) or (size := size + len(line)) > MAX_LINE:
            return
        yield line


def _fit(lines: Sequence[str], separator: str, quoting: Quoting) -> _Fit:
    rows = list(_rows(iter(lines), separator, quoting))
    header = rows[0] if rows else None
    if header is None:
        return _Fit(0, 0.0)
    others = rows[1:]
    if others and others[-1] is None and len(lines) == SAMPLE_LINES:
        others.pop()  # cut off, most likely
    same = sum(row is not None and len(row) == len(header) for row in others)
    return _Fit(len(header), same / len(others) if others else 1.0)


def _rows(lines: Iterator[str], separator: str, quoting: Quoting) -> Iterator[list[str] | None]:
    """The rows, None for one that cannot be read."""
    reader = cells_of(lines, separator, quoting)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        if row:
            yield row
