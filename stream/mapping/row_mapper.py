"""Makes entities and relations of rows as the mapping says. Pure: the same row always makes the same."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from index.entity import Version
from stream.changes import Edge
from stream.errors import InvalidInput
from stream.events import (
    MAX_EVENT_BYTES,
    MAX_ID_CHARS,
    Delete,
    Upsert,
    check_count,
    check_entity_event,
    check_relation,
)
from stream.mapping.cells import Cells
from stream.mapping.column_types import converter, is_plain
from stream.mapping.gone import KEPT, kept_though_deleted
from stream.mapping.language import NULL, OFTEN_NULL, Envelope, Join, Relation, Table, Template
from stream.mapping.row import Row, leads_nowhere, missing_columns

NOTHING: frozenset[str] = frozenset()
CODE_CHARS = 3  # longer texts are no codes of countries or the like


class SeenCell(NamedTuple):
    """A filled cell with a type, or one into which a path leads."""

    column: str
    logical: str  # the type, "" for a path
    value: object
    is_read: bool

    def __str__(self) -> str:
        how = f"{self.logical} could not read" if self.logical else "nothing found in"
        return f"{self.column}: {how} {self.value!r:.80}"


class RowMapper:
    """A table's mapping made ready for many rows."""

    def __init__(self, source: str, mapping: Table) -> None:
        """Raises ValueError if the mapping expects canonical events."""
        if mapping.id is None:
            raise ValueError(f"sources.{source}: without `id` there are no rows to map")
        self.source = source
        self.required = mapping.required_columns()
        self._mapping = mapping
        self._cells = Cells(mapping)
        self._id = Template(mapping.id)
        self._attributes = mapping.named_attributes()
        self._relations = {
            name: _ReadyRelation(source, r, self._cells) for name, r in mapping.relations.items()
        }
        self._columns = {name: converter(logical) for name, logical in mapping.columns.items()}
        optional = {*mapping.optional}
        self._paths = [
            (column, *column.split(".", 1))
            for column in mapping.all_columns()
            if "." in column and column not in optional
        ]
        self.optional = mapping.optional
        self._read = mapping.all_columns()
        says_null = mapping.null != [*NULL]
        self._often_null = NOTHING if says_null else frozenset(OFTEN_NULL)
        self._with_words: set[str] = set()  # columns
        self.max_entities, self.max_relations = mapping.max_entities, mapping.max_relations

    @property
    def has_cells_to_see(self) -> bool:
        """Whether `upserts` has anything to say of cells."""
        return bool(self._paths or self._columns)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns that a row's id is made of."""
        return self._id.columns

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that a message's key has and its row has not."""
        return tuple(self._mapping.key_columns)

    @property
    def envelope(self) -> Envelope:
        """How the topic wraps rows."""
        return self._mapping.envelope

    @property
    def ignores_key(self) -> bool:
        """Whether a message's key does not say which row it is."""
        return self._mapping.ignore_key

    def is_gone(self, row: Row, *, is_bare: bool = True) -> bool:
        """Whether a row says that it is gone. Raises InvalidInput as `Cells.is_gone`."""
        return self._cells.is_gone(row, is_bare=is_bare)

    def row_id(self, row: Row) -> str:
        """The id of a row, or of its key.

        Raises:
            InvalidInput: with reason `bad-id`.
        """
        return _filled(self._cells, self._id, row)

    def upserts(
        self,
        row: Row,
        explained: Collection[str] = NOTHING,
        raw: Row | None = None,
        seen: list[SeenCell] | None = None,
    ) -> list[Upsert]:
        """The entities made of the row's cells, then the row's own.

        Args:
            explained: columns with a type that came with the row and goes before the mapping's.
            raw: the row as it was before anything read those types; None if nothing did.
            seen: takes the filled cells that are read by a type or a path, if the row can be used.

        Raises:
            InvalidInput: with reason `missing-column`, `bad-id`, `bad-value`, `bad-version`,
                `unavailable-value`, or, before it is made, `too-large` or `too-many`.
        """
        self._cells.check_available(row)
        raw = row if raw is None else raw
        row = self._cells.typed(row, self._columns, explained)
        if problem := missing_columns(self.required, row):
            raise InvalidInput("missing-column", problem)
        made = _Made(self.max_entities, self.max_relations)
        cells = self._cells
        size = sum(len(text) for text in row.values() if isinstance(text, str))
        if size > MAX_EVENT_BYTES:
            raise InvalidInput("too-large", f"{size} characters; {MAX_EVENT_BYTES} are allowed")
        own = Upsert(
            source=self.source,
            id=self.row_id(row),
            type=self._type(row),
            attributes={
                name: value
                for name, attribute in self._attributes.items()
                if (value := cells.attribute(cells.find(row, attribute.column), attribute)) is not None
            },
            relations=_targets(self._relations, row, made),
            version=self._version(row, raw),
        )
        events = [*made.entities.values(), own]
        for event in events:
            check_entity_event(event)
        if seen is not None:
            seen += self._seen(raw, row)
        return events

    def _seen(self, raw: Row, row: Row) -> Iterator[SeenCell]:
        for name, logical in self._mapping.columns.items():
            value = raw.get(name)
            if not self._cells.is_blank(value):
                is_read = row[name] != value or is_plain(value, logical)
                yield SeenCell(name, logical, value, is_read)
        for column, first, rest in self._paths:
            if column not in row and not self._cells.is_blank(row.get(first)):
                value = row[first]
                yield SeenCell(column, "", value, not leads_nowhere(value, rest))

    def kept_though_deleted(self, row: Row) -> str:
        """The column which seems to say that a row is deleted, and is not read; empty if none does."""
        if self._mapping.deleted is not None or KEPT.isdisjoint(row):
            return ""
        return kept_though_deleted(row, self._read, self._mapping.null)

    def unclear(self, row: Row) -> Iterator[tuple[str, str]]:
        """The columns whose text often means nothing, and that text; none if the mapping has a `null`.

        NA counts once its column has had longer texts, for else it may be a code.
        """
        if not self._often_null:
            return
        for column in self._read:
            value = row.get(column)
            for item in value if isinstance(value, list) else (value,):
                text = item.strip() if isinstance(item, str) else ""
                if text in self._often_null:
                    if text != "NA" or column in self._with_words:
                        yield column, text
                elif len(text) > CODE_CHARS:
                    self._with_words.add(column)

    def key_id(self, key: Row, explained: Collection[str] = NOTHING) -> str:
        """The id of the row with these id columns. Raises InvalidInput (`bad-id`)."""
        return self.row_id(self._cells.typed(key, self._columns, explained))

    def delete(self, key: Row, explained: Collection[str] = NOTHING) -> Delete:
        """The deletion of the row with these id columns.

        Raises:
            InvalidInput: with reason `bad-id`.
        """
        event = Delete(source=self.source, id=self.key_id(key, explained))
        check_entity_event(event)
        return event

    def _type(self, row: Row) -> str:
        column, types = self._mapping.type_column, self._mapping.types
        found = self._cells.find(row, column) if column else None
        if isinstance(found, list):  # RDF may give several: the first that has a name, or in the alphabet
            named = (name for name in types if name in found)
            found = next(named, None) or min(map(str, found), default=None)
        text = self._cells.text(found, column) if column else ""
        return types.get(text, text) or self._mapping.type

    def _version(self, row: Row, raw: Row) -> Version | None:
        """A whole number counts as it came, so that it is the same whether its type is known or not."""
        column = self._mapping.version
        if not column:
            return None
        sent = self._cells.find(raw, column)
        return self._cells.version(sent if type(sent) is int else self._cells.find(row, column), column)


