"""From rows to entities: the `[sources.NAME]` tables of sameas.toml.

    [sources.imdb]
    file = "imdb.csv"                    # and/or topic = "shop.public.film"
    id = "id"                            # a column, or a template such as "{kind}/{number}"
    type = "film"                        # or type_column = "kind"
    attributes = ["title", "year"]       # or {title = "primaryTitle", code = {column = "nr", kind = "text"}}

    [sources.imdb.relations.starring]
    column = "actor_name"
    separator = ";"
    type = "person"                      # an entity is made of each name; without it, cells are ids of rows

The outcome does not depend on the order of rows, since an entity made of cells follows from its id alone.
Its id is `type/` and the cell, or `type/` and the template where names are not unique. Only columns of that
template may be used in its own relations. All relations that make entities of one type use one template and
the same relations.

Cells: blank, null, NaN and the texts of `null` are absent, text is stripped. A text that is a number's
literal without leading zeros, up to 15 digits before the point, is a number (`12`, `-3.5`, `1e-05`; not
`007`, `1E5`), whatever the other cells hold; `kind` overrides that.
"""

import codecs
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from stream.errors import ConfigError, InvalidInput
from stream.events import MAX_ID_CHARS, check_relation
from stream.mapping.column_types import converter

IRI = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"{}|\\^`]*')
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
Positive = Annotated[int, msgspec.Meta(ge=1)]
# How change streams wrap rows (`stream/mapping/envelopes.py`): "auto" tells Debezium's from plain rows.
Envelope = Literal["auto", "none", "maxwell", "canal", "dms", "goldengate"]
Quoting = Literal["csv", "none"]  # quotes keep a cell together, or are characters like others
# Texts that are absent values: of databases, of pandas, and of spreadsheets whose formula went wrong.
NULL = (
    *("NULL", "null", "(null)", "<null>", "\\N", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NaT"),
    *("#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "0000-00-00", "0000-00-00 00:00:00"),
)
# Texts that nearly always are; a proposal of `sameas map` takes them for absent.
LIKELY_NULL = ("None", "none", "-", "--", "?", "unknown", "Unknown")
# Texts that often are, and sometimes say something: None is a town, NA is Namibia.
OFTEN_NULL = (
    *LIKELY_NULL,
    *("NONE", "Null", "NA", "na", "n.a.", "nil", "undefined", "UNKNOWN", "[]", "{}"),
)
FIELD = re.compile(r"\{([^{}]+)\}")


class Attribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column as an attribute. `separator` splits a cell into a list."""

    column: str
    kind: Literal["auto", "text", "number"] = "auto"
    separator: str | None = None


class Relation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column whose cells point at entities.

    With a `type` the cells are names, and each becomes an entity of that type. `id` is a template that makes
    the names unique, `relations` are those of that entity. Without a `type` they are ids of the same source.
    """

    column: str
    type: str | None = None
    separator: str | None = None
    id: str | None = None
    relations: "dict[str, Relation]" = {}

    def __post_init__(self) -> None:
        template = Template(self.id or self.column)
        _check_names(self.relations)
        if self.separator == "":
            raise ValueError("separator: one character or more")
        if self.column not in template.columns:
            raise ValueError(f"id: must contain {{{self.column}}}, the column that names the entity")
        if self.type is None:
            if self.relations:
                raise ValueError("relations: need a type, of which an entity is made")
            return
        if not self.type or "/" in self.type:
            raise ValueError(f"type: {self.type!r} is not a word without '/'")
        allowed = [column for column in template.columns if column != self.column]
        for name, relation in self.relations.items():
            for column in relation.columns():
                if column not in allowed:
                    raise ValueError(
                        f"relations.{name}: column {column!r} has to be in the id's template, so that the "
                        "entity follows from its id and not from the order of rows"
                    )

    def columns(self) -> list[str]:
        """All columns that the relation reads; its own first."""
        nested = [column for relation in self.relations.values() for column in relation.columns()]
        return list(dict.fromkeys([self.column, *Template(self.id or self.column).columns, *nested]))


class RowInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where rows come from, and which types their columns have (`stream/mapping/column_types.py`).

    `separator` and `quoting` are those of a CSV or TSV file, where its suffix does not say it; `encoding` is
    that of any file of text, where it is not UTF-8 and no byte order mark says it. Texts are numbers with a
    `decimal` point or comma. The texts of `null` are spellings of nothing, as whole cells and as parts of
    lists. `envelope` says how a topic wraps rows, `deleted` is a column that says whether a row is gone.
    """

    topic: str | None = None
    file: str | list[str] = []
    separator: str | None = None
    quoting: Quoting | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] = "."
    null: list[str] = msgspec.field(default_factory=lambda: [*NULL])
    columns: dict[str, str] = {}
    envelope: Envelope = "auto"
    deleted: str | None = None

    def __post_init__(self) -> None:
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise ValueError(f"separator: {self.separator!r} is not one character that can separate cells")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)  # codecs that make no text have no name here
                codecs.getincrementaldecoder(self.encoding)("replace").decode(b"\xff", True)
            except (LookupError, ValueError, TypeError):
                raise ValueError(f"encoding: {self.encoding!r} is none, such as cp1252 or utf-16") from None
        for name, logical in self.columns.items():
            try:
                converter(logical)
            except ValueError as error:
                raise ValueError(f"columns.{name}: {error}") from None

    def _check_columns(self, read: Sequence[str]) -> None:
        """Raises ValueError for a type of a column that is not read: most likely its name is misspelt."""
        roots = {column.partition(".")[0] for column in read}
        for name in self.columns:
            if name not in read and name not in roots:
                raise ValueError(f"columns.{name}: the mapping reads no such column")

    @property
    def files(self) -> list[str]:
        return [self.file] if isinstance(self.file, str) else self.file


class Table(RowInput, frozen=True):
    """Rows that are entities.

    Columns listed in `optional` may be missing from a row; any other missing column is an error. Those in
    `key_columns` are read from a message's key. With `ignore_key` the key does not say which row it is. A row
    that makes more than `max_entities`, or names more than `max_relations`, is refused before any is made.
    """

    id: str | None = None
    type: str = "entity"
    type_column: str | None = None
    types: dict[str, str] = {}  # by what that column says
    attributes: list[str] | dict[str, str | Attribute] = []
    relations: dict[str, Relation] = {}
    version: str | None = None
    optional: list[str] = []
    key_columns: list[str] = []
    ignore_key: bool = False
    max_entities: Positive = 1_000
    max_relations: Positive = 20_000

    def __post_init__(self) -> None:
        super().__post_init__()
        of_cells = (self.attributes, self.relations, self.type_column, self.version, self.optional)
        of_key = (self.key_columns, self.ignore_key, self.deleted, self.envelope != "auto")
        of_file = (self.separator, self.quoting, self.encoding, self.decimal != ".", self.null != [*NULL])
        if self.id is not None:
            Template(self.id)
        elif any((*of_cells, *of_key, *of_file)):
            raise ValueError("id: say which column holds a row's id (or map nothing, for canonical events)")
        if self.types and self.type_column is None:
            raise ValueError("types: say in which column they stand as `type_column`")
        for column in self.key_columns:
            if column not in self.all_columns():
                raise ValueError(f"key_columns: the mapping reads no column {column!r}")
            if self.ignore_key:
                raise ValueError("ignore_key: `key_columns` are read from the key")
        _check_names(self.relations)
        _check_one_form_per_type(self.relations, {})
        self._check_columns(self.all_columns())

    def named_attributes(self) -> dict[str, Attribute]:
        """The attributes by name, however they were written."""
        if isinstance(self.attributes, list):
            return {column: Attribute(column) for column in self.attributes}
        return {name: Attribute(a) if isinstance(a, str) else a for name, a in self.attributes.items()}

    def required_columns(self) -> list[str]:
        """Every column that the mapping reads and that is not declared optional."""
        return [column for column in self.all_columns() if column not in self.optional]

    def all_columns(self) -> list[str]:
        """Every column that the mapping reads."""
        names = [*Template(self.id).columns] if self.id else []
        names += [column for column in (self.type_column, self.version, self.deleted) if column]
        names += [attribute.column for attribute in self.named_attributes().values()]
        names += [column for relation in self.relations.values() for column in relation.columns()]
        return list(dict.fromkeys(names))


class Join(RowInput, frozen=True):
    """Rows that are relations between two entities of the source: a join table, or a file of triples.

    `head` and `tail` are columns or templates that give the two ids. `relation` names all rows' relation,
    or the column `relation_column` names that of each row.
    """

    head: str
    tail: str
    relation: str | None = None
    relation_column: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("head", "tail"):
            try:
                Template(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {str(error).removeprefix('id: ')}") from None
        if (self.relation is None) == (self.relation_column is None):
            raise ValueError("relation: name it, or the column that does as `relation_column`")
        _check_names([self.relation or ""])
        if self.topic is None and not self.files:
            raise ValueError("topic: say where the rows come from, or from which `file`")
        self._check_columns(self.all_columns())

    def all_columns(self) -> list[str]:
        """Every column that the join reads."""
        return self.required_columns()

    def required_columns(self) -> list[str]:
        named = [column for column in (self.relation_column, self.deleted) if column]
        return list(dict.fromkeys([*Template(self.head).columns, *named, *Template(self.tail).columns]))


class Triples(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of head, relation, tail: short for a join of these columns."""

    file: str
    head: str = "head"
    relation: str = "relation"
    tail: str = "tail"


class SourceMapping(Table, frozen=True):
    """A source: one table or several named ones, and joins between their entities.

    Without an `id` and without tables, canonical events are expected. `iri` and an id make an entity's IRI in
    RDF and SSSOM, unless the id is one itself; IRIs in the source's own RDF files are read without it.
    """

    tables: dict[str, Table] = {}
    joins: dict[str, Join] = {}
    triples: str | Triples | None = None
    iri: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        is_canonical = self.id is None and not self.tables
        if is_canonical and self.triples is not None and self.file:
            raise ValueError("triples: belong to rows that are mapped; set `id`")
        if is_canonical and self.joins:
            raise ValueError("joins: belong to rows that are mapped; set `id`")
        if self.id is None and self.tables and (self.topic or self.file):
            raise ValueError("id: say which column holds a row's id, or move topic and file to a table")
        for name, table in self.tables.items():
            if table.id is None:
                raise ValueError(f"tables.{name}: id: say which column holds a row's id")
            if table.topic is None and not table.files:
                raise ValueError(f"tables.{name}: topic: say where the rows come from, or from which `file`")
        if self.iri is not None and not IRI.fullmatch(self.iri):
            raise ValueError(f"iri: {self.iri!r} is no IRI such as http://dbpedia.org/resource/")
        seen: dict[str, object] = {}
        for table in self.all_tables():
            _check_one_form_per_type(table.relations, seen)

    def all_tables(self) -> list[Table]:
        """Every table with rows to map; none for a source of canonical events."""
        own = [] if self.id is None else [self]
        return [*own, *self.tables.values()]

    def all_joins(self) -> list[Join]:
        """Every join, triples included."""
        if self.triples is None:
            return [*self.joins.values()]
        triples = Triples(self.triples) if isinstance(self.triples, str) else self.triples
        short = Join(
            file=triples.file, head=triples.head, relation_column=triples.relation, tail=triples.tail
        )
        return [short, *self.joins.values()]

    def topics(self) -> list[str]:
        """Every topic that is read for this source."""
        inputs: list[RowInput] = [self, *self.tables.values(), *self.joins.values()]
        return [part.topic for part in inputs if part.topic is not None]

    def all_files(self) -> list[str]:
        """Every file that is read for this source."""
        inputs: list[RowInput] = [self, *self.tables.values(), *self.all_joins()]
        return [file for part in inputs for file in part.files]


def is_absolute(local_id: str) -> bool:
    """Whether an id is an IRI, and not the end of one: an IRI that its source's `iri` does not begin."""
    return local_id.startswith("urn:") or ("://" in local_id and ABSOLUTE.match(local_id) is not None)


def check_topics(
    sources: Mapping[str, SourceMapping], entities: str, links: str, written: Collection[str]
) -> None:
    """Checks that every topic means one thing.

    Args:
        written: the topics that sameas writes to. If it read them, each dead letter would make a new one.

    Raises:
        ConfigError: two sources, or a source and a topic of sameas, share a topic.
    """
    taken = {entities, links}
    for name, topic in _topics(sources):
        if topic in taken:
            raise ConfigError(f"sources.{name}.topic: {topic} is already read as something else")
        if topic in written:
            raise ConfigError(f"sources.{name}.topic: sameas itself writes to {topic}")
        taken.add(topic)


def alike_ids(sources: Mapping[str, SourceMapping]) -> Iterator[str]:
    """For each source with tables whose ids have one form a line that says so: they may clash."""
    for source, mapping in sources.items():
        forms: dict[tuple[str, ...], list[str]] = {}
        own = [] if mapping.id is None else [("its own rows", mapping)]
        for name, table in [*own, *mapping.tables.items()]:
            forms.setdefault(tuple(Template(table.id or "").literals), []).append(name)
        for names in forms.values():
            if len(names) > 1:
                yield (
                    f"sources.{source}: the ids of {', '.join(names)} have one form, so that an id which is "
                    "in two of them is one entity; if it is not, give each a form of its own: "
                    f'id = "{names[-1]}/{{id}}"'
                )


def _topics(sources: Mapping[str, SourceMapping]) -> Iterator[tuple[str, str]]:
    """Every topic of a source, with its place in the settings."""
    for source, mapping in sources.items():
        topics = [(source, mapping.topic)]
        topics += [(f"{source}.tables.{name}", table.topic) for name, table in mapping.tables.items()]
        topics += [(f"{source}.joins.{name}", join.topic) for name, join in mapping.joins.items()]
        yield from ((name, topic) for name, topic in topics if topic is not None)


def _check_names(relations: Iterable[str]) -> None:
    """Raises ValueError if one of them cannot be the name of a relation."""
    for name in relations:
        try:
            check_relation(name)
        except InvalidInput as error:
            raise ValueError(str(error)) from None


def _check_one_form_per_type(relations: Mapping[str, Relation], seen: dict[str, object]) -> None:
    """Raises ValueError if a type's entities would depend on which relation mentions them first."""
    for name, relation in relations.items():
        if relation.type is not None:
            template = Template(relation.id or relation.column)
            form = (template.literals, template.columns.index(relation.column), relation.relations)
            if seen.setdefault(relation.type, form) != form:
                raise ValueError(
                    f"relations.{name}: another relation makes entities of type {relation.type!r} with "
                    "another `id` or other `relations`; write the same for both"
                )
        _check_one_form_per_type(relation.relations, seen)


class Template:
    """An id made of columns: `{country}/{city}`, or the name of one column.

    Different cells give different ids: marks of the template's own text, such as the slash, are
    percent-encoded in cells. Letters and digits of it are not, unless nothing else parts two columns: then
    the first one is, which is enough to tell where a cell ends.
    """

    def __init__(self, text: str) -> None:
        """Raises ValueError when the text has no column, or nothing by which two columns stay apart."""
        text = text if "{" in text else f"{{{text}}}"
        pieces = FIELD.split(text)  # literal, column, literal, column, ..., literal
        self.literals, self.columns = pieces[0::2], tuple(pieces[1::2])
        own_text = "".join(self.literals)
        if not self.columns or "{" in own_text or "}" in own_text:
            raise ValueError(f"id: {text!r} is not a column or a template such as '{{country}}/{{city}}'")
        if "" in self.literals[1:-1]:
            raise ValueError(f"id: {text!r}: put a character between two columns, so that ids stay apart")
        if any("%" in literal for literal in self.literals[1:-1]):
            raise ValueError(
                f"id: {text!r}: % cannot part two columns, since it is in what cells are made of"
            )
        special = dict.fromkeys(char for char in own_text if not char.isalnum())
        special |= {words[0]: None for words in self.literals[1:-1] if words.isalnum()}
        self._escapes = {ord(c): f"%{ord(c):02X}" for c in (*special, "%")} if special else {}

    def fill(self, cells: Sequence[str]) -> str:
        """The id for the cells of `columns`, in their order.

        Raises:
            InvalidInput: with reason `bad-id`; they are longer than an id, of which none is made then.
        """
        if sum(map(len, cells)) > MAX_ID_CHARS:
            raise InvalidInput(
                "bad-id", f"id of {cells[0][:80]!r}...: 1 to {MAX_ID_CHARS} characters are allowed"
            )
        text = self.literals[0]
        for cell, literal in zip(cells, self.literals[1:], strict=True):
            text += cell.translate(self._escapes) + literal if self._escapes else cell + literal
        return text
