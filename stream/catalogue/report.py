"""What an account says: as JSON for programs, as lines for people. docs/feeding.md has the names."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from index.errors import shortened
from stream.console import shown

SHOWN: Final = 3  # examples of one kind
MAX_NAME_CHARS: Final = 80
SAY_ORDER: Final = (
    "give the column of pairs the type lon-lat or lat-lon in `columns`, or let two columns change places"
)
SHOWN_LINES: Final = 10  # about relations, and the like; JSON has all


class Example(msgspec.Struct, frozen=True):
    """One of what was counted: what it is called, where it stands, and where the same came first."""

    name: str
    place: str
    first_seen: str = ""

    def __str__(self) -> str:
        seen = f" (first seen in {self.first_seen})" if self.first_seen else ""
        return f"{shortened(self.name, MAX_NAME_CHARS)} in {self.place}{seen}"


class Tally(msgspec.Struct):
    """How many there were of one kind, and the first of them."""

    count: int = 0
    first: list[Example] = []

    def add(self, name: str, place: str, first_seen: str = "") -> None:
        """One more."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(Example(name, place, first_seen))


class MissingTargets(Tally, kw_only=True):
    """The entities that a relation points at and that never came."""

    source: str
    relation: str


class OfColumn(Tally, kw_only=True):
    """What was counted of the cells of a column, or of the rows that it tells something of."""

    source: str
    column: str


class UnreadCells(OfColumn, kw_only=True):
    """The filled cells of a column that its type, or a path into it, could not read."""

    type: str = ""  # none: it is a path
    filled: int = 0


class WrongPositions(Tally, kw_only=True):
    """Values of an attribute that are positions only if latitude and longitude change places."""

    source: str
    attribute: str


class TurnedPositions(msgspec.Struct):
    """Two sources whose positions are far apart, and near if latitude and longitude of one change places."""

    type: str
    sources: list[str]
    km: int  # between their middles
    km_turned: int


class Links(msgspec.Struct):
    """Known links, and those of them of which none can hold, or of several only one."""

    count: int = 0
    missing: Tally = msgspec.field(default_factory=Tally)
    types_differ: Tally = msgspec.field(default_factory=Tally)
    rivals: Tally = msgspec.field(default_factory=Tally)  # of another link of an entity into that source


