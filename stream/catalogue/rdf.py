"""Rows of RDF files: one for each subject, whatever the order of the triples, in however many files they are.

A row has `@id` (the subject's IRI), `@type` (what `rdf:type` says), and for each predicate a list of its
values, under the predicate's IRI and under the IRI's last part. `label@en` holds only the values of one
language. IRIs that begin with the source's `iri` are written without it, types as their last part. Blank
nodes have ids of their own (`stream/catalogue/blank_nodes.py`). All files together are grouped in memory, but
for the values of a subject that has too many.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from stream.catalogue.blank_nodes import Blank, Columns, Pointer, Subject, blank_ids
from stream.catalogue.opening import MAX_LINE, Meter, format_of, open_bytes, read_lines, require, too_large
from stream.catalogue.triple_terms import MAX_DEPTH, OPENING, FollowedFile, Nesting
from stream.errors import ConfigError, InvalidInput
from stream.mapping.language import is_absolute
from stream.mapping.row import Row

RDF = {".nt", ".ttl"}
VALUE_CHARS = 3  # that a value takes in a row beside its own: quotes and a comma
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
    for number, subjects in groupby(graph.rows, key=lambda subject: graph.places[subject][0]):
        yield paths[number], ((graph.places[subject][1], graph.row(subject, ids)) for subject in subjects)


class _Graph:
    """The triples of several files, by subject. A blank node belongs to its file."""

    def __init__(self, iri: str) -> None:
        self.rows: dict[Subject, Columns] = {}
        self.places: dict[Subject, tuple[int, int]] = {}  # where a subject came first: file and line
        self._iri = iri
        self._blanks: dict[Blank, None] = {}  # in the order of first mention
        self._pointers: dict[Subject, list[Pointer]] = {}
        self._left: dict[Subject, int] = {}  # of the characters that a subject's row may have

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

    def blank_ids(self) -> dict[Blank, str]:
        """The id of each blank node."""
        return blank_ids([*self._blanks], self.rows, self._pointers)

    def row(self, subject: Subject, ids: dict[Blank, str]) -> Row | InvalidInput:
        """The row of a subject, or why it is refused."""
        if self._left[subject] < 0:
            return too_large()
        columns = {
            name: [ids[value] if isinstance(value, Blank) else value for value in values]
            for name, values in self.rows[subject].items()
        }
        return {"@id": ids[subject] if isinstance(subject, Blank) else subject, **columns}

    def _add(self, triple: Any, number: int, line: int) -> None:
        subject, predicate, language = self._name(triple.subject, number), triple.predicate.value, None
        value: Subject
        if isinstance(triple.object, self._rdf.Literal):
            value, language = triple.object.value, triple.object.language
        else:
            value = self._name(triple.object, number)
            if isinstance(value, Blank):
                self._pointers.setdefault(subject, []).append(Pointer(predicate, value))
            elif predicate == RDF_TYPE and isinstance(triple.object, self._rdf.NamedNode):
                value = last_part(triple.object.value)
        self.places.setdefault(subject, (number, line))
        columns = self.rows.setdefault(subject, {})
        names = _column_names(predicate, language)
        left = self._left.setdefault(subject, MAX_LINE)
        if left < 0 or all(value in columns.get(name, ()) for name in names):
            return
        self._left[subject] = left - len(value) - VALUE_CHARS
        if self._left[subject] < 0:
            columns.clear()
            return
        for name in names:
            columns.setdefault(name, {})[value] = None

    def _name(self, node: Any, number: int) -> Subject:
        if isinstance(node, self._rdf.BlankNode):
            blank = Blank(number, node.value)
            self._blanks.setdefault(blank)
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
