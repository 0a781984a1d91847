"""Rows of RDF files: one for each subject, whatever the order of the triples.

A row has `@id` (the subject's IRI), `@type` (what `rdf:type` says), and for each predicate a list of its
values, under the predicate's IRI and under the IRI's last part. `label@en` holds only the values of one
language. IRIs that begin with the source's `iri` are written without it, types as their last part. The whole
file is grouped in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream.catalogue.opening import Meter, format_of, open_bytes, require
from stream.errors import ConfigError, InvalidInput
from stream.mapping.language import is_absolute
from stream.mapping.row import Row

RDF = {".nt", ".ttl"}
RDF_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"


def read_rdf(path: Path, iri: str, meter: Meter | None = None) -> Iterator[tuple[int, Row | InvalidInput]]:
    """Refused lines, then a row for each subject in the order of first mention, with the line of that, or 0.

    Raises:
        ConfigError: the file cannot be read, or is no Turtle; a line that is no N-Triples is only refused.
    """
    rdf = require("pyoxigraph", path)
    rows: dict[str, dict[str, dict[str, None]]] = {}
    lines: dict[str, int] = {}
    with open_bytes(path, meter) as file:
        triples = _n_triples(rdf, file) if format_of(path) == ".nt" else _turtle(rdf, file, path)
        for line, triple in triples:
            if isinstance(triple, InvalidInput):
                yield line, triple
                continue
            subject = _name(rdf, triple.subject, iri)
            lines.setdefault(subject, line)
            _add(rdf, rows.setdefault(subject, {}), triple, iri)
    for subject, columns in rows.items():
        yield lines[subject], {"@id": subject, **{name: [*values] for name, values in columns.items()}}


def _n_triples(rdf: Any, file: Any) -> Iterator[tuple[int, Any]]:
    """Parses line by line, since the parser does not recover after an open quote."""
    for number, line in enumerate(file, 1):
        try:
            for triple in rdf.parse(line, rdf.RdfFormat.N_TRIPLES):
                yield number, triple
        except SyntaxError as error:
            yield number, InvalidInput("malformed", _reason(error))


def _turtle(rdf: Any, file: Any, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        for triple in rdf.parse(file, rdf.RdfFormat.TURTLE):
            yield 0, triple
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: not valid Turtle: {_reason(error)}") from error


def _reason(error: SyntaxError) -> str:
    """The message without the place, which the caller knows better."""
    return (error.msg or "").partition(": ")[2] or str(error)


def _add(rdf: Any, columns: dict[str, dict[str, None]], triple: Any, iri: str) -> None:
    predicate = triple.predicate.value
    if predicate == RDF_TYPE:
        columns.setdefault("@type", {})[last_part(_name(rdf, triple.object, ""))] = None
        return
    names = {predicate, last_part(predicate)}
    if isinstance(triple.object, rdf.Literal):
        value = triple.object.value
        if triple.object.language:
            names.add(f"{last_part(predicate)}@{triple.object.language}")
    else:
        value = _name(rdf, triple.object, iri)
    for name in sorted(names):
        columns.setdefault(name, {})[value] = None


def _name(rdf: Any, node: Any, iri: str) -> str:
    if isinstance(node, rdf.NamedNode):
        short = node.value.removeprefix(iri)
        return str(node.value) if not short or is_absolute(short) else short
    return str(node)  # a blank node's label, or a quoted triple


def last_part(iri: str) -> str:
    """What stands after the last '#' or '/' of an IRI; the IRI itself when nothing does."""
    return iri.rstrip("#/").replace("#", "/").rpartition("/")[2] or iri
