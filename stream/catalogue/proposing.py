"""Proposes mappings from samples of files: tables, joins, and what each column seems to be.

It guesses; people read and correct. The text is TOML for `sameas.toml`, the reasons are lines for people.
Whatever is proposed can be fed as it is.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import msgspec

from stream import toml
from stream.catalogue.columns import ColumnSample, FileSample, read_sample
from stream.catalogue.references import (
    EMPTY_WORDS,
    Files,
    Reference,
    is_id_name,
    is_id_of_another,
    singular,
    words_of,
)
from stream.catalogue.roles import (
    TIMES,
    TYPE_NAMES,
    Pointer,
    TableProposer,
    deleted_of,
    examples,
    identify,
    layout_of,
    null_of,
    origin_of,
    relation_name,
    said_of,
    type_column_of,
)
from stream.errors import ConfigError
from stream.events import SOURCE_PATTERN
from stream.mapping.row import is_unicode

ROLES = {*TYPE_NAMES, "role", "job", "relation", "predicate", "property", "credit", "department", "position"}
ORDERS = {"order", "ordering", "ord", "rank", "sequence", "seq", "number", "nr", "n"}
NUMBERS = re.compile(r"\d+")
MOST_RELATIONS = 50  # that a column names
MISSING = Pointer("A GUESS: ids of a table that is not here; bring them into the form of its ids", None, None)
TRIPLES = [("head", "relation", "tail"), ("subject", "predicate", "object"), ("s", "p", "o")]


class Proposal(msgspec.Struct):
    """The mappings as TOML, and the lines that say what they rest on."""

    toml: str
    seen: list[str]


def propose(paths: Sequence[Path], source: str | None = None) -> Proposal:
    """Mappings for files of rows, or of Debezium envelopes.

    Files of one folder that refer to each other are one source, of several tables and joins; others are
    sources of their own.

    Args:
        source: names one source of all files; else they are named after their file or folder.

    Raises:
        ConfigError: a file cannot be read, has no rows, no column that could be the id, or canonical events,
            which need no mapping; or `source` cannot be the name of one.
    """
    if source is not None and not SOURCE_PATTERN.fullmatch(source):
        raise ConfigError(f"--source {source}: 1 to 64 letters, digits, '_', '.' or '-'")
    samples = _merged([_read(path) for path in dict.fromkeys(paths)], together=source is not None)
    groups = [*_grouped(samples, together=source is not None)]
    names = [source] if source is not None else _names(groups)
    common = _common_type(groups) if len(groups) > 1 else None
    tables: list[str] = []
    seen: list[str] = []
    for name, group in zip(names, groups, strict=True):
        mapping = group.mapping(common)
        if group.has_tables or len(groups) == 1:
            tables += ["", *toml.tables(["sources", name], mapping)]
        else:
            group.leave_out()
        seen += [f"{file}: {line}" if len(samples) > 1 else line for file, line in group.seen]
    if len(groups) > 1:
        seen.append(
            f"{len(groups)} sources, since none refers to another; --source NAME makes one of all files"
        )
    seen.append("only entities of one type are compared: all sources have to call types by the same names")
    return Proposal("\n".join(tables).strip("\n") + "\n", seen)


def _read(path: Path, *more: Path) -> FileSample:
    sample = read_sample(path, *more)
    if not all(map(is_unicode, sample.columns)):
        raise ConfigError(f"{path}: the names of its columns are not UTF-8; is it text, and in UTF-8?")
    return sample


def _merged(samples: Sequence[FileSample], *, together: bool) -> list[FileSample]:
    """The samples, those of files that are parts of one table as one."""
    tables: list[list[FileSample]] = []
    for sample in samples:
        table = next((some for some in tables if all(_is_part(sample, one, together) for one in some)), None)
        if table is None:
            tables.append([sample])
        else:
            table.append(sample)
    return [table[0] if len(table) == 1 else _read(*(sample.path for sample in table)) for table in tables]


def _is_part(one: FileSample, other: FileSample, together: bool) -> bool:
    """Whether two files are of one table: RDF with subjects in common, or rows of the same columns.

    The names of such differ in a number (`part-00000`, `films_2020`), and their ids in all rows.
    """
    is_near = together or one.path.absolute().parent == other.path.absolute().parent
    if not is_near or one.layout != other.layout:
        return False
    if one.is_rdf or other.is_rdf:
        return one.is_rdf and other.is_rdf and (together or not _ids(one).isdisjoint(_ids(other)))
    if one.stem == other.stem or NUMBERS.sub("0", one.stem) != NUMBERS.sub("0", other.stem):
        return False
    is_alike = one.columns.keys() == other.columns.keys() and not one.wrapped.in_envelopes
    return is_alike and bool(_ids(one)) and _ids(one).isdisjoint(_ids(other))


def _ids(sample: FileSample) -> frozenset[str]:
    """The values of the column that seems to be the id; none if there is none."""
    unique = sample.unique()
    best = max(unique, key=lambda column: is_id_name(column.name), default=None)
    return frozenset() if best is None else frozenset(best.ids)


def _grouped(samples: Sequence[FileSample], *, together: bool) -> Iterator["_Group"]:
    """The files by source."""
    if together:
        yield _Group(Files(samples, together=True), [*range(len(samples))])
        return
    folders: dict[Path, list[FileSample]] = {}
    for sample in samples:
        folders.setdefault(sample.path.absolute().parent, []).append(sample)
    for here in folders.values():
        files = Files(here, together=False)
        group = [*range(len(here))]  # the first file that each is connected with
        for place, references in enumerate(files.references):
            targets = {reference.target for reference in references.values()}
            if _triples(here[place]) and not targets:
                targets = {next((other for other, one in enumerate(here) if not _triples(one)), place)}
            least = min(group[other] for other in (place, *targets))
            joined = {group[other] for other in (place, *targets)}
            group = [least if number in joined else number for number in group]
        for first in dict.fromkeys(group):
            yield _Group(files, [place for place, number in enumerate(group) if number == first])


def _names(groups: Sequence["_Group"]) -> list[str]:
    """A name for each source, after its file, or its folder if it has several."""
    names: list[str] = []
    for group in groups:
        first = group.samples[0]
        name = first.path.absolute().parent.name if len(group.samples) > 1 else first.word
        names.append(_unused(re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60] or "source", names))
    return names


def _unused(name: str, used: Collection[str]) -> str:
    """The name, with a number if it is used."""
    numbered = (f"{name}_{number}" for number in count(2))
    return name if name not in used else next(other for other in numbered if other not in used)


def _common_type(groups: Sequence["_Group"]) -> str | None:
    """The type of tables that are alone in their sources, unless columns name the same types in all.

    It is what the names of all files have in common, or else `entity`.
    """
    samples = [group.samples[0] for group in groups if group.is_lone]
    columns = [type_column_of(sample) for sample in samples]
    kinds = [set() if column is None else {*column.texts} for column in columns]
    if len(kinds) < 2 or set.intersection(*kinds):
        return None
    common = [word for word in words_of(samples[0].stem) if not word.isdigit()]
    for sample in samples[1:]:
        common = [word for word in common if word in words_of(sample.stem)]
    return common[0] if common else "entity"


def _triples(sample: FileSample) -> tuple[str, str, str] | None:
    """The columns head, relation and tail, if these are all."""
    return next((names for names in TRIPLES if {*names} == sample.columns.keys()), None)


class _Group:
    """The files of one source.

    Attributes:
        seen: (file, line) what the mapping rests on.
    """

    def __init__(self, files: Files, places: Sequence[int]) -> None:
        self._files = files
        self.samples = [files.samples[place] for place in places]
        self._names: dict[int, str] = {}  # of tables and joins
        for place, sample in zip(places, self.samples, strict=True):
            name = re.sub(r"\W+", "_", sample.name)
            self._names[place] = _unused(name, self._names.values())
        self._joins = [place for place in places if _triples(files.samples[place]) or self._is_join(place)]
        tables = [place for place in places if place not in self._joins]
        self.has_tables = bool(tables)
        self.is_lone = self.has_tables and len(places) == 1
        self._identities = {place: identify(files.samples[place], files.keys[place]) for place in tables}
        self._types = self._unlike(tables)
        self._prefixes = {place: self._prefix(place) for place in tables}
        self.seen: list[tuple[str, str]] = []

    def mapping(self, common_type: str | None) -> dict[str, object]:
        """The mapping of the source.

        Args:
            common_type: of a table that is alone in its source, as other sources are proposed beside it.
        """
        lone = common_type if self.is_lone else None
        tables = {self._names[place]: self._table(place, lone) for place in self._identities}
        joins = {self._names[place]: self._join(place) for place in self._joins}
        whole: dict[str, object] = {"tables": tables} if len(tables) > 1 else dict(*tables.values())
        return whole | ({"joins": joins} if joins else {})

    def _unlike(self, tables: Sequence[int]) -> dict[int, str]:
        """The types of the tables, each another one."""
        words = {place: singular(self._files.samples[place].word) for place in tables}
        return {
            place: word if [*words.values()].count(word) == 1 else singular(self._names[place])
            for place, word in words.items()
        }

    def _prefix(self, place: int) -> str:
        """What stands before a table's ids, since another table has the same ones; "" if none has."""
        mine, sample = self._identities[place].ids, self._files.samples[place]
        for other, identity in self._identities.items():
            if self._files.extends.get(other) == place:
                continue  # that one gives way
            # of the rows that were not looked at, numbers are likely to be the same
            is_cut = sample.is_cut and self._files.samples[other].is_cut and _are_numbers(mine | identity.ids)
            if other != place and (mine & identity.ids or is_cut):
                return re.sub("[{}/]", "_", self._types[place]) + "/"
        return ""

    def _table(self, place: int, lone: str | None) -> dict[str, object]:
        sample = self._files.samples[place]
        pointers = {
            name: self._pointer(place, name, reference)
            for name, reference in self._files.references[place].items()
            if reference.target in self._identities
        }
        taken = self._types.values() if len(self._types) > 1 else ()
        proposer = TableProposer(sample, self._identities[place], pointers, taken)
        table = proposer.table(self._prefixes[place], self._types[place], lone)
        self._say(sample, *proposer.seen)
        if lone:
            self._say(sample, f"type: {lone!r}, A GUESS: that the other sources hold the same kind of things")
        if self._prefixes[place]:
            self._say(
                sample, f"its ids begin with {self._prefixes[place]!r}, since another file has the same"
            )
        return table

    def _pointer(self, place: int, column: str, reference: Reference) -> Pointer:
        """How a table's column refers to rows."""
        target = self._files.samples[reference.target]
        where = "the same file" if reference.target == place else target.path.name
        said = f"ids of {where}"
        if not reference.is_sure:
            said = f"A GUESS: {reference.share:.0%} of its values are {said}"
        prefix = self._prefixes[reference.target]
        return Pointer(said, f"{prefix}{{{column}}}" if prefix else None, reference.separator)

    def _is_join(self, place: int) -> bool:
        """Whether a row only connects two rows, of other files or of tables that are not here."""
        sample, key, ends = self._files.samples[place], self._files.keys[place], self._ends(place)
        if len(ends) < 2 or self._is_pointed_at(place):
            return False
        rest = [c for c in sample.columns.values() if c is not key and c.name not in ends]
        if None in [*ends.values()][:2]:
            is_own_key = key is not None and key.name not in ends and _is_called_after(sample, ends)
            return (key is None or is_own_key) and _is_set_of_pairs(sample, ends, rest)
        if key is None:
            return True
        if key.name in ends:
            return all(c.name.lower() in ROLES | ORDERS for c in rest)
        is_surrogate = key.is_number and is_id_name(key.name)
        return is_surrogate and all(c.name.lower() in ROLES or not c.is_text for c in rest)

    def _is_pointed_at(self, place: int) -> bool:
        """Whether another file refers to the rows of this one."""
        return any(
            reference.target == place
            for other, references in enumerate(self._files.references)
            for reference in references.values()
            if other != place
        )

    def _ends(self, place: int) -> dict[str, Reference | None]:
        """The columns that could be the ends of a join, the surest first; None where no file has the rows."""
        sample = self._files.samples[place]
        found: dict[str, Reference | None] = {
            name: reference
            for name, reference in self._files.references[place].items()
            if reference.target != place
            and not _triples(self._files.samples[reference.target])
            and not reference.separator
            and not sample.columns[name].is_listed
        }
        for column in sample.full():
            if column.name not in self._files.references[place] and is_id_of_another(column.name):
                found[column.name] = None
        return dict(sorted(found.items(), key=lambda end: (end[1] is None, not (end[1] and end[1].is_sure))))

    def _join(self, place: int) -> dict[str, object]:
        sample = self._files.samples[place]
        join = {**origin_of(sample), **layout_of(sample), **deleted_of(sample)}
        self._say(sample, *said_of(sample))
        if triples := _triples(sample):
            join |= {"head": triples[0], "relation_column": triples[1], "tail": triples[2]}
            self._say(sample, f"{sample.count}; relations, to go with a table")
            if any(self._prefixes.values()):
                self._say(
                    sample, "A GUESS: its ids have to be those of the tables, which begin with a type here"
                )
            return join
        ends = [*self._ends(place).items()][:2]
        alone = (
            "" if self.has_tables else "; it goes with the tables of its source, so give --source their name"
        )
        self._say(sample, f"{sample.count}, a join{alone}")
        for role, (name, reference) in zip(("head", "tail"), ends, strict=True):
            pointer = MISSING if reference is None else self._pointer(place, name, reference)
            join[role] = pointer.template or name
            blank = len(sample.rows) - sample.columns[name].filled
            refused = f"; feed refuses {blank:,} rows, A GUESS: where it is blank" if blank else ""
            self._say(sample, f"{name}: {role}: {pointer.said}{refused}")
        named = self._relation_column(sample, [name for name, _ in ends])
        if named is not None:
            join["relation_column"] = named.name
            self._say(sample, f"{named.name}: the relation: {examples(named)}")
        else:
            join["relation"] = self._relation_name(sample, ends)
        for name in sample.columns:
            if name not in join.values() and name not in dict(ends):
                self._say(sample, f"{name}: left out: a join has no attributes")
        return join | ({"null": null} if (null := null_of(sample)) else {})

    @staticmethod
    def _relation_column(sample: FileSample, ends: Sequence[str]) -> ColumnSample | None:
        """The column that names each row's relation."""
        possible = (c for c in sample.full() if c.name.lower() in ROLES and c.name not in ends and c.is_text)
        for column in possible:
            names = {*column.texts}
            if len(names) <= MOST_RELATIONS and not any(name.startswith("~") for name in names):
                return column
        return None

    def _relation_name(self, sample: FileSample, ends: Sequence[tuple[str, Reference | None]]) -> str:
        """After the file: what it is called besides the two tables, or the table that is pointed at."""
        called = [
            relation_name(name) if end is None else self._files.samples[end.target].name for name, end in ends
        ]
        known = {word for name in called for word in words_of(name)}
        words = [word for word in words_of(sample.name) if word not in known]
        target = ends[1][1]
        tail = called[1] if target is None else self._types.get(target.target, "related")
        return "_".join(words) or tail

    def leave_out(self) -> None:
        """Says that none of the files is a table that the joins could go with."""
        self.seen = [
            (sample.path.name, "left out: it only says which rows of other tables have to do with each other")
            for sample in self.samples
        ]

    def _say(self, sample: FileSample, *lines: str) -> None:
        self.seen += [(sample.path.name, line) for line in lines]


def _is_called_after(sample: FileSample, ends: Collection[str]) -> bool:
    """Whether a file is called after what its columns point at: film_actor, of film_id and actor_id."""
    called = {*words_of(sample.stem), *words_of(sample.word)}
    return all({*words_of(name)} - EMPTY_WORDS <= called for name in ends)


def _is_set_of_pairs(sample: FileSample, ends: Collection[str], rest: Iterable[ColumnSample]) -> bool:
    """Whether each row is another pair of ids, with nothing beside it but a role, an order or a time."""
    pairs = {*zip(*(sample.columns[name].ids for name in ends), strict=False)}
    if len(ends) > 2 or len(pairs) < len(sample.rows):  # a blank would leave fewer pairs
        return False
    return all(c.name.lower() in ROLES | ORDERS or TIMES.match(c.name) for c in rest)


def _are_numbers(ids: frozenset[str]) -> bool:
    return all(id_.isdecimal() for id_ in ids)
