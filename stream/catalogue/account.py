"""What was read, and what of it is not as one would expect: the account of a feed, a training, an alignment.

All that is read is an entity in the end, or is counted here with the place of the first: rows whose id came
before with another content, relations to entities that never came.

An entity is known by the hash of its CURIE, as in the graph, and its state by a hash of it. That takes about
200 bytes for each entity, and as many for each target of a relation that has not come yet.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final, NamedTuple, TextIO

import xxhash

from index.entity import node_of
from index.errors import SameasError
from stream.catalogue.positions import Positions
from stream.catalogue.report import (
    SHOWN,
    Example,
    MissingTargets,
    OfColumn,
    Report,
    UnreadCells,
)
from stream.console import escaped, log, tell
from stream.errors import ConfigError, InvalidInput
from stream.events import Delete, EntityEvent, Upsert, curie, encode, split_curie
from stream.mapping.row_mapper import SeenCell

SHOWN_REFUSALS: Final = 100  # one by one; further ones are counted
LEAST_WAITING: Final = 100_000  # targets, before those that have come meanwhile are sorted out
MAX_CELL_CHARS: Final = 40
LINE_BITS: Final = 40  # of a place; the bits above are the file's number

OWN, MADE, GONE = range(3)  # an entity with a row or event of its own, one made of a cell, one deleted
NO_VERSION: Final = -(2**63)  # which no catalogue begins with


class _State(NamedTuple):
    """What is known of an entity."""

    version: int
    fraction: float  # of the version
    size: int  # of its event, in bytes
    digest: int  # of the same
    place: int
    kind: int  # number of its source and type
    standing: int  # one of the three above


_Fields = tuple[int, float, int, int, int, int, int]  # of a `_State`
_STATE = struct.Struct("<qdIQQIB")


class Account:
    """Reads along, and says which row counts where several have one id.

    Args:
        strict: what is not as one would expect is an error.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._report = Report()
        self._cells: dict[tuple[str, str, str], UnreadCells] = {}  # by source, column and type
        self._deleted: dict[tuple[str, str], OfColumn] = {}  # by source and column
        self._unclear: dict[tuple[str, str], OfColumn] = {}  # by source and column
        self._unseen: dict[tuple[str, tuple[str, ...]], set[str]] = {}  # by source and its optional columns
        self._known: dict[int, bytes] = {}
        self._kinds: dict[tuple[str, str], int] = {}
        self._entities: list[int] = []  # by kind
        self._files: dict[str, int] = {}
        self._waiting: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._positions = Positions()
        self._count_waiting, self._most_waiting = 0, LEAST_WAITING

    @property
    def entities(self) -> int:
        """How many there are, each counted once."""
        return sum(self._entities)

    @property
    def refused(self) -> int:
        """How many rows could not be used."""
        return sum(self._report.refused.values())

    @property
    def sources(self) -> set[str]:
        """Those of which anything was read."""
        return {source for source, _ in self._kinds}

    def exists(self, name: str) -> bool:
        """Whether an entity with this CURIE was read, and not deleted."""
        known = self._known.get(node_of(name))
        return known is not None and known[-1] != GONE

    def place(self, file: str, line: int) -> int:
        """The number that stands for a place here."""
        return self._files.setdefault(file, len(self._files)) << LINE_BITS | line

    def take_made(self, entity: Upsert, place: int) -> bool:
        """An entity made of a cell; False if it is known already.

        Raises:
            InvalidInput: too large for a message.
        """
        node = node_of(curie(entity.source, entity.id))
        if node in self._known:
            return False
        self._keep(node, entity, self._state(entity, encode(entity), place, MADE))
        return True

    def take_row(self, entity: Upsert, place: int) -> bool:
        """A row's entity; False if it does not count, because another row with its id does.

        Of several rows with one id the longest counts, of equally long ones the one with the greatest hash:
        in whatever order they come. Between versions the graph decides.

        Raises:
            InvalidInput: too large for a message.
        """
        state = self._state(entity, encode(entity), place, OWN)
        node = node_of(curie(entity.source, entity.id))
        raw = self._known.get(node)
        self._report.rows += 1
        if raw is not None and raw[-1] == OWN:
            old, new = _State._make(_STATE.unpack(raw)), _State._make(state)
            if new.digest == old.digest:
                self._report.repeated += 1
                return False
            if new[:2] == old[:2]:
                self._report.ids_twice.add(entity.id, self._shown(place), self._shown(old.place))
                if new < old:
                    return False
                state = new._replace(place=old.place)
            else:
                self._report.updated.add(entity.id, self._shown(place), self._shown(old.place))
                if old.version != NO_VERSION and new[:2] < old[:2]:
                    return True  # the graph finds it out of date
        self._keep(node, entity, state)
        return True

    def take_event(self, event: EntityEvent, place: int) -> None:
        """A canonical event. One of a known entity is an update, unless it has the same version."""
        node = node_of(curie(event.source, event.id))
        raw = self._known.get(node)
        self._report.rows += 1
        if isinstance(event, Delete):
            if raw is None:
                self._report.absent_deletes.add(event.id, self._shown(place))
            if raw is None or raw[-1] != GONE:
                gone = Upsert(event.source, event.id, "")
                self._keep(node, gone, self._state(gone, b"", place, GONE))
            return
        state = self._state(event, encode(event), place, OWN)
        if raw is not None and raw[-1] != GONE:
            old, new = _State._make(_STATE.unpack(raw)), _State._make(state)
            if new.digest == old.digest:
                self._report.repeated += 1
            else:
                is_said_twice = new[:2] == old[:2] and old.version != NO_VERSION
                tally = self._report.ids_twice if is_said_twice else self._report.updated
                tally.add(event.id, self._shown(place), self._shown(old.place))
        self._keep(node, event, state)

    def take_cells(self, source: str, cells: Iterable[SeenCell], place: int) -> None:
        """Filled cells of a row, and whether they could be read."""
        for cell in cells:
            found = self._cells.get((source, cell.column, cell.logical))
            if found is None:
                found = UnreadCells(source=source, column=cell.column, type=cell.logical)
                self._cells[source, cell.column, cell.logical] = found
            found.filled += 1
            if not cell.is_read:
                name = repr(cell.value)[:MAX_CELL_CHARS] if found.count < SHOWN else ""
                found.add(name, self._shown(place))

    def take_unclear(self, source: str, column: str, text: str, place: int) -> None:
        """A cell whose text often means nothing, and was taken for a value."""
        self._take_of_column(self._unclear, source, column, text, place)

    def take_deleted(self, source: str, column: str, name: str, place: int) -> None:
        """A row which a column, that the mapping does not read, seems to call deleted."""
        self._take_of_column(self._deleted, source, column, name, place)

    def _take_of_column(
        self, tallies: dict[tuple[str, str], OfColumn], source: str, column: str, name: str, place: int
    ) -> None:
        found = tallies.setdefault((source, column), OfColumn(source=source, column=column))
        found.add(name, self._shown(place) if found.count < SHOWN else "")

    def unseen_columns(self, source: str, optional: Iterable[str]) -> set[str]:
        """Those of a table's optional columns that no row has had so far; whoever reads takes them out."""
        return self._unseen.setdefault((source, tuple(optional)), {*optional})

    def lose_head(self, name: str, place: int) -> None:
        """The head of a join's relation that never came."""
        self._report.missing_heads.add(name, self._shown(place))

    def compare_types(self) -> None:
        """Everything is read: notes the types that only one source has.

        Raises:
            ConfigError: there is no other type, so that there is nothing to align.
        """
        sources = defaultdict(set)
        for (source, kind), count in zip(self._kinds, self._entities, strict=True):
            if count:
                sources[kind].add(source)
        types = defaultdict(list)
        for kind, having in sorted(sources.items()):
            for source in sorted(having):
                types[source].append(kind)
        if all(len(having) < 2 for having in sources.values()):
            found = "; ".join(f"{source} has {', '.join(kinds[:SHOWN])}" for source, kinds in types.items())
            raise ConfigError(
                "no two sources have entities of one type; give matching types one name"
                f"{f' ({found})' if found else ''}"
            )
        for source, kinds in types.items():
            if lone := [kind for kind in kinds if len(sources[kind]) < 2]:
                self._report.lone_types[source] = lone

    def call_weak(self, why: str) -> None:
        """The model that was made of all this is of little use."""
        self._report.weak_model = why

    def count_links(self, file: str, links: Iterable[tuple[int, tuple[str, str]]]) -> None:
        """Known links, each with its line, between entities that were all read."""
        kinds = [*self._kinds]
        partners: dict[tuple[str, str], str] = {}
        for line, names in links:
            self._report.links.count += 1
            known = [self._known.get(node_of(name)) for name in names]
            missing = [n for n, raw in zip(names, known, strict=True) if raw is None or raw[-1] == GONE]
            place = f"{file}:{line}"
            if missing:
                self._report.links.missing.add(missing[0], place)
                continue
            types = [kinds[_State._make(_STATE.unpack(raw)).kind][1] for raw in known if raw]
            if types[0] != types[1]:
                told = (f"{name} ({kind})" for name, kind in zip(names, types, strict=True))
                self._report.links.types_differ.add(" ~ ".join(told), place)
            for one, other in (names, names[::-1]):
                first = partners.setdefault((one, split_curie(other)[0]), other)
                if first != other:
                    self._report.links.rivals.add(f"{one} ~ {first}, {other}", place)

    def accepted(self, events: Iterable[EntityEvent | InvalidInput]) -> Iterator[EntityEvent]:
        """The usable events. All others are counted by reason, and the first of them are told.

        Raises:
            InvalidInput: the first refusal, if the account is strict.
        """
        for event in events:
            if not isinstance(event, InvalidInput):
                yield event
                continue
            if self._strict:
                raise event
            by_reason = self._report.refused
            by_reason[event.reason] = by_reason.get(event.reason, 0) + 1
            if self.refused <= SHOWN_REFUSALS:
                tell(f"refused: {event} ({event.reason})")
            elif self.refused == SHOWN_REFUSALS + 1:
                tell("refused: more, which are only counted")

    @contextmanager
    def told(self, file: TextIO | None = None) -> Iterator[None]:
        """What is done here may add to the account; then it warns of what is not as one would expect.

        Args:
            file: the report is written to it, too.

        Raises:
            SameasError: there is something of that kind and the account is strict. Then nothing is done here
                if it is known before.
        """
        try:
            self.check()
            yield
        finally:
            report = self.report()
            for line in report.lines():
                log.warning(line)
            if file is not None:
                file.write(escaped(report.json().decode()) + "\n")
        self.check()

    def check(self) -> None:
        """Raises SameasError if the account is strict and has any problem."""
        if self._strict and (problems := self.report().problems):
            counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in problems.items())
            raise SameasError(f"--strict: {counts}")

    def report(self) -> Report:
        """What was read so far."""
        entities: dict[str, dict[str, int]] = {}
        for (source, kind), count in zip(self._kinds, self._entities, strict=True):
            if count:
                entities.setdefault(source, {})[kind] = count
        self._report.entities, self._report.missing_targets = entities, self._missing_targets()
        self._report.unread_cells = [cells for cells in self._cells.values() if cells.count]
        self._report.deleted_rows = [*self._deleted.values()]
        self._report.unclear_cells = [*self._unclear.values()]
        unseen: dict[str, list[str]] = {}
        for (source, _), columns in self._unseen.items():
            if columns and source in entities:
                unseen[source] = sorted({*unseen.get(source, []), *columns})
        self._report.unseen_columns = unseen
        self._report.wrong_positions = self._positions.wrong()
        self._report.turned_positions = self._positions.turned()
        return self._report

    def _missing_targets(self) -> list[MissingTargets]:
        """By relation, the most first."""
        self._sort_out_waiting()
        found = []
        for (source, relation), targets in self._waiting.items():
            first = [Example(name, self._shown(place)) for name, place in islice(targets.items(), SHOWN)]
            found.append(MissingTargets(len(targets), first, source=source, relation=relation))
        return sorted(found, key=lambda missing: -missing.count)

    def _state(self, entity: Upsert, value: bytes, place: int, standing: int) -> _Fields:
        """A `_State`, which is made ten times faster so."""
        source_and_type = (entity.source, entity.type)
        kind = self._kinds.get(source_and_type)
        if kind is None:
            kind = self._kinds[source_and_type] = len(self._kinds)
            self._entities.append(0)
        whole = NO_VERSION if entity.version is None else math.floor(entity.version)
        fraction = 0.0 if entity.version is None else float(entity.version - whole)
        return (whole, fraction, len(value), xxhash.xxh3_64_intdigest(value), place, kind, standing)

    def _keep(self, node: int, entity: Upsert, state: _Fields) -> None:
        """From now on this is what is known of an entity; what it points at is expected."""
        known, source = self._known, entity.source
        *_, place, kind, standing = state
        raw = known.get(node)
        if raw is not None and raw[-1] != GONE:
            self._entities[_State._make(_STATE.unpack(raw)).kind] -= 1
        if standing != GONE:
            self._entities[kind] += 1
        if standing == OWN:
            if not entity.attributes and not entity.relations:
                self._report.blank_entities.add(entity.id, self._shown(place))
            self._positions.take(entity, lambda: self._shown(place))
        known[node] = _STATE.pack(*state)
        for relation, targets in entity.relations.items():
            waiting = self._waiting[source, relation]
            for target in targets:
                if target not in waiting and node_of(f"{source}:{target}") not in known:
                    waiting[target] = place
                    self._count_waiting += 1
        if self._count_waiting > self._most_waiting:
            self._sort_out_waiting()
            self._most_waiting = max(LEAST_WAITING, 2 * self._count_waiting)

    def _sort_out_waiting(self) -> None:
        """Forgets the targets that have come meanwhile."""
        waiting = {}
        for (source, relation), targets in self._waiting.items():
            missing = {
                target: place
                for target, place in targets.items()
                if node_of(f"{source}:{target}") not in self._known
            }
            if missing:
                waiting[source, relation] = missing
        self._waiting = defaultdict(dict, waiting)
        self._count_waiting = sum(map(len, waiting.values()))

    def _shown(self, place: int) -> str:
        """ "films.csv:4"; without the line where there is none."""
        file, line = place >> LINE_BITS, place & ((1 << LINE_BITS) - 1)
        name = [*self._files][file]
        return f"{name}:{line}" if line else name
