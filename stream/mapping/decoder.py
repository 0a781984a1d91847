"""What the messages of each topic mean: canonical events, links, or the rows of a source.

`stream/mapping/language.py` is what a mapping can say, `stream/mapping/row_mapper.py` makes entities of rows.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec
import xxhash

from stream.changes import (
    Change,
    Decoder,
    JoinChange,
    LinkChange,
    RowChange,
    RowChanges,
    SnapshotRow,
    UnreadCell,
)
from stream.errors import InvalidInput, UnreadableKey
from stream.events import (
    MAX_EVENT_BYTES,
    Delete,
    EntityEvent,
    Message,
    Upsert,
    check_count,
    check_key,
    curie,
    decode_entity_event,
    decode_link,
)
from stream.mapping.debezium import ReceivedRow, key_row
from stream.mapping.envelopes import changed_rows
from stream.mapping.language import SourceMapping
from stream.mapping.row import decode_object
from stream.mapping.row_mapper import JoinMapper, RowMapper, SeenCell

MOST_ROWS = 10  # a message of many rows may make what the largest ten of them may
MOST_CHARACTERS = MOST_ROWS * MAX_EVENT_BYTES


def make_decoder(
    sources: Mapping[str, SourceMapping],
    entities_topic: str,
    links_topic: str,
) -> Decoder:
    """A decoder for all topics that a worker reads, each of which means one thing (`check_topics`)."""
    decoders: dict[str, Decoder] = {entities_topic: _decode_canonical, links_topic: _decode_links}

    def add(topic: str | None, decoder: Decoder) -> None:
        if topic is not None:
            decoders[topic] = decoder

    for source, mapping in sources.items():
        if mapping.id is None:
            add(mapping.topic, _canonical_decoder(source))
        else:
            add(mapping.topic, _row_decoder(RowMapper(source, mapping)))
        for table in mapping.tables.values():
            add(table.topic, _row_decoder(RowMapper(source, table)))
        for join in mapping.joins.values():
            add(join.topic, _join_decoder(JoinMapper(source, join)))

    def decode(message: Message) -> Sequence[Change]:
        decoder = decoders.get(message.cause.topic)
        if decoder is None:
            raise InvalidInput("unknown-topic", f"no source is mapped to topic {message.cause.topic}")
        return decoder(message)

    return decode


def _decode_canonical(message: Message) -> Sequence[EntityEvent]:
    return [decode_canonical_event(message.key, message.value)]


def decode_canonical_event(key: bytes | None, value: bytes | None) -> EntityEvent:
    """A canonical event under its own key, or without one. No key of an object is there twice.

    Raises:
        InvalidInput: with reason `bad-key`, or as `decode_entity_event`.
    """
    event = decode_entity_event(key, value)
    if value is not None:
        decode_object(value)
        check_key(key, curie(event.source, event.id))
    return event


def _decode_links(message: Message) -> Sequence[LinkChange]:
    return [LinkChange(*decode_link(message.key, message.value))]


def _canonical_decoder(source: str) -> Decoder:
    def decode(message: Message) -> Sequence[EntityEvent]:
        return [of_source(decode_canonical_event(message.key, message.value), source)]

    return decode


def _row_decoder(mapper: RowMapper) -> Decoder:
    def decode(message: Message) -> Sequence[Change]:
        rows = changed_rows(message.value, mapper.envelope)
        changes: list[Change] = []
        made, own = _Made(mapper), set()
        for row in rows:
            of_row = _row_changes(mapper, message.key, row)
            if len(rows) > 1:
                made.add(of_row)
            changes += of_row
            if isinstance(of_row[-1], Upsert):
                own.add(of_row[-1].id)
        return _of_rows(rows, changes, own)

    return decode


class _Made:
    """What the rows of one message have made so far: of many small ones that may be gigabytes."""

    def __init__(self, mapper: RowMapper) -> None:
        self._mapper = mapper
        self._entities = self._relations = self._characters = 0

    def add(self, changes: Sequence[Change]) -> None:
        """What one row makes. Raises InvalidInput (`too-many`)."""
        events = (change.event if isinstance(change, RowChange) else change for change in changes)
        upserts = [event for event in events if isinstance(event, Upsert)]
        targets = [target for entity in upserts for of_one in entity.relations.values() for target in of_one]
        self._entities += max(0, len(upserts) - 1)  # of the names in its cells; the last is its own
        self._relations += len(targets)
        self._characters += sum(len(entity.id) for entity in upserts) + sum(map(len, targets))
        entities, relations = MOST_ROWS * self._mapper.max_entities, MOST_ROWS * self._mapper.max_relations
        check_count("entities of a message's names", self._entities, entities, "; raise `max_entities`")
        check_count("relations of a message's rows", self._relations, relations, "; raise `max_relations`")
        check_count("characters in the ids of a message's rows", self._characters, MOST_CHARACTERS)


def _row_changes(mapper: RowMapper, key: bytes | None, row: ReceivedRow) -> list[Change]:
    """What a row means: the entities made of its cells, the end of what it was before, its own entity.

    Before that one stand the cells that could not be read.
    """
    if row.is_by_key:
        return [_deletion(mapper, key)]
    columns = {**row.columns, **_from_key(mapper, key)} if mapper.key_columns else row.columns

    def own(event: EntityEvent) -> Change:
        return event if _is_id(mapper, key, event.id) else RowChange(event)

    if row.is_gone:
        return [own(mapper.delete(columns))]
    if mapper.is_gone(columns, is_bare=row.is_bare):
        try:
            return [own(mapper.delete(columns, row.explained))]
        except InvalidInput:  # Debezium's flattened envelopes have of a deleted row perhaps only the key
            return [_deletion(mapper, key)]
    seen: list[SeenCell] | None = [] if mapper.has_cells_to_see else None
    *made, upsert = mapper.upserts(columns, row.explained, row.raw, seen)
    gone: list[Change] = []
    if row.before is not None and (before := mapper.delete({**columns, **row.before})).id != upsert.id:
        gone.append(before)
    unread = [UnreadCell(str(cell)) for cell in seen or () if not cell.is_read]
    return [*made, *gone, *unread, own(upsert)]


def _of_rows(rows: Sequence[ReceivedRow], changes: list[Change], own: Collection[str] = ()) -> RowChanges:
    is_snapshot = bool(rows) and all(row.snapshot for row in rows)
    found = SnapshotRow(changes) if is_snapshot else RowChanges(changes)
    found.table, found.own = rows[0].table if rows else "", own
    return found


def _deletion(mapper: RowMapper, key: bytes | None) -> Delete | RowChange:
    """The deletion of the row with a key.

    Raises:
        UnreadableKey: the key does not show the id.
        InvalidInput: there is no key, or it says nothing.
    """
    if mapper.ignores_key:
        raise InvalidInput("no-key", "a deletion does not say which row, as the mapping has `ignore_key`")
    row = key_row(key, mapper.id_columns)
    try:
        event = mapper.delete(row.columns, row.explained)
    except InvalidInput as error:
        raise UnreadableKey(error.reason, str(error)) from error
    return RowChange(event) if len(row.columns) > len(mapper.id_columns) else event


def _from_key(mapper: RowMapper, key: bytes | None) -> dict[str, object]:
    """The columns of a row that stand in its message's key."""
    try:
        columns = key_row(key, mapper.key_columns).columns
    except InvalidInput as error:
        raise InvalidInput(error.reason, f"key_columns: {error}") from None
    return {name: columns[name] for name in mapper.key_columns}