class Report(msgspec.Struct):
    """What was read, and what of it is not as one would expect."""

    rows: int = 0
    entities: dict[str, dict[str, int]] = {}  # by source and type
    refused: dict[str, int] = {}  # by reason
    repeated: int = 0
    updated: Tally = msgspec.field(default_factory=Tally)
    ids_twice: Tally = msgspec.field(default_factory=Tally)
    absent_deletes: Tally = msgspec.field(default_factory=Tally)
    blank_entities: Tally = msgspec.field(default_factory=Tally)
    missing_heads: Tally = msgspec.field(default_factory=Tally)
    missing_targets: list[MissingTargets] = []
    unread_cells: list[UnreadCells] = []
    deleted_rows: list[OfColumn] = []  # which a column that is not read seems to call so
    unclear_cells: list[OfColumn] = []  # of texts that often mean nothing, as None, taken for values
    unseen_columns: dict[str, list[str]] = {}  # by source the optional ones that no row has
    wrong_positions: list[WrongPositions] = []
    turned_positions: list[TurnedPositions] = []
    lone_types: dict[str, list[str]] = {}  # by source those that no other source has
    links: Links = msgspec.field(default_factory=Links)
    weak_model: str = ""  # what is wrong with it

    @property
    def problems(self) -> dict[str, int]:
        """The counts that --strict does not let pass."""
        counts = {
            "refused": sum(self.refused.values()),
            "ids_twice": self.ids_twice.count,
            "missing_heads": self.missing_heads.count,
            "missing_targets": sum(relation.count for relation in self.missing_targets),
            "unread_cells": sum(column.count for column in self.unread_cells),
            "wrong_positions": sum(attribute.count for attribute in self.wrong_positions),
            "turned_positions": len(self.turned_positions),
            "links_missing": self.links.missing.count,
            "links_types_differ": self.links.types_differ.count,
            "weak_model": int(bool(self.weak_model)),
        }
        return {name: count for name, count in counts.items() if count}

    def json(self) -> bytes:
        """One object: the fields, and `problems`."""
        return msgspec.json.encode({**msgspec.structs.asdict(self), "problems": self.problems})

    def summary(self) -> str:
        """ "4 rows, 3 entities: 2 film, 1 person; refused 2: 2 bad-id"."""
        types: Counter[str] = Counter()
        for of_source in self.entities.values():
            types.update(of_source)
        names = ", ".join(f"{count:,} {shown(kind)}" for kind, count in types.most_common())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(self.refused).most_common())
        refused = sum(self.refused.values())
        return (
            f"{self.rows:,} rows, {types.total():,} entities{f': {names}' if names else ''}; "
            f"refused {refused:,}{f': {reasons}' if reasons else ''}"
        )

    def lines(self) -> Iterator[str]:
        """What is not as one would expect, for people."""
        if self.repeated:
            yield f"rows that say the same as one before: {self.repeated:,}"
        if self.updated.count:
            first = self.updated.first[0]
            yield f"entities that came again with another state: {self.updated.count:,}, first {first}"
        if self.ids_twice.count:
            first = self.ids_twice.first[0]
            files = {place.rpartition(":")[0] for place in (first.place, first.first_seen)}
            hint = '; if two tables have the same ids, give each a form of its own: id = "film/{id}"'
            yield (
                f"ids twice: {self.ids_twice.count:,}, first {first}; of rows with one id the longest counts"
                f"{hint if len(files) > 1 else ''}"
            )
        if self.absent_deletes.count:
            yield (
                f"deletions of what did not come before: {self.absent_deletes.count:,}, first "
                f"{self.absent_deletes.first[0]}; is an id spelt otherwise, or was it fed another time?"
            )
        if self.blank_entities.count:
            yield (
                f"entities without any attribute or relation: {self.blank_entities.count:,}, first "
                f"{self.blank_entities.first[0]}; nothing tells them from others"
            )
        if self.missing_heads.count:
            yield (
                f"joins: {self.missing_heads.count:,} of the entities at their heads never came, and their "
                f"relations are left out, first {self.missing_heads.first[0]}"
            )
        for missing in self.missing_targets[:SHOWN_LINES]:
            examples = ", ".join(map(str, missing.first))
            yield (
                f"relation {shown(missing.relation)} of {missing.source}: {missing.count:,} of its targets "
                f"never came, first {examples}"
            )
        if len(self.missing_targets) > SHOWN_LINES:
            yield f"targets of {len(self.missing_targets) - SHOWN_LINES:,} more relations never came"
        for cells in self.unread_cells:
            what = f"{cells.type} could not read" if cells.type else "nothing found in"
            counts = f"{cells.count:,} of {cells.filled:,} filled cells"
            yield f"{shown(cells.column)}: {what} {counts}, first {cells.first[0]}"
        for deleted in self.deleted_rows[:SHOWN_LINES]:
            name = shown(deleted.column)
            yield (
                f"rows of {deleted.source} which {name} seems to call deleted: {deleted.count:,}, first "
                f"{deleted.first[0]}; if they are, set `deleted` to that column"
            )
        for unclear in self.unclear_cells[:SHOWN_LINES]:
            yield (
                f"{shown(unclear.column)}: {unclear.count:,} cells often mean nothing, first "
                f"{unclear.first[0]}; list such texts in the mapping's `null`"
            )
        for source, columns in self.unseen_columns.items():
            yield f"no row of {source} has a column {_listed(columns)}, which the mapping calls optional"
        for wrong in self.wrong_positions[:SHOWN_LINES]:
            yield (
                f"attribute {shown(wrong.attribute)} of {wrong.source}: {wrong.count:,} begin with a number "
                f"that is a longitude and no latitude, first {wrong.first[0]}; {SAY_ORDER}"
            )
        for turned in self.turned_positions[:SHOWN_LINES]:
            left, right = turned.sources
            yield (
                f"positions of type {shown(turned.type)}: {left} and {right} are {turned.km:,} km apart, and "
                f"{turned.km_turned:,} km if latitude and longitude of one change places; {SAY_ORDER}"
            )
        for source, types in self.lone_types.items():
            yield (
                f"types of {source} which no other source has: {_listed(types)}; only entities of one type "
                "are aligned, so call it the same in both mappings (`type`, `types`)"
            )
        links = self.links
        if links.missing.count:
            yield (
                f"{links.missing.count:,} of {links.count:,} links name entities that do not exist, first "
                f"{links.missing.first[0]}"
            )
        if links.types_differ.count:
            yield (
                f"{links.types_differ.count:,} of {links.count:,} links join entities of two types, which "
                f"are never candidates, first {links.types_differ.first[0]}"
            )
        if links.rivals.count:
            yield (
                f"{links.rivals.count:,} of {links.count:,} links join an entity with one more of a source, "
                f"of which `align.one_to_one` aligns one, first {links.rivals.first[0]}"
            )
        if self.weak_model:
            yield self.weak_model


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_LINES:,} more" if len(names) > SHOWN_LINES else ""
    return ", ".join(map(shown, names[:SHOWN_LINES])) + more
