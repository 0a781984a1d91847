"""Entity events from the files and topics that people have: the `[sources.NAME]` tables of sameas.toml.

`stream/columns.py` says what can be written there, `stream/rows.py` makes entities of a row.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import xxhash

from stream.changes import Change, Decoder, JoinChange, LinkChange, SnapshotRow
from stream.columns import Join, SourceMapping
from stream.debezium import changed_row, key_row
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Message, Upsert, decode_entity_event, decode_link
from stream.files import Meter, check_exists, format_of, open_bytes
from stream.rows import JoinMapper, RowMapper
from stream.tables import JSON_LINES, Row, check_suffix, read_rows

__all__ = ["SourceMapping", "make_decoder", "read_canonical", "read_events"]

Numbered = tuple[int, EntityEvent | InvalidInput]
RelationsByHead = dict[str, dict[str, dict[str, None]]]


def read_events(
    source: str, mapping: SourceMapping, base: Path, meter: Meter | None = None
) -> Iterator[Numbered]:
    """The events of a source's files (relative to `base`), each with its line, refusals in their place.

    An entity that is made of cells comes once, before the row that first names it. The rows of joins are
    grouped in memory and become relations of their heads. In a source of one table, a head without a row
    comes last, with its relations alone.

    Raises:
        ConfigError: there is no file, one cannot be read, or a mapped column is not in it.
    """
    if not mapping.all_files():
        raise ConfigError(f"sources.{source}: no file to read; set `file` or `triples`")
    for file in mapping.all_files():
        if mapping.all_tables():
            check_suffix(base / file)
    check_exists(base / file for file in mapping.all_files())
    by_head: RelationsByHead = {}
    for join in mapping.all_joins():
        for name in join.files:
            for line, refusal in _group_by_head(source, mapping, join, base / name, by_head, meter):
                yield line, _located(refusal, base / name, line)
    tables = mapping.all_tables()
    seen: set[str] = set()
    for table in tables:
        mapper = RowMapper(source, table)
        for name in table.files:
            rows = read_rows(base / name, mapper.required, meter, mapping.iri or "")
            for line, event in _map_rows(mapper, rows, by_head, seen):
                yield line, _located(event, base / name, line) if isinstance(event, InvalidInput) else event
    if not tables:
        for name in mapping.files:
            for line, event in read_canonical(base / name, source, meter):
                yield line, _located(event, base / name, line) if isinstance(event, InvalidInput) else event
    if len(tables) < 2:
        for head, relations in by_head.items():
            if head not in seen:
                yield 0, _with_relations(Upsert(source, head, mapping.type), relations)


def read_canonical(path: Path, source: str | None = None, meter: Meter | None = None) -> Iterator[Numbered]:
    """The canonical events of a `.jsonl` file, of one source when it is named.

    Raises:
        ConfigError: the file cannot be read or is no JSON Lines file.
    """
    if format_of(path) not in JSON_LINES:
        raise ConfigError(
            f"{path}: without a mapping, canonical events in a .jsonl file are expected; "
            "name the mapping with --source (`sameas map FILE` proposes one)"
        )
    with open_bytes(path, meter) as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                try:
                    yield line, _of_source(decode_entity_event(None, text), source)
                except InvalidInput as error:
                    yield line, error


def make_decoder(
    sources: Mapping[str, SourceMapping],
    entities_topic: str,
    links_topic: str,
    written: Collection[str] = (),
) -> Decoder:
    """What each topic's messages mean: canonical events, links, or the rows of a source.

    Args:
        written: the topics that sameas writes to. Read again, one bad message would become bad ones for ever.

    Raises:
        ConfigError: two sources, or a source and a topic of sameas, share a topic.
    """
    decoders: dict[str, Decoder] = {entities_topic: _decode_canonical, links_topic: _decode_links}

    def add(name: str, topic: str | None, decoder: Decoder) -> None:
        if topic in decoders:
            raise ConfigError(f"sources.{name}.topic: {topic} is already read as something else")
        if topic in written:
            raise ConfigError(f"sources.{name}.topic: sameas itself writes to {topic}")
        if topic is not None:
            decoders[topic] = decoder

    for source, mapping in sources.items():
        if mapping.id is None:
            add(source, mapping.topic, _canonical_decoder(source))
        else:
            add(source, mapping.topic, _row_decoder(RowMapper(source, mapping)))
        for name, table in mapping.tables.items():
            add(f"{source}.tables.{name}", table.topic, _row_decoder(RowMapper(source, table)))
        for name, join in mapping.joins.items():
            add(f"{source}.joins.{name}", join.topic, _join_decoder(JoinMapper(source, join)))

    def decode(message: Message) -> Sequence[Change]:
        decoder = decoders.get(message.cause.topic)
        if decoder is None:
            raise InvalidInput("unknown-topic", f"no source is mapped to topic {message.cause.topic}")
        return decoder(message)

    return decode


def _decode_canonical(message: Message) -> Sequence[EntityEvent]:
    return [decode_entity_event(message.key, message.value)]


def _decode_links(message: Message) -> Sequence[LinkChange]:
    return [LinkChange(*decode_link(message.key, message.value))]


def _canonical_decoder(source: str) -> Decoder:
    def decode(message: Message) -> Sequence[EntityEvent]:
        return [_of_source(decode_entity_event(message.key, message.value), source)]

    return decode


def _row_decoder(mapper: RowMapper) -> Decoder:
    def decode(message: Message) -> Sequence[Change]:
        row = changed_row(message.value)
        if row is None:
            key = key_row(message.key, mapper.id_columns)
            return [mapper.delete(key.columns, key.explained)]
        upserts = mapper.upserts(row.columns, row.explained)
        return SnapshotRow(upserts) if row.snapshot else upserts

    return decode


def _join_decoder(mapper: JoinMapper) -> Decoder:
    """A join's row is told by the bytes of its key, a row without a key by what it says."""

    def decode(message: Message) -> Sequence[Change]:
        row = changed_row(message.value)
        if row is None:
            if message.key is None:
                raise InvalidInput(
                    "no-key", "a deletion without a key does not say which row; give the table a primary key"
                )
            return [JoinChange(_row_name(message.key), None)]
        edge = mapper.edge(row.columns, row.explained)
        if message.key is not None:
            changes = [JoinChange(_row_name(message.key), edge)]
        else:
            changes = [] if edge is None else [JoinChange(_row_name(msgspec.json.encode(edge)), edge)]
        return SnapshotRow(changes) if row.snapshot else changes

    return decode


