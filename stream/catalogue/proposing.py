"""Proposes a mapping from a sample of a file: what each column seems to be, and why.

It guesses; people read and correct. The text is TOML for `sameas.toml`, the reasons are lines for people.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, islice
from pathlib import Path

import msgspec

from stream import toml
from stream.catalogue.columns import ColumnSample, FileSample, are_short, read_sample
from stream.catalogue.opening import MARKS, format_of
from stream.catalogue.rdf import RDF
from stream.errors import ConfigError
from stream.mapping.envelopes import READERS
from stream.mapping.gone import FLAGS
from stream.mapping.language import NULL
from stream.mapping.row import is_unicode

REPEATED = 0.25  # share of a column's values that occur earlier in it, if they are names
REPEATED_IN_LISTS = 0.05  # the same, where a cell holds several
ID_NAMES = re.compile(r"(?i)(.*[_.])?(id|key|uuid|guid|iri|uri|identifier)$")
TYPE_NAMES = {"type", "kind", "class", "category", "@type", "entity_type", "_type"}
TRIPLES = [("head", "relation", "tail"), ("subject", "predicate", "object"), ("s", "p", "o")]
SEPARATORS = (";", "|", ",")
DELETED = re.compile(r"(?i)(.*\.)?(is_?)?(deleted|removed)(_?(at|on|time|date|flag))?")
DATES = re.compile(r"(?i)(.*_)?(date|day|born|died|released|on)$")
TIMES = re.compile(r"(?i)(.*_)?(at|time|ts|timestamp|created|updated|modified)$")


class Proposal(msgspec.Struct):
    """The mapping as TOML, and the lines that say what it rests on."""

    toml: str
    seen: list[str]


def propose(path: Path, source: str) -> Proposal:
    """A mapping for a file of rows, or of Debezium envelopes.

    Raises:
        ConfigError: the file cannot be read, has no rows, or holds canonical events, which need no mapping.
    """
    sample = read_sample(path)
    if not all(map(is_unicode, sample.columns)):
        raise ConfigError(f"{path}: the names of its columns are not UTF-8; is it text, and in UTF-8?")
    for names in TRIPLES:
        if set(names) == set(sample.columns):
            return _propose_join(path, source, names, sample)
    return _Proposer(path, source, sample).proposal()


def _propose_join(path: Path, source: str, names: tuple[str, str, str], sample: FileSample) -> Proposal:
    head, relation, tail = names
    join = {"file": str(path), **_layout(sample), "head": head, "relation_column": relation, "tail": tail}
    lines = toml.tables(["sources", source, "joins", _stem(path)], join)
    return Proposal("\n".join(lines) + "\n", [f"{len(sample.rows):,} rows; relations, to go with a table"])


def _layout(sample: FileSample) -> dict[str, object]:
    """The settings of a mapping that say how the file is laid out, where it is not as usual."""
    decimal = "," if sample.decimal_comma else None
    settings = {**sample.layout._asdict(), "decimal": decimal}
    return {name: value for name, value in settings.items() if value is not None}


class _Proposer:
    """Decides what each column of a table is, and notes why."""

    def __init__(self, path: Path, source: str, sample: FileSample) -> None:
        self._path, self._source, self._rows = path, source, sample.rows
        self._null = sample.null
        self._wrapped, self._in_envelopes = sample.wrapped, sample.wrapped.in_envelopes
        self._is_rdf = format_of(path) in RDF
        self._columns = sample.columns
        if self._is_rdf:  # a column by its last part is enough
            self._columns = {
                name: column
                for name, column in sample.columns.items()
                if "://" not in name and (name in ("@id", "@type") or name.partition("@")[0] == name)
            }
        envelopes = " in envelopes" if self._in_envelopes else ""
        self._seen = [f"{len(self._rows):,} rows{envelopes}, {len(self._columns)} columns"]
        self._layout = _layout(sample)
        for setting, value in self._layout.items():
            self._say("the file", f"{setting} is {value!r}")
        if sample.layout.encoding not in (None, *MARKS.values()):
            self._say(
                "the file", f"its encoding is A GUESS, by which it says {self._beyond_ascii()}; correct it"
            )
        for name in sample.repeated:
            self._say(name, "left out: several columns have this name; give each a name of its own")

    def _beyond_ascii(self) -> str:
        """Some of the texts that another encoding would read otherwise."""
        texts = (text for column in self._columns.values() for text in column.texts if not text.isascii())
        return ", ".join(islice(dict.fromkeys(texts), 5))

    def proposal(self) -> Proposal:
        """The id first, then the type; each other column is a relation, or else an attribute."""
        deleted = self._deleted()
        identity = self._identity()
        id_columns = re.findall(r"\{([^{}]+)\}", identity) or [identity]
        type_column = self._type_column(id_columns)
        relations, attributes = self._relations_and_attributes(identity, id_columns, type_column)
        table_name = self._wrapped.table or _stem(self._path)
        table = {
            **self._origin(),
            **self._layout,
            "id": identity,
            **({"type_column": type_column} if type_column else {"type": _singular(table_name)}),
            "attributes": _attributes(attributes),
        }
        if deleted:
            table["deleted"] = deleted
        used = {deleted, *attributes, *(str(relation["column"]) for relation in relations.values())}
        if optional := self._optional(used):
            table["optional"] = optional
        if self._null:
            table["null"] = [*NULL, *(text for text in self._null if text not in NULL)]
            seen = ", ".join(f"{text} ({count:,})" for text, count in self._null.most_common())
            self._say("null", f"taken for absent: {seen}")
        if logical_types := {name: logical for name, logical in attributes.items() if logical}:
            table["columns"] = logical_types
        if not type_column or any("type" in relation for relation in relations.values()):
            self._seen.append("the other source has to call types by the same names")
        if relations:
            table["relations"] = relations
        lines = toml.tables(["sources", self._source], table)
        return Proposal("\n".join(lines) + "\n", self._seen)

    def _origin(self) -> dict[str, object]:
        """Where the rows come from: the file, or the topic that sent the envelopes, and what these are."""
        if not self._in_envelopes:
            return {"file": str(self._path)}
        envelope, stem = self._wrapped.envelope, _stem(self._path)
        if envelope in READERS:
            self._say("the messages", f"change events of {READERS[envelope].title}; name their topic")
            return {"topic": stem, "envelope": envelope}
        return {"topic": self._wrapped.topic or f"SERVER.SCHEMA.{stem}"}

    def _deleted(self) -> str:
        """The column that says which rows are gone, if the worker does not know it as such; else empty."""
        for name in sorted(FLAGS & self._columns.keys()):
            self._columns.pop(name)
            self._say(name, "left out: it says which rows are gone, and is taken for that")
        named = [
            name for name, column in self._columns.items() if DELETED.fullmatch(name) and column.says_gone
        ]
        for name in [self._wrapped.deleted, *named]:
            if name in self._columns:
                column = self._columns.pop(name)
                self._say(
                    name, f"says which rows are gone: {_examples(column) or 'none here'}; A GUESS, correct it"
                )
                return name
        return ""

    def _optional(self, used: set[str]) -> list[str]:
        """The columns in use that some rows lack."""
        columns = self._columns.values()
        return [c.name for c in columns if c.name in used and c.values and c.rows < len(self._rows)]

    def _say(self, name: str, what: str) -> None:
        self._seen.append(f"{name}: {what}")

    def _identity(self) -> str:
        """The best column that differs in every row, else two columns that do so together."""
        count = len(self._rows)
        full = [c for c in self._columns.values() if c.filled == count and not c.lists and c.is_short]
        unique = [c for c in full if len(set(c.texts)) == count]
        if unique:
            best = max(
                unique,
                key=lambda c: (
                    bool(ID_NAMES.match(c.name)),
                    c.name.lower() in ("id", "@id"),
                    not self._in_envelopes or not c.is_base64,
                ),
            )
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

    def _type_column(self, id_columns: Sequence[str]) -> str | None:
        for name, column in self._columns.items():
            kinds = Counter(column.texts)
            if (
                name.lower() in TYPE_NAMES
                and name not in id_columns
                and column.filled >= 0.9 * len(self._rows)
                and len(kinds) <= max(2, min(20, len(self._rows) // 5))
            ):
                self._say(name, f"type: {', '.join(f'{kind} ({n:,})' for kind, n in kinds.most_common(4))}")
                return name
        return None

    def _relations_and_attributes(
        self, identity: str, id_columns: Sequence[str], type_column: str | None
    ) -> tuple[dict[str, dict[str, object]], dict[str, str | None]]:
        """All other columns: the relations by name, and the attributes' columns with their logical types."""
        ids = set(self._columns[identity].texts) if identity in self._columns else set()
        relations: dict[str, dict[str, object]] = {}
        attributes: dict[str, str | None] = {}
        for name, column in self._columns.items():
            if name == type_column or [name] == id_columns:
                continue
            if not column.values:
                self._say(name, "left out: always blank")
            elif self._in_envelopes and name not in id_columns and column.is_base64:
                self._say(
                    name,
                    f"left out: base64 ({_examples(column)}), most likely a NUMERIC; an attribute needs its "
                    f'scale: columns = {{{toml.key(name)} = "decimal(SCALE)"}}',
                )
            elif name not in id_columns and (relation := self._relation(column, ids)):
                relations[_name(name)] = relation
            else:
                attributes[name] = logical = self._logical(column)
                self._say(name, f"attribute{f', {logical}' if logical else ''}: {_examples(column)}")
        return relations, attributes

    def _relation(self, column: ColumnSample, ids: set[str]) -> dict[str, object] | None:
        """The column as a relation, to rows with these ids or to others; None if it is none."""
        if pointing := self._pointing(column, ids):
            self._say(column.name, f"relation: {pointing}")
            return {"column": column.name}
        return None if column.is_number else self._relation_by_name(column)

    def _pointing(self, column: ColumnSample, ids: set[str]) -> str | None:
        """In what way the values are ids of entities; None if they are not."""
        values = set(column.texts)
        if self._is_rdf and sum("://" in value for value in values) > 0.5 * len(values):
            return "IRIs"
        if len(ids & values) >= max(2, 0.5 * len(values)) and len(values) > 1 and not column.is_number:
            return "ids of the same file"
        if ID_NAMES.match(column.name) and len(values) < len(column.values):
            return "ids, of another table, say; correct their form with `id`"
        return None

    def _relation_by_name(self, column: ColumnSample) -> dict[str, object] | None:
        """To entities that are made of the values; None unless these are names that repeat."""
        separator = _separator(column.texts)
        names = _split(column.texts, separator)
        distinct = len(set(names))
        many = separator is not None or column.lists >= 0.05 * column.filled
        if distinct <= 2 or not are_short(names) or not column.is_text:
            return None
        if 1 - distinct / len(names) <= (REPEATED_IN_LISTS if many else REPEATED):
            return None
        kind = _singular(_name(column.name))
        how = f"separated by {separator!r}" if separator else "lists" if many else "names that repeat"
        self._say(
            column.name, f"relation to entities of type {kind!r}: {how}, {distinct:,} in {len(names):,}"
        )
        relation: dict[str, object] = {"column": column.name, "type": kind}
        return relation | ({"separator": separator} if separator else {})

    def _logical(self, column: ColumnSample) -> str | None:
        """Positions; and days and microseconds since 1970, where an envelope came without its schema."""
        if order := column.order:
            if order.is_guess:
                self._say(column.name, f"{order.type} is A GUESS, look where such a place lies")
            return order.type
        if not self._in_envelopes or not all(isinstance(value, int) for value in column.values):
            return None
        least = min(abs(value) for value in column.values if isinstance(value, int))
        most = max(abs(value) for value in column.values if isinstance(value, int))
        if DATES.match(column.name) and most < 100_000:
            return "date"
        if (TIMES.match(column.name) or DATES.match(column.name)) and least > 10**10:
            return "timestamp-micros" if least > 10**13 else "timestamp-millis"
        return None


def _attributes(columns: Iterable[str]) -> list[str] | dict[str, str]:
    """The columns; under names of their own where some are nested."""
    names = [*columns]
    return {_name(name): name for name in names} if any("." in name for name in names) else names


def _separator(texts: Sequence[str]) -> str | None:
    """What separates several names in a cell; a comma only if cells hold different numbers of names."""
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


def _examples(column: ColumnSample) -> str:
    return ", ".join(dict.fromkeys(text if len(text) <= 24 else text[:23] + "…" for text in column.texts[:3]))


def _stem(path: Path) -> str:
    return path.name.partition(".")[0] or "rows"


def _name(column: str) -> str:
    """A name for a column: the last part of a path, without a language or an ending such as `_name`."""
    return re.sub(r"(?i)(.)[_. ]names?$", r"\1", column).rpartition(".")[2].partition("@")[0] or column


def _singular(word: str) -> str:
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + singular
    return word
