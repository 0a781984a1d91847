"""Entity events from the files and topics that people have: the `[sources.NAME]` tables of sameas.toml.

`stream/columns.py` says what can be written there, `stream/rows.py` makes entities of a row.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from stream.columns import SourceMapping, Triples
from stream.debezium import changed_row
from stream.errors import ConfigError, InvalidInput
from stream.events import MAX_ID_CHARS, EntityEvent, Message, Upsert, decode_entity_event, decode_link
from stream.interface import Decoder, LinkChange
from stream.rows import RowMapper
from stream.tables import JSON_LINES, Row, read_rows

__all__ = ["SourceMapping", "make_decoder", "map_row", "read_canonical", "read_events", "read_sources"]

Numbered = tuple[int, EntityEvent | InvalidInput]
RelationsByHead = dict[str, dict[str, dict[str, None]]]


def read_sources(path: Path) -> dict[str, SourceMapping]:
    """The `[sources.NAME]` tables of a TOML file; other tables are ignored.

    Raises:
        ConfigError: the file cannot be read, or a mapping is wrong; says where.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        tables = msgspec.convert(document.get("sources", {}), dict[str, dict[str, object]])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    sources = {}
    for name, table in tables.items():
        try:
            sources[name] = msgspec.convert(table, SourceMapping)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{path}: [sources.{name}]: {error}") from error
    return sources


def map_row(source: str, mapping: SourceMapping, row: Row) -> list[EntityEvent]:
    """The events that one row means. `RowMapper` does the same faster for many rows.

    Raises:
        InvalidInput: the row cannot be used; see `RowMapper.upserts`.
    """
    return [*RowMapper(source, mapping).upserts(row)]


def read_events(source: str, mapping: SourceMapping, base: Path) -> Iterator[Numbered]:
    """The events of a source's files (relative to `base`), each with its line, refusals in their place.

    An entity that is made of cells comes once, before the row that first names it. A head of the triples
    file without a row comes last, with its relations alone.

    Raises:
        ConfigError: there is no file, one cannot be read, or a mapped column is not in it.
    """
    triples = Triples(mapping.triples) if isinstance(mapping.triples, str) else mapping.triples
    if not mapping.files and triples is None:
        raise ConfigError(f"sources.{source}: no file to read; set `file` or `triples`")
    by_head: RelationsByHead = {}
    if triples is not None:
        for line, refusal in _group_triples(base / triples.file, triples, by_head):
            yield line, refusal
    seen: set[str] = set()
    for name in mapping.files:
        path = base / name
        if mapping.id is None:
            events = read_canonical(path, source)
        else:
            events = _read_mapped(RowMapper(source, mapping), path, by_head, seen)
        for line, event in events:
            yield line, _located(event, path, line) if isinstance(event, InvalidInput) else event
    for head, relations in by_head.items():
        if head not in seen:
            yield 0, _with_relations(Upsert(source, head, mapping.type), relations)


def read_canonical(path: Path, source: str | None = None) -> Iterator[Numbered]:
    """The canonical events of a `.jsonl` file, of one source when it is named.

    Raises:
        ConfigError: the file cannot be read or is no JSON Lines file.
    """
    if path.suffix.lower() not in JSON_LINES:
        raise ConfigError(f"{path}: without a mapping, canonical events in a .jsonl file are expected")
    try:
        with path.open("rb") as file:
            for line, text in enumerate(file, 1):
                if text.strip():
                    try:
                        yield line, _of_source(decode_entity_event(None, text), source)
                    except InvalidInput as error:
                        yield line, error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def make_decoder(sources: Mapping[str, SourceMapping], entities_topic: str, links_topic: str) -> Decoder:
    """What each topic's messages mean: canonical events, links, or the rows of a source.

    Raises:
        ConfigError: two sources, or a source and a topic of sameas, share a topic.
    """
    decoders: dict[str, Decoder] = {entities_topic: _decode_canonical, links_topic: _decode_links}
    for source, mapping in sources.items():
        if mapping.topic is None:
            continue
        if mapping.topic in decoders:
            raise ConfigError(f"sources.{source}.topic: {mapping.topic} is already read as something else")
        decoders[mapping.topic] = _row_decoder(source, mapping) if mapping.id else _canonical_decoder(source)

    def decode(message: Message) -> Sequence[EntityEvent | LinkChange]:
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


def _row_decoder(source: str, mapping: SourceMapping) -> Decoder:
    mapper = RowMapper(source, mapping)

    def decode(message: Message) -> Sequence[EntityEvent]:
        row = changed_row(message.value)
        return [mapper.delete(message.key)] if row is None else mapper.upserts(row)

    return decode


def _of_source(event: EntityEvent, source: str | None) -> EntityEvent:
    if source is not None and event.source != source:
        raise InvalidInput("wrong-source", f"an event of {event.source} among those of {source}")
    return event


def _read_mapped(
    mapper: RowMapper, path: Path, by_head: RelationsByHead, seen: set[str]
) -> Iterator[Numbered]:
    for line, row in read_rows(path, mapper.required):
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


def _group_triples(
    path: Path, triples: Triples, by_head: RelationsByHead
) -> Iterator[tuple[int, InvalidInput]]:
    """Fills `by_head` (dicts as ordered sets) and yields what was refused."""
    columns = [triples.head, triples.relation, triples.tail]
    for line, row in read_rows(path, columns):
        if isinstance(row, InvalidInput):
            yield line, _located(row, path, line)
            continue
        head, relation, tail = (str(row[column] or "").strip() for column in columns)
        if 0 < len(head) <= MAX_ID_CHARS and relation and 0 < len(tail) <= MAX_ID_CHARS:
            by_head.setdefault(head, {}).setdefault(relation, {})[tail] = None
        else:
            problem = f"head, relation and tail are needed, ids of up to {MAX_ID_CHARS} characters"
            yield line, _located(InvalidInput("bad-id", problem), path, line)


def _located(error: InvalidInput, path: Path, line: int) -> InvalidInput:
    return InvalidInput(error.reason, f"{path.name}:{line}: {error}")
