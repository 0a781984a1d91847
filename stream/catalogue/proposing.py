"""Proposing a mapping from a sample of a file: what each column seems to be, and why.

Guesses, made to be read and corrected: the text is TOML for `sameas.toml`, the reasons are lines for people.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path

import msgspec

from model.encoding.values import Kind, recognise
from stream.catalogue.opening import format_of
from stream.catalogue.rdf import RDF
from stream.catalogue.rows import read_rows
from stream.errors import ConfigError, InvalidInput
from stream.mapping.debezium import changed_row
from stream.mapping.row import cell, is_unicode
from stream.mapping.row_mapper import NUMBER

SAMPLE_ROWS = 50_000
RECOGNISED = 500  # values of a column whose kinds are looked at
REPEATED = 0.25  # share of the values of a column that are names: so many were there before
MAX_DEPTH = 3  # of nested values that are looked into
ID_NAMES = re.compile(r"(?i)(.*[_.])?(id|key|uuid|guid|iri|uri|identifier)$")
TYPE_NAMES = {"type", "kind", "class", "category", "@type", "entity_type", "_type"}
TRIPLES = [("head", "relation", "tail"), ("subject", "predicate", "object"), ("s", "p", "o")]
SEPARATORS = (";", "|", ",")
NAME_CHARS, NAME_WORDS = 40, 6  # longer texts are prose, not names
DATES = re.compile(r"(?i)(.*_)?(date|day|born|died|released|on)$")
TIMES = re.compile(r"(?i)(.*_)?(at|time|ts|timestamp|created|updated|modified)$")


class Column(msgspec.Struct):
    """What was seen of one column."""

    name: str
    rows: int  # that have the column
    values: list[object]  # that are not blank, lists taken apart
    filled: int
    lists: int

    @property
    def texts(self) -> list[str]:
        return [str(value).strip() for value in self.values]

    @property
    def is_number(self) -> bool:
        """Nearly all values are numbers, written as such or as text."""
        numbers = sum(not isinstance(v, str) or bool(NUMBER.fullmatch(v.strip())) for v in self.values)
        return bool(self.values) and numbers >= 0.95 * len(self.values)

    @property
    def is_text(self) -> bool:
        """Most values are text, and no dates, codes, durations or the like."""
        kinds = Counter(recognise(text) for text in self.texts[:RECOGNISED])
        return kinds[Kind.TEXT] > 0.5 * kinds.total()

    @property
    def is_short(self) -> bool:
        texts = self.texts
        return sum(map(len, texts)) <= NAME_CHARS * len(texts) and sum(
            len(text.split()) for text in texts
        ) <= NAME_WORDS * len(texts)


class Proposal(msgspec.Struct):
    """The mapping as TOML, and what it rests on."""

    toml: str
    seen: list[str]


def propose(path: Path, source: str) -> Proposal:
    """A mapping for a file of rows, or of Debezium envelopes.

    Raises:
        ConfigError: the file cannot be read, has no rows, or holds canonical events, which need no mapping.
    """
    rows, unwrapped = _sample(path)
    columns = _columns(rows)
    if not all(map(is_unicode, columns)):
        raise ConfigError(f"{path}: the names of its columns are not UTF-8; is it text, and in UTF-8?")
    if triples := next((t for t in TRIPLES if set(t) == set(columns)), None):
        head, relation, tail = triples
        lines = [
            f"[sources.{_key(source)}.joins.{_key(_stem(path))}]",
            *_items({"file": str(path), "head": head, "relation_column": relation, "tail": tail}),
        ]
        return Proposal("\n".join(lines) + "\n", [f"{len(rows):,} rows; relations, to go with a table"])
    return _Proposer(path, source, rows, columns, unwrapped).proposal()


def _sample(path: Path) -> tuple[list[Mapping[str, object]], bool]:
    """The first rows, and whether they came in envelopes."""
    rows: list[Mapping[str, object]] = []
    unwrapped = False
    good = (row for _, row in read_rows(path) if not isinstance(row, InvalidInput))
    for row in islice(good, SAMPLE_ROWS):
        if row.get("op") in ("upsert", "delete") and {"source", "id"} <= row.keys():
            raise ConfigError(f"{path} holds canonical events; `sameas feed {path}` needs no mapping")
        if {"op", "after"} <= row.keys() or row.keys() == {"schema", "payload"}:
            unwrapped = True
            change = changed_row(msgspec.json.encode(row))
            if change is None:
                continue
            row = change.columns
        rows.append(row)
    if not rows:
        raise ConfigError(f"{path} has no rows to propose a mapping from")
    return rows, unwrapped


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, Column]:
    paths = dict.fromkeys(name for row in rows for name in _paths(row, MAX_DEPTH))
    columns = {}
    for name in paths:
        first = name if any(name in row for row in rows) else name.partition(".")[0]
        column = Column(name, sum(first in row for row in rows), [], 0, 0)
        for row in rows:
            found = cell(row, name)
            items = found if isinstance(found, list) else [found]
            filled = [item for item in items if item is not None and str(item).strip()]
            column.values += filled
            column.filled += bool(filled)
            column.lists += isinstance(found, list) and len(filled) > 1
        columns[name] = column
    return columns


def _paths(row: Mapping[str, object], depth: int, before: str = "") -> Iterator[str]:
    for name, value in row.items():
        inside = value
        if isinstance(value, list):
            inside = next((item for item in value if isinstance(item, Mapping)), None)
        if isinstance(inside, Mapping) and depth:
            yield from _paths(inside, depth - 1, f"{before}{name}.")
        else:
            yield before + name


class _Proposer:
    def __init__(
        self,
        path: Path,
        source: str,
        rows: Sequence[Mapping[str, object]],
        columns: dict[str, Column],
        unwrapped: bool,
    ) -> None:
        self._path, self._source, self._rows = path, source, rows
        self._unwrapped = unwrapped
        if format_of(path) in RDF:  # a column by its last part is enough
            columns = {
                name: column
                for name, column in columns.items()
                if "://" not in name and (name in ("@id", "@type") or name.partition("@")[0] == name)
            }
        self._columns = columns
        self._seen = [f"{len(rows):,} rows{' in envelopes' if unwrapped else ''}, {len(columns)} columns"]

    def proposal(self) -> Proposal:
        identity = self._identity()
        of_id = re.findall(r"\{([^{}]+)\}", identity) or [identity]
        ids = set(self._columns[identity].texts) if identity in self._columns else set()
        table: dict[str, object] = (
            {"topic": f"SERVER.SCHEMA.{_stem(self._path)}"} if self._unwrapped else {"file": str(self._path)}
        )
        table["id"] = identity
        type_column = self._type_column(of_id)
        table |= {"type_column": type_column} if type_column else {"type": _singular(_stem(self._path))}
        attributes: list[str] = []
        relations: dict[str, dict[str, object]] = {}
        typed: dict[str, str] = {}
        for name, column in self._columns.items():
            if name == type_column or (name in of_id and len(of_id) == 1):
                continue
            if not column.values:
                self._say(name, "left out: always blank")
            elif relation := self._relation(column, ids, name in of_id):
                relations[_name(name)] = relation
            else:
                attributes.append(name)
                if logical := self._logical(column):
                    typed[name] = logical
                self._say(name, f"attribute{f', {logical}' if logical else ''}: {_examples(column)}")
        table["attributes"] = (
            attributes if not any("." in a for a in attributes) else {_name(a): a for a in attributes}
        )
        missing = [c.name for c in self._columns.values() if c.rows < len(self._rows) and c.values]
        used = {*attributes, *(str(r["column"]) for r in relations.values())}
        if optional := [name for name in missing if name in used]:
            table["optional"] = optional
        if typed:
            table["columns"] = typed
        lines = [f"[sources.{_key(self._source)}]", *_items(table)]
        for name, relation in relations.items():
            lines += ["", f"[sources.{_key(self._source)}.relations.{_key(name)}]", *_items(relation)]
        made = [str(relation["type"]) for relation in relations.values() if "type" in relation]
        if made or not type_column:
            self._seen.append("the other source has to call types by the same names")
        return Proposal("\n".join(lines) + "\n", self._seen)

    def _say(self, name: str, what: str) -> None:
        self._seen.append(f"{name}: {what}")

    def _identity(self) -> str:
        """The best column that tells all rows apart, else two that do together."""
        count = len(self._rows)
        full = [c for c in self._columns.values() if c.filled == count and not c.lists and c.is_short]
        unique = [c for c in full if len(set(c.texts)) == count]
        if unique:
            best = max(unique, key=lambda c: (bool(ID_NAMES.match(c.name)), c.name.lower() in ("id", "@id")))
            self._say(best.name, f"id: different in all rows: {_examples(best)}")
            return best.name
        for one, other in islice(combinations(full, 2), 50):
            if len(set(zip(one.texts, other.texts, strict=True))) == count:
                self._say(f"{one.name}, {other.name}", "id: only together different in all rows")
                return f"{{{one.name}}}/{{{other.name}}}"
        first = next(iter(self._columns.values()))
        distinct = len(set(first.texts))
        self._say(
            first.name, f"id: A GUESS, only {distinct:,} different values; correct it, rows overwrite rows"
        )
        return first.name

    def _type_column(self, of_id: Sequence[str]) -> str | None:
        for name, column in self._columns.items():
            kinds = Counter(column.texts)
            if (
                name.lower() in TYPE_NAMES
                and name not in of_id
                and column.filled >= 0.9 * len(self._rows)
                and len(kinds) <= max(2, min(20, len(self._rows) // 5))
            ):
                self._say(name, f"type: {', '.join(f'{kind} ({n:,})' for kind, n in kinds.most_common(4))}")
                return name
        return None

    def _relation(self, column: Column, ids: set[str], of_id: bool) -> dict[str, object] | None:
        if of_id:
            return None
        values = set(column.texts)
        if format_of(self._path) in RDF and sum("://" in value for value in values) > 0.5 * len(values):
            self._say(column.name, "relation: IRIs")
            return {"column": column.name}
        if len(ids & values) >= max(2, 0.5 * len(values)) and len(values) > 1 and not column.is_number:
            self._say(column.name, "relation: ids of the same file")
            return {"column": column.name}
        if ID_NAMES.match(column.name) and len(values) < len(column.values):
            self._say(column.name, "relation: ids, of another table, say; correct their form with `id`")
            return {"column": column.name}
        if column.is_number:
            return None
        separator = _separator(column.texts)
        parts = _split(column.texts, separator)
        distinct = len(set(parts))
        short = Column(column.name, 0, list(parts), 0, 0).is_short
        many = separator is not None or column.lists >= 0.05 * column.filled
        repeated = 1 - distinct / len(parts)
        if not (short and column.is_text and distinct > 2 and repeated > (0.05 if many else REPEATED)):
            return None
        kind = _singular(_name(column.name))
        how = f"separated by {separator!r}" if separator else "lists" if many else "names that repeat"
        self._say(
            column.name, f"relation to entities of type {kind!r}: {how}, {distinct:,} in {len(parts):,}"
        )
        relation: dict[str, object] = {"column": column.name, "type": kind}
        return relation | ({"separator": separator} if separator else {})

    def _logical(self, column: Column) -> str | None:
        """Days and microseconds since 1970, where an envelope came without its schema."""
        if not self._unwrapped or not all(isinstance(value, int) for value in column.values):
            return None
        least = min(abs(value) for value in column.values if isinstance(value, int))
        most = max(abs(value) for value in column.values if isinstance(value, int))
        if DATES.match(column.name) and most < 100_000:
            return "date"
        if (TIMES.match(column.name) or DATES.match(column.name)) and least > 10**10:
            return "timestamp-micros" if least > 10**13 else "timestamp-millis"
        return None


def _separator(texts: Sequence[str]) -> str | None:
    """What separates several names in a cell. A comma must separate now two, now three or more."""
    for separator in SEPARATORS:
        counts = Counter(text.count(separator) + 1 for text in texts if separator in text)
        cells = counts.total()
        if cells < max(2, 0.01 * len(texts)):
            continue
        if separator != "," or (max(counts) > 2 and counts.most_common(1)[0][1] < 0.9 * cells):
            return separator
    return None


def _split(texts: Iterable[str], separator: str | None) -> list[str]:
    if separator is None:
        return list(texts)
    return [part for text in texts for item in text.split(separator) if (part := item.strip())]


def _examples(column: Column) -> str:
    return ", ".join(dict.fromkeys(text if len(text) <= 24 else text[:23] + "…" for text in column.texts[:3]))


def _stem(path: Path) -> str:
    return path.name.partition(".")[0] or "rows"


def _name(column: str) -> str:
    """What a nested column is called, without the words that only say that it is a name."""
    return re.sub(r"(?i)(.)[_. ]names?$", r"\1", column).rpartition(".")[2].partition("@")[0] or column


def _singular(word: str) -> str:
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + singular
    return word


def _items(table: Mapping[str, object]) -> Iterator[str]:
    for name, value in table.items():
        yield f"{_key(name)} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)