def _row_name(text: bytes) -> bytes:
    return xxhash.xxh3_128_digest(text)


def _of_source(event: EntityEvent, source: str | None) -> EntityEvent:
    if source is not None and event.source != source:
        raise InvalidInput("wrong-source", f"an event of {event.source} among those of {source}")
    return event


def _map_rows(
    mapper: RowMapper,
    rows: Iterable[tuple[int, Row | InvalidInput]],
    by_head: RelationsByHead,
    seen: set[str],
) -> Iterator[Numbered]:
    for line, row in rows:
        if isinstance(row, InvalidInput):
            yield line, row
            continue
        try:
            *made, own = mapper.upserts(row)
            own = _with_relations(own, by_head.get(own.id, {}))
        except InvalidInput as error:
            yield line, error
            continue
        for entity in made:
            if entity.id not in seen:
                seen.add(entity.id)
                yield line, entity
        seen.add(own.id)
        yield line, own


def _with_relations(entity: Upsert, more: dict[str, dict[str, None]]) -> Upsert:
    if not more:
        return entity
    merged = {name: dict.fromkeys(targets) for name, targets in entity.relations.items()}
    for name, tails in more.items():
        merged.setdefault(name, {}).update(tails)
    return msgspec.structs.replace(entity, relations={name: [*tails] for name, tails in merged.items()})


def _group_by_head(
    source: str, mapping: SourceMapping, join: Join, path: Path, by_head: RelationsByHead, meter: Meter | None
) -> Iterator[tuple[int, InvalidInput]]:
    """Fills `by_head` (dicts as ordered sets) and yields what was refused."""
    mapper = JoinMapper(source, join)
    for line, row in read_rows(path, mapper.required, meter, mapping.iri or ""):
        if isinstance(row, InvalidInput):
            yield line, row
            continue
        try:
            edge = mapper.edge(row)
        except InvalidInput as error:
            yield line, error
            continue
        if edge is None:
            yield line, InvalidInput("bad-id", "head, relation and tail are needed")
        else:
            by_head.setdefault(edge.head, {}).setdefault(edge.relation, {})[edge.tail] = None


def _located(error: InvalidInput, path: Path, line: int) -> InvalidInput:
    return InvalidInput(error.reason, f"{path.name}:{line}: {error}")
