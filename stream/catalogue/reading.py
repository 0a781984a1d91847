"""Reading files: their entity events, canonical or mapped, each with its line or the reason of a refusal."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from stream.catalogue.account import Account
from stream.catalogue.delimited import Layout
from stream.catalogue.opening import Meter, check_exists, format_of, open_bytes, read_lines
from stream.catalogue.rdf import RDF, read_rdf
from stream.catalogue.rows import JSON_LINES, NumberedRow, check_suffix, read_rows
from stream.config import Settings
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Upsert, curie
from stream.mapping.decoder import decode_canonical_event, of_source
from stream.mapping.language import Join, SourceMapping, Table
from stream.mapping.row import missing_columns
from stream.mapping.row_mapper import JoinMapper, RowMapper, SeenCell

Numbered = tuple[int, EntityEvent | InvalidInput]  # with its line, from 1; 0 where it has none
RelationsByHead = dict[str, dict[str, dict[str, None]]]  # head, relation, tails: a dict as an ordered set


def read_files(
    settings: Settings,
    files: Iterable[Path],
    source: str | None,
    account: Account,
    meter: Meter | None = None,
) -> Iterator[EntityEvent | InvalidInput]:
    """The events of files in order. A refusal, which names file and line, takes an event's place.

    Canonical `.jsonl` files need no mapping; others are read with the mapping of `source`. With a source and
    no files, the mapping's own files are read.

    Args:
        account: reads along.

    Raises:
        ConfigError: there is no mapping, a file or a column is missing.
    """
    files = list(files)
    if source is not None:
        for _, event in read_events(source, _mapping(settings, source, files), Path(), meter, account):
            yield event
        return
    if not files:
        raise ConfigError("nothing to feed: name files, or a source with --source")
    check_exists(files)
    for path in files:
        for _, event in _located(read_canonical(path, account, meter=meter), str(path)):
            yield event


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
    """The mapping of a source. Given files take the place of its own."""
    mapping = settings.sources.get(source)
    if mapping is None:
        names = ", ".join(settings.sources) or "none"
        raise ConfigError(f"there is no [sources.{source}] in the settings; known sources: {names}")
    if not files:
        return mapping
    if mapping.tables:
        raise ConfigError(f"sources.{source} has several tables: name the file of each in the mapping")
    return msgspec.structs.replace(mapping, file=[str(path.absolute()) for path in files])


def read_events(
    source: str,
    mapping: SourceMapping,
    base: Path,
    meter: Meter | None = None,
    account: Account | None = None,
) -> Iterator[Numbered]:
    """The events of a source's files (relative to `base`), each with its line. Refusals take their place.

    An entity that is made of cells comes once, before the row that first names it. Of rows with one id those
    come that count (`Account.take_row`). The rows of joins are grouped in memory and become relations of
    their heads. In a source of one table, heads without a row come last, with nothing but their relations.

    Args:
        account: reads along; one of this source alone if None.

    Raises:
        ConfigError: there is no file, one cannot be read, or one lacks a mapped column.
    """
    return _SourceReader(source, mapping, base, meter, account or Account()).events()


def read_canonical(
    path: Path, account: Account, source: str | None = None, meter: Meter | None = None
) -> Iterator[Numbered]:
    """The canonical events of a `.jsonl` file. If `source` is given, those of others are refused.

    Raises:
        ConfigError: the file cannot be read or is no JSON Lines file.
    """
    if format_of(path) not in JSON_LINES:
        raise ConfigError(
            f"{path}: without a mapping, canonical events in a .jsonl file are expected; "
            "name the mapping with --source (`sameas map FILE` proposes one)"
        )
    with open_bytes(path, meter) as file:
        for line, text in enumerate(read_lines(file), 1):
            if isinstance(text, InvalidInput):
                yield line, text
            elif text.strip():
                try:
                    event = of_source(decode_canonical_event(None, text), source)
                    account.take_event(event, account.place(path.name, line))
                except InvalidInput as error:
                    yield line, error
                else:
                    yield line, event


class _SourceReader:
    """Reads the files of one source: joins first, because a row's entity has the relations that they give."""

    def __init__(
        self, source: str, mapping: SourceMapping, base: Path, meter: Meter | None, account: Account
    ) -> None:
        self._source = source
        self._mapping = mapping
        self._tables = mapping.all_tables()
        self._base = base
        self._meter = meter
        self._account = account
        self._by_head: RelationsByHead = {}
        self._heads_at: dict[str, int] = {}  # the place of each

    def events(self) -> Iterator[Numbered]:
        """All of them, as `read_events` says."""
        self._check_files()
        yield from self._group_joins()
        yield from self._read_tables() if self._tables else self._read_canonical()
        yield from self._heads_without_rows()

    def _check_files(self) -> None:
        paths = [self._base / name for name in self._mapping.all_files()]
        if not paths:
            raise ConfigError(f"sources.{self._source}: no file to read; set `file` or `triples`")
        if self._tables:
            for path in paths:
                check_suffix(path)
        check_exists(paths)

    def _group_joins(self) -> Iterator[Numbered]:
        """Gathers the relations of all joins by their heads. Yields what is refused."""
        for join in self._mapping.all_joins():
            mapper = JoinMapper(self._source, join)
            for path in self._paths(join):
                yield from _located(self._group(mapper, self._rows(path, mapper, join), path.name), path.name)

    def _group(self, mapper: JoinMapper, rows: Iterable[NumberedRow], file: str) -> Iterator[Numbered]:
        begin = self._account.place(file, 0)
        for line, row in rows:
            if isinstance(row, InvalidInput):
                yield line, row
                continue
            try:
                if mapper.is_gone(row):
                    continue
                edge = mapper.edge(row)
            except InvalidInput as error:
                yield line, error
                continue
            if edge is None:
                yield line, InvalidInput("bad-id", "head, relation and tail are needed")
            else:
                self._heads_at.setdefault(edge.head, begin + line)
                self._by_head.setdefault(edge.head, {}).setdefault(edge.relation, {})[edge.tail] = None

    def _read_tables(self) -> Iterator[Numbered]:
        for table in self._tables:
            mapper = RowMapper(self._source, table)
            for path, rows in self._rows_by_file(mapper, table):
                yield from _located(self._map(mapper, rows, path.name), path.name)

    def _rows_by_file(self, mapper: RowMapper, table: Table) -> Iterator[tuple[Path, Iterable[NumberedRow]]]:
        """The rows of each file. RDF files are one graph, in which a subject is one row."""
        paths = self._paths(table)
        graph = [path for path in paths if format_of(path) in RDF]
        for path in paths:
            if path not in graph:
                yield path, self._rows(path, mapper, table)
        if graph:
            yield from read_rdf(graph, self._mapping.iri or "", self._meter, table.encoding)

    def _map(self, mapper: RowMapper, rows: Iterable[NumberedRow], file: str) -> Iterator[Numbered]:
        account, begin = self._account, self._account.place(file, 0)
        seen: list[SeenCell] | None = [] if mapper.has_cells_to_see else None
        unseen = account.unseen_columns(self._source, mapper.optional)
        for line, row in rows:
            if isinstance(row, InvalidInput):
                yield line, row
                continue
            if unseen:
                unseen.difference_update([column for column in unseen if not missing_columns([column], row)])
            try:
                if mapper.is_gone(row):
                    gone = mapper.delete(row)
                    account.take_event(gone, begin + line)
                    yield line, gone
                    continue
                *made, own = mapper.upserts(row, seen=seen)
                if seen:
                    account.take_cells(self._source, seen, begin + line)
                    seen.clear()
                if column := mapper.kept_though_deleted(row):
                    account.take_deleted(self._source, column, own.id, begin + line)
                for column, text in mapper.unclear(row):
                    account.take_unclear(self._source, column, text, begin + line)
                own = _with_relations(own, self._by_head.get(own.id, {}))
                for entity in made:
                    if account.take_made(entity, begin + line):
                        yield line, entity
                if account.take_row(own, begin + line):
                    yield line, own
            except InvalidInput as error:
                yield line, error

    def _read_canonical(self) -> Iterator[Numbered]:
        for path in self._paths(self._mapping):
            yield from _located(read_canonical(path, self._account, self._source, self._meter), path.name)

    def _heads_without_rows(self) -> Iterator[Numbered]:
        """Entities that only joins name: with their relations, and no line of their own.

        Of several tables none says what they are.
        """
        for head, relations in self._by_head.items():
            place = self._heads_at[head]
            if self._account.exists(curie(self._source, head)):
                continue
            if len(self._tables) > 1:
                self._account.lose_head(head, place)
                continue
            entity = _with_relations(Upsert(self._source, head, self._mapping.type), relations)
            if self._account.take_made(entity, place):
                yield 0, entity

    def _paths(self, part: Table | Join) -> list[Path]:
        return [self._base / name for name in part.files]

    def _rows(self, path: Path, mapper: RowMapper | JoinMapper, part: Table | Join) -> Iterator[NumberedRow]:
        layout, iri = Layout(part.separator, part.quoting, part.encoding), self._mapping.iri or ""
        return read_rows(path, mapper.required, self._meter, iri, layout, part.all_columns())


def _with_relations(entity: Upsert, more: dict[str, dict[str, None]]) -> Upsert:
    """The entity with more relations, each target once."""
    if not more:
        return entity
    merged = {name: dict.fromkeys(targets) for name, targets in entity.relations.items()}
    for name, tails in more.items():
        merged.setdefault(name, {}).update(tails)
    return msgspec.structs.replace(entity, relations={name: [*tails] for name, tails in merged.items()})


def _located(events: Iterable[Numbered], file: str) -> Iterator[Numbered]:
    """The events of a file; refusals say the file and the line."""
    for line, event in events:
        if isinstance(event, InvalidInput):
            event = InvalidInput(event.reason, f"{file}:{line}: {event}")
        yield line, event