def _is_id(mapper: RowMapper, key: bytes | None, local_id: str) -> bool:
    """Whether a message's key says no more than the row's id, and says it in a way that can be read."""
    if key is None or mapper.ignores_key:
        return True
    try:
        row = key_row(key, mapper.id_columns)
        return (
            len(row.columns) == len(mapper.id_columns)
            and mapper.key_id(row.columns, row.explained) == local_id
        )
    except InvalidInput:
        return False


def _join_decoder(mapper: JoinMapper) -> Decoder:
    """A join's row is identified by the bytes of its key, or by the relation that it names.

    The latter where there is no key, or the envelope says also of a row that is gone what it was.
    """

    def decode(message: Message) -> Sequence[Change]:
        rows = changed_rows(message.value, mapper.envelope)
        changes: list[Change] = []
        by_key = message.key is not None and mapper.envelope in ("auto", "none")
        for row in rows:
            if by_key or row.is_by_key:
                changes.append(_keyed_join(mapper, message.key, row))
            else:
                changes += _named_joins(mapper, row)
        return _of_rows(rows, changes)

    return decode


def _keyed_join(mapper: JoinMapper, key: bytes | None, row: ReceivedRow) -> JoinChange:
    if key is None:
        raise InvalidInput(
            "no-key", "a deletion without a key does not say which row; give the table a primary key"
        )
    is_gone = row.is_gone or mapper.is_gone(row.columns, is_bare=row.is_bare)
    return JoinChange(_row_name(key), None if is_gone else mapper.edge(row.columns, row.explained))


def _named_joins(mapper: JoinMapper, row: ReceivedRow) -> Iterator[JoinChange]:
    """The edge of a row, and before it the end of another one that the row named before."""
    is_gone = row.is_gone or mapper.is_gone(row.columns, is_bare=row.is_bare)
    edge = mapper.edge(row.columns, row.explained)
    before = None if row.before is None else mapper.edge(row.before)
    if before is not None and before != edge:
        yield JoinChange(_row_name(msgspec.json.encode(before)), None)
    if edge is not None:
        yield JoinChange(_row_name(msgspec.json.encode(edge)), None if is_gone else edge)


def _row_name(text: bytes) -> bytes:
    return xxhash.xxh3_128_digest(text)


def of_source(event: EntityEvent, source: str | None) -> EntityEvent:
    """The event. Raises InvalidInput (`wrong-source`) if it belongs to another source than the one given."""
    if source is not None and event.source != source:
        raise InvalidInput("wrong-source", f"an event of {event.source} among those of {source}")
    return event
