"""Rows of RDF files: one for each subject, whatever the order of the triples, in however many files they are.

A row has `@id` (the subject's IRI), `@type` (what `rdf:type` says), and for each predicate a list of its
values, under the predicate's IRI and under the IRI's last part. `label@en` holds only the values of one
language. IRIs that begin with the source's `iri` are written without it, types as their last part. Blank
nodes have ids of their own (`stream/catalogue/blank_nodes.py`). All files together are grouped: on disk, what
IRIs say beyond some `OPEN_BYTES`, and in memory what blank nodes say. Of a subject that has too many values
none is kept.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from stream.catalogue.blank_nodes import Blank, Columns, Pointer, Subject, blank_ids
from stream.catalogue.opening import MAX_LINE, Meter, format_of, open_bytes, read_lines, require, too_large
from stream.catalogue.triple_terms import MAX_DEPTH, OPENING, FollowedFile, Nesting
from stream.errors import ConfigError, InvalidInput
from stream.mapping.language import is_absolute
from stream.mapping.row import Row

RDF = {".nt", ".ttl"}
VALUE_CHARS = 3  # that a value takes in a row beside its own: quotes and a comma
OPEN_BYTES = 64 * 2**20  # of what subjects say, before it goes to the disk
SUBJECT_BYTES, VALUE_BYTES = 500, 300  # that a subject and a value take in memory beside their texts
BLANK_BYTES, POINTER_BYTES = 800, 300  # the same of a blank node, and of what points at one
MAX_BLANK_BYTES = 2**30  # of what blank nodes say, in memory
LONG_PREDICATE = 1_000  # characters; the names of its columns are not remembered
CACHE_KIB = 16 * 1024  # of the database
RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"

Numbered = tuple[int, Row | InvalidInput]  # with its line; 0 in Turtle, where the parser does not say it


def read_rdf(
    paths: Sequence[Path], iri: str, meter: Meter | None = None, encoding: str | None = None
) -> Iterator[tuple[Path, Iterator[Numbered]]]:
    """The refused lines of each file, then for each file a row for each subject that it is the first to name.

    Raises:
        ConfigError: a file cannot be read, or is no Turtle; a line that is no N-Triples is only refused.
    """
    graph = _Graph(iri)
    for number, path in enumerate(paths):
        yield path, graph.read(number, path, meter, encoding)
    ids = graph.blank_ids()
    for number, entries in groupby(graph.entries(), key=attrgetter("file")):
        yield paths[number], ((entry.line, graph.row(entry, ids)) for entry in entries)


class _Entry:
    """What a subject says."""

    __slots__ = ("columns", "file", "left", "line", "order", "subject")

    def __init__(
        self, order: int, subject: Subject, file: int, line: int, left: int, columns: Columns
    ) -> None:
        self.order = order  # among all subjects, by their first mention
        self.subject = subject
        self.file, self.line = file, line  # where it came first
        self.left = left  # of the characters that its row may have
        self.columns = columns


class _Entries:
    """The entries of all IRIs, in a database without a name where they are many.

    So those of a file which is sorted by its subjects are written once and read once.
    """

    def __init__(self) -> None:
        self._open: dict[str, _Entry] = {}
        self._bytes = 0  # about, of those that are open
        self._database: sqlite3.Connection | None = None

    def get(self, subject: str) -> _Entry | None:
        """The entry of a subject, to be changed; None if there is none."""
        entry = self._open.get(subject)
        if entry is not None or self._database is None:
            return entry
        row = self._database.execute("SELECT * FROM said WHERE subject = ?", [subject]).fetchone()
        if row is None:
            return None
        entry = self._open[subject] = _unpacked(row)
        self._bytes += SUBJECT_BYTES + len(subject) + len(row[-1])
        self._bytes += VALUE_BYTES * sum(map(len, entry.columns.values()))
        return entry

    def add(self, entry: _Entry) -> None:
        """Takes in a subject that is new."""
        subject = str(entry.subject)
        self._open[subject] = entry
        self._bytes += SUBJECT_BYTES + len(subject)

    def grow(self, size: int) -> None:
        """An entry has a value more, of so many characters. Entries that were got may be closed now."""
        self._bytes += VALUE_BYTES + size
        if self._bytes > OPEN_BYTES:
            self._close()

    def _close(self) -> None:
        if self._database is None:
            # no file that others can see, and none that is left
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._database.execute(
                "CREATE TABLE said (place INTEGER PRIMARY KEY, subject UNIQUE, file, line, left, columns)"
            )
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?, ?, ?)", map(_packed, self._open.values())
        )
        self._database.execute("COMMIT")
        self._open.clear()
        self._bytes = 0

    def in_order(self) -> Iterator[_Entry]:
        """All, by their first mention."""
        if self._database is None:
            yield from self._open.values()
            return
        self._close()
        yield from map(_unpacked, self._database.execute("SELECT * FROM said ORDER BY place"))
        self._database.close()


def _packed(entry: _Entry) -> tuple[Any, ...]:
    columns = msgspec.msgpack.encode({name: [*values] for name, values in entry.columns.items()})
    return entry.order, entry.subject, entry.file, entry.line, entry.left, columns


def _unpacked(row: Sequence[Any]) -> _Entry:
    order, subject, file, line, left, content = row
    columns: Columns = {name: dict.fromkeys(values) for name, values in _decoder.decode(content).items()}
    return _Entry(order, subject, file, line, left, columns)


_decoder = msgspec.msgpack.Decoder(dict[str, list[str | Blank]])


class _Graph:
    """The triples of several files, by subject. A blank node belongs to its file."""

    def __init__(self, iri: str) -> None:
        self._iri = iri
        self._count = 0  # subjects
        self._of_iris = _Entries()
        self._of_blanks: dict[Blank, _Entry] = {}
        self._blanks: dict[Blank, None] = {}  # in the order of first mention
        self._blank_bytes = 0  # about, of all that is known of them
        self._pointers: dict[Subject, dict[Pointer, None]] = {}

    def read(
        self, number: int, path: Path, meter: Meter | None, encoding: str | None
    ) -> Iterator[tuple[int, InvalidInput]]:
        """Takes in a file. Yields the lines that are refused."""
        self._rdf = require("pyoxigraph", path)
        with open_bytes(path, meter, encoding) as file:
            triples = (
                _n_triples(self._rdf, file) if format_of(path) == ".nt" else _turtle(self._rdf, file, path)
            )
            for line, triple in triples:
                if isinstance(triple, InvalidInput):
                    yield line, triple
                    continue
                self._add(triple, number, line)
                if self._blank_bytes > MAX_BLANK_BYTES:
                    raise ConfigError(
                        f"{path}{f':{line}' if line else ''}: what its blank nodes say takes more than "
                        f"{MAX_BLANK_BYTES // 2**20:,} MiB, and is kept in memory; give nodes IRIs, or feed "
                        "fewer files at once"
                    )

    def blank_ids(self) -> dict[Blank, str]:
        """The id of each blank node."""
        rows: dict[Subject, Columns] = {blank: entry.columns for blank, entry in self._of_blanks.items()}
        return blank_ids([*self._blanks], rows, self._pointers)

    def entries(self) -> Iterator[_Entry]:
        """Of all subjects, in the order in which they were first mentioned."""
        return heapq.merge(self._of_iris.in_order(), self._of_blanks.values(), key=attrgetter("order"))

    def row(self, entry: _Entry, ids: dict[Blank, str]) -> Row | InvalidInput:
        """The row of a subject, or why it is refused."""
        if entry.left < 0:
            return too_large()
        columns = {
            name: [ids[value] if isinstance(value, Blank) else value for value in values]
            for name, values in entry.columns.items()
        }
        subject = entry.subject
        return {"@id": ids[subject] if isinstance(subject, Blank) else subject, **columns}

    def _entry(self, subject: Subject, number: int, line: int) -> _Entry:
        entry = self._of_blanks.get(subject) if isinstance(subject, Blank) else self._of_iris.get(subject)
        if entry is None:
            entry = _Entry(self._count, subject, number, line, MAX_LINE, {})
            self._count += 1
            if isinstance(subject, Blank):
                self._of_blanks[subject] = entry
                self._blank_bytes += SUBJECT_BYTES
            else:
                self._of_iris.add(entry)
        return entry

    def _add(self, triple: Any, number: int, line: int) -> None:
        subject, predicate, language = self._name(triple.subject, number), triple.predicate.value, None
        value: Subject
        if isinstance(triple.object, self._rdf.Literal):
            value, language = triple.object.value, triple.object.language
        else:
            value = self._name(triple.object, number)
            if isinstance(value, Blank):
                pointers, pointer = self._pointers.setdefault(subject, {}), Pointer(predicate, value)
                if pointer not in pointers:
                    pointers[pointer] = None
                    self._blank_bytes += POINTER_BYTES + len(predicate)
            elif predicate == RDF_TYPE and isinstance(triple.object, self._rdf.NamedNode):
                value = last_part(triple.object.value)
        entry = self._entry(subject, number, line)
        column_names = _column_names if len(predicate) < LONG_PREDICATE else _column_names.__wrapped__
        columns, names = entry.columns, column_names(predicate, language)
        if entry.left < 0 or all(value in columns.get(name, ()) for name in names):
            return
        size = len(value) + sum(len(name) for name in names if name not in columns)
        entry.left -= size + VALUE_CHARS
        if entry.left < 0:
            columns.clear()
            return
        for name in names:
            columns.setdefault(name, {})[value] = None
        if isinstance(subject, Blank):
            self._blank_bytes += VALUE_BYTES + size
        else:
            self._of_iris.grow(size)

    def _name(self, node: Any, number: int) -> Subject:
        if isinstance(node, self._rdf.BlankNode):
            blank = Blank(number, node.value)
            if blank not in self._blanks:
                self._blanks[blank] = None
                self._blank_bytes += BLANK_BYTES + len(blank.label)
            return blank
        if isinstance(node, self._rdf.NamedNode):
            short = str(node.value).removeprefix(self._iri)
            return str(node.value) if not short or is_absolute(short) else short
        return self._text(node)

    def _text(self, node: Any) -> str:
        """A triple term. The blank nodes in it have no names, which would be others with each reading."""
        if isinstance(node, self._rdf.Triple):
            parts = map(self._text, (node.subject, node.predicate, node.object))
            return f"<<( {' '.join(parts)} )>>"
        return "_:" if isinstance(node, self._rdf.BlankNode) else str(node)


def _n_triples(rdf: Any, file: Any) -> Iterator[tuple[int, Any]]:
    """Parses line by line, since the parser does not recover after an open quote."""
    for number, line in enumerate(read_lines(file), 1):
        if isinstance(line, InvalidInput):
            yield number, line
            continue
        try:
            if line.count(OPENING) > MAX_DEPTH:
                Nesting().follow(line)
            for triple in rdf.parse(line, rdf.RdfFormat.N_TRIPLES):
                yield number, triple
        except InvalidInput as error:
            yield number, error
        except SyntaxError as error:
            yield number, InvalidInput("malformed", _reason(error))


def _turtle(rdf: Any, file: Any, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        for triple in rdf.parse(FollowedFile(file), rdf.RdfFormat.TURTLE):
            yield 0, triple
    except InvalidInput as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except MemoryError:  # its own, of a bound on tokens; nothing is lacking
        raise ConfigError(f"{path} cannot be read: a text or an IRI is longer than 16 MiB") from None
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid Turtle: {_reason(error)}") from error


def _reason(error: SyntaxError) -> str:
    """The message without the place, which the caller knows better."""
    return (error.msg or "").partition(": ")[2] or str(error)


@lru_cache(maxsize=4096)
def _column_names(predicate: str, language: str | None) -> list[str]:
    """The columns that hold the values of a predicate in a language."""
    if predicate == RDF_TYPE:
        return ["@type"]
    last = last_part(predicate)
    return sorted({predicate, last, *([f"{last}@{language}"] if language else [])})


def last_part(iri: str) -> str:
    """What stands after the last '#' or '/' of an IRI; the IRI itself when nothing does."""
    return iri.rstrip("#/").replace("#", "/").rpartition("/")[2] or iri