class JoinMapper:
    """A join's mapping made ready for many rows."""

    def __init__(self, source: str, join: Join) -> None:
        self.source = source
        self.required = join.required_columns()
        self._join = join
        self._cells = Cells(join)
        self._head, self._tail = Template(join.head), Template(join.tail)
        self._columns = {name: converter(logical) for name, logical in join.columns.items()}

    @property
    def envelope(self) -> Envelope:
        """How the topic wraps rows."""
        return self._join.envelope

    def is_gone(self, row: Row, *, is_bare: bool = True) -> bool:
        """Whether a row says that it is gone. Raises InvalidInput as `Cells.is_gone`."""
        return self._cells.is_gone(row, is_bare=is_bare)

    def edge(self, row: Row, explained: Collection[str] = NOTHING) -> Edge | None:
        """The relation that a row names; None if its head, its tail or its name is blank.

        Raises:
            InvalidInput: with reason `missing-column`, `bad-id`, `bad-value`, `bad-relation` or
                `unavailable-value`.
        """
        self._cells.check_available(row)
        if problem := missing_columns(self.required, row):
            raise InvalidInput("missing-column", problem)
        row = self._cells.typed(row, self._columns, explained)
        ends = [_filled(self._cells, template, row, blank="") for template in (self._head, self._tail)]
        column = self._join.relation_column
        name = self._cells.text(self._cells.find(row, column), column) if column else self._join.relation
        if not name or not all(ends):
            return None
        check_relation(name)
        if max(map(len, ends)) > MAX_ID_CHARS:
            raise InvalidInput("bad-id", f"an id has 1 to {MAX_ID_CHARS} characters")
        return Edge(self.source, ends[0], name, ends[1])


