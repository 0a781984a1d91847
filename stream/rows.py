"""Entities made of rows, as the columns' mapping says. Pure: the same row always makes the same entities."""

import math
import re

from stream.columns import Attribute, Relation, SourceMapping, Template
from stream.debezium import key_columns
from stream.errors import InvalidInput
from stream.events import MAX_EVENT_BYTES, Delete, Scalar, Upsert, Value, check_entity_event
from stream.tables import Row, missing_columns

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]+)?")
EXACT_DIGITS = 15  # a double keeps so many; longer whole numbers are codes


class RowMapper:
    """A mapping made ready for many rows of one source."""

    def __init__(self, source: str, mapping: SourceMapping) -> None:
        """Raises ValueError when the mapping expects canonical events."""
        if mapping.id is None:
            raise ValueError(f"sources.{source}: without `id` there are no rows to map")
        self.source = source
        self.required = mapping.required_columns()
        self._mapping = mapping
        self._id = Template(mapping.id)
        self._attributes = mapping.named_attributes()
        self._relations = {name: _ReadyRelation(source, r) for name, r in mapping.relations.items()}

    def row_id(self, row: Row) -> str:
        """The id of a row, or of its key.

        Raises:
            InvalidInput: with reason `bad-id`.
        """
        cells = []
        for column in self._id.columns:
            cell = _text(row.get(column), column, "bad-id")
            if not cell:
                raise InvalidInput("bad-id", f"{column}: the row has no id")
            cells.append(cell)
        return self._id.fill(cells)

    def upserts(self, row: Row) -> list[Upsert]:
        """The entities made of the row's cells, then the row's own.

        Raises:
            InvalidInput: with reason `missing-column`, `bad-id`, `bad-value`, `bad-version` or `too-large`.
        """
        if problem := missing_columns(self.required, row):
            raise InvalidInput("missing-column", problem)
        made: dict[str, Upsert] = {}
        size = sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if size > MAX_EVENT_BYTES:
            raise InvalidInput("too-large", f"{size} characters; {MAX_EVENT_BYTES} are allowed")
        own = Upsert(
            source=self.source,
            id=self.row_id(row),
            type=self._type(row),
            attributes={
                name: value
                for name, attribute in self._attributes.items()
                if (value := _attribute(row.get(attribute.column), attribute)) is not None
            },
            relations=_targets(self._relations, row, made),
            version=self._version(row),
        )
        events = [*made.values(), own]
        for event in events:
            check_entity_event(event)
        return events

    def delete(self, key: bytes | None) -> Delete:
        """The end of the row that a message's key names.

        Raises:
            InvalidInput: with reason `no-key` or `bad-id`.
        """
        event = Delete(source=self.source, id=self.row_id(key_columns(key, self._id.columns)))
        check_entity_event(event)
        return event

    def _type(self, row: Row) -> str:
        column = self._mapping.type_column
        return (_text(row.get(column), column) if column else "") or self._mapping.type

    def _version(self, row: Row) -> int | None:
        column = self._mapping.version
        cell = _text(row.get(column), column, "bad-version") if column else ""
        if not cell:
            return None
        try:
            return int(cell)
        except ValueError:
            raise InvalidInput("bad-version", f"{column}: {cell[:80]!r} is not a whole number") from None


class _ReadyRelation:
    """A relation with its templates parsed."""

    def __init__(self, source: str, relation: Relation) -> None:
        self._source = source
        self._relation = relation
        self._template = Template(relation.id or relation.column)
        self._nested = {name: _ReadyRelation(source, r) for name, r in relation.relations.items()}

    def targets(self, row: Row, made: dict[str, Upsert]) -> list[str]:
        """The ids that a row's cell points at, each once; entities made of its names are added to `made`."""
        column, kind = self._relation.column, self._relation.type
        cell = row.get(column)
        items = cell if isinstance(cell, list) else [cell]
        texts = [_text(item, column) for item in items]
        if self._relation.separator:
            texts = [part.strip() for text in texts for part in text.split(self._relation.separator)]
        ids = []
        for text in dict.fromkeys(filter(None, texts)):
            cells = [text if c == column else _text(row.get(c), c) for c in self._template.columns]
            target = self._template.fill(cells)
            if kind is not None:
                target = f"{kind}/{target}"
                if target not in made:
                    relations = _targets(self._nested, row, made)
                    made[target] = Upsert(self._source, target, kind, {"name": text}, relations)
            ids.append(target)
        return ids


def _targets(relations: dict[str, _ReadyRelation], row: Row, made: dict[str, Upsert]) -> dict[str, list[str]]:
    found = {name: relation.targets(row, made) for name, relation in relations.items()}
    return {name: targets for name, targets in found.items() if targets}


def _text(cell: object, column: str, reason: str = "bad-value") -> str:
    """A cell as text: stripped, empty when absent."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell.strip()
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    raise InvalidInput(reason, f"{column}: text or a whole number is expected, not {type(cell).__name__}")


def _attribute(cell: object, attribute: Attribute) -> Value | None:
    if isinstance(cell, str) and attribute.separator:
        cell = cell.split(attribute.separator)
    if not isinstance(cell, list):
        return _scalar(cell, attribute)
    values = [value for item in cell if (value := _scalar(item, attribute)) is not None]
    return values or None


def _scalar(cell: object, attribute: Attribute) -> Scalar | None:
    if cell is None:
        return None
    if isinstance(cell, str):
        text = cell.strip()
        if not text:
            return None
        number = None if attribute.kind == "text" else _number(text)
        if number is None and attribute.kind == "number":
            raise InvalidInput("bad-value", f"{attribute.column}: {text[:80]!r} is not a number")
        return text if number is None else number
    if isinstance(cell, bool | int | float):
        return str(cell) if attribute.kind == "text" else cell
    raise InvalidInput(
        "bad-value",
        f"{attribute.column}: text, number, boolean or a list is expected, not {type(cell).__name__}",
    )


def _number(text: str) -> int | float | None:
    match = NUMBER.fullmatch(text)
    if not match or len(match[1]) > EXACT_DIGITS:
        return None
    if not match[2] and not match[3]:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None
