"""The entity events of files, canonical or mapped, each with its line or the reason why it is refused."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from stream.catalogue.opening import Meter, check_exists, format_of, open_bytes
from stream.catalogue.rows import JSON_LINES, check_suffix, read_rows
from stream.config import Settings
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Upsert, decode_entity_event, encode
from stream.mapping.decoder import of_source
from stream.mapping.language import Join, SourceMapping
from stream.mapping.row import Row
from stream.mapping.row_mapper import JoinMapper, RowMapper

Refused = Callable[[InvalidInput], None]  # is told of each line that cannot be used

Numbered = tuple[int, EntityEvent | InvalidInput]
RelationsByHead = dict[str, dict[str, dict[str, None]]]


def read_files(
    settings: Settings, files: Iterable[Path], source: str | None, meter: Meter | None = None
) -> Iterator[EntityEvent | InvalidInput]:
    """The events of files in order, refusals (which name file and line) in their place.

    Canonical `.jsonl` files need no mapping; others are read with the mapping of `source`. With a source and
    no files, the mapping's own files are read.

    Raises:
        ConfigError: no mapping, a missing file or a missing column.
    """
    files = list(files)
    if source is not None:
        for _, event in read_events(source, _mapping(settings, source, files), Path(), meter):
            yield event
        return
    if not files:
        raise ConfigError("nothing to feed: name files, or a source with --source")
    check_exists(files)
    for path in files:
        for line, event in read_canonical(path, meter=meter):
            yield (
                InvalidInput(event.reason, f"{path}:{line}: {event}")
                if isinstance(event, InvalidInput)
                else event
            )


def files_of(settings: Settings, files: Iterable[Path], source: str | None) -> list[Path]:
    """The files that `read_files` reads.

    Raises:
        ConfigError: one of them cannot be read, or there is no such source.
    """
    files = list(files)
    if source is not None:
        files = [Path(name) for name in _mapping(settings, source, files).all_files()]
    check_exists(files)
    return files


def _mapping(settings: Settings, source: str, files: list[Path]) -> SourceMapping:
    """The mapping of a source; files that are given take the place of its own."""
    mapping = settings.sources.get(source)
    if mapping is None:
        names = ", ".join(settings.sources) or "none"
        raise ConfigError(f"there is no [sources.{source}] in the settings; known sources: {names}")
    if not files:
        return mapping
    if mapping.tables:
        raise ConfigError(f"sources.{source} has several tables: name the file of each in the mapping")
    return msgspec.structs.replace(mapping, file=[str(path.absolute()) for path in files])


def accepted(
    events: Iterable[EntityEvent | InvalidInput], refused: Refused, *, strict: bool
) -> Iterator[EntityEvent]:
    """The usable events; each other one, oversized ones too, is told to `refused`, or raised when `strict`.

    Raises:
        InvalidInput: the first refusal, when `strict`.
    """
    for event in events:
        try:
            if isinstance(event, InvalidInput):
                raise event
            encode(event)
        except InvalidInput as error:
            if strict:
                raise
            refused(error)
        else:
            yield event


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
                    yield line, of_source(decode_entity_event(None, text), source)
                except InvalidInput as error:
                    yield line, error


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