class _Made:
    """What one row has made so far, and how much it may make."""

    def __init__(self, max_entities: int, max_relations: int) -> None:
        self.entities: dict[str, Upsert] = {}
        self._relations = 0
        self._max_entities, self._max_relations = max_entities, max_relations

    def expect(self, relations: int) -> None:
        """So many more are to be made. Raises InvalidInput (`too-many`)."""
        self._relations += relations
        check_count("relations of a row", self._relations, self._max_relations, "; raise `max_relations`")

    def add(self, entity: Upsert) -> None:
        """One more. Raises InvalidInput (`too-many`)."""
        self.entities[entity.id] = entity
        count = len(self.entities)
        check_count("entities of a row's names", count, self._max_entities, "; raise `max_entities`")


class _ReadyRelation:
    """A relation with its templates parsed."""

    def __init__(self, source: str, relation: Relation, cells: Cells) -> None:
        self._source = source
        self._find = cells.find
        self._read = cells.identifier if relation.type is None else cells.text
        self._relation = relation
        self._template = Template(relation.id or relation.column)
        self._nested = {name: _ReadyRelation(source, r, cells) for name, r in relation.relations.items()}

    def targets(self, row: Row, made: _Made) -> list[str]:
        """The ids that a row's cell points at, each once; entities made of its names are added to `made`.

        Raises:
            InvalidInput: a cell cannot be read, an id would be too long, or there would be too many.
        """
        column, kind = self._relation.column, self._relation.type
        found = self._find(row, column)
        items = found if isinstance(found, list) else [found]
        texts = [self._read(item, column) for item in items]
        if separator := self._relation.separator:
            texts = [self._read(part, column) for text in texts for part in text.split(separator)]
        names = dict.fromkeys(filter(None, texts))
        made.expect(len(names))
        if not names:
            return []
        columns = self._template.columns
        others = {c: self._read(self._find(row, c), c) for c in columns if c != column}
        ids = []
        for text in names:
            target = self._template.fill([others.get(c, text) for c in columns])
            if kind is not None:
                target = f"{kind}/{target}"
                if target not in made.entities:
                    relations = _targets(self._nested, row, made)
                    made.add(Upsert(self._source, target, kind, {"name": text}, relations))
            ids.append(target)
        return ids


def _targets(relations: dict[str, _ReadyRelation], row: Row, made: _Made) -> dict[str, list[str]]:
    found = {name: relation.targets(row, made) for name, relation in relations.items()}
    return {name: targets for name, targets in found.items() if targets}


def _filled(cells: Cells, template: Template, row: Row, blank: str | None = None) -> str:
    """The template's text. If a cell is blank: `blank`, or InvalidInput where that is None."""
    texts = []
    for column in template.columns:
        text = cells.identifier(cells.find(row, column), column, "bad-id")
        if not text:
            if blank is None:
                raise InvalidInput("bad-id", f"{column}: the row has no id")
            return blank
        texts.append(text)
    return template.fill(texts)
