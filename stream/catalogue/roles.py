"""What each column of a table seems to be: the id, the type, a relation or an attribute; and why."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import NamedTuple

from stream import toml
from stream.catalogue.columns import ColumnSample, FileSample, are_short
from stream.catalogue.delimited import SEPARATORS
from stream.catalogue.opening import MARKS, format_of
from stream.catalogue.references import is_id_name, separator_of, singular, split, words_of
from stream.errors import ConfigError
from stream.mapping.cells import NUMBER
from stream.mapping.envelopes import READERS
from stream.mapping.language import NULL

REPEATED = 0.25  # share of a column's values that occur earlier in it, if they are names
REPEATED_IN_LISTS = 0.05  # the same, where a cell holds several
NEARLY_ALL = 0.9  # rows that a column tells apart which is called an id
TYPE_NAMES = {"type", "kind", "class", "category", "@type", "entity_type", "_type"}
# A column called by these words alone says what the row itself is called.
OWN_NAMES = {"name", "title", "label", "caption", "surname", "forename", "lastname", "firstname", "fullname"}
OWN_NAMES |= {
    "first",
    "last",
    "middle",
    "given",
    "family",
    "full",
    "short",
    "long",
    "display",
    "primary",
    "original",
}
DATES = re.compile(r"(?i)(.*_)?(date|day|born|died|released|on)$")
TIMES = re.compile(r"(?i)(.*_)?(at|time|ts|timestamp|created|updated?|modified)$")


class Identity(NamedTuple):
    """The columns that a row's id is made of."""

    columns: tuple[str, ...]
    ids: frozenset[str]  # of the rows that were seen
    said: str

    def template(self, prefix: str) -> str:
        """As a mapping writes it."""
        if len(self.columns) == 1 and not prefix:
            return self.columns[0]
        return prefix + "/".join(f"{{{column}}}" for column in self.columns)


def identify(file: FileSample, key: ColumnSample | None) -> Identity:
    """The id: `key`, if there is one, else two columns that differ together, else a guess.

    Raises:
        ConfigError: no column holds texts or whole numbers.
    """
    if key is not None:
        return Identity(
            (key.name,), frozenset(key.ids), f"{key.name}: id: different in all rows: {examples(key)}"
        )
    for one, other in islice(combinations(file.full(), 2), 50):
        ids = frozenset(map("/".join, zip(one.ids, other.ids, strict=True)))
        if len(ids) == len(file.rows):
            names = (one.name, other.name)
            return Identity(names, ids, f"{', '.join(names)}: id: only together different in all rows")
    possible = [column for column in file.columns.values() if column.are_ids and not column.is_listed]
    if not possible:
        raise ConfigError(f"{file.path}: no column could be the id, which is text or a whole number")

    def worth(column: ColumnSample) -> tuple[bool, bool, int, int]:
        """Each row costs as much where its id is blank as where another row has it."""
        kept = len(set(column.ids))
        is_named = is_id_name(column.name) and kept >= NEARLY_ALL * len(file.rows)
        return column.is_short, is_named, kept, column.filled

    best = max(possible, key=worth)
    distinct, blank = len(set(best.ids)), len(file.rows) - best.filled
    refused = f"; feed refuses {blank:,} rows where it is blank" if blank else ""
    said = f"A GUESS, only {distinct:,} different values; correct it, rows overwrite rows{refused}"
    return Identity(
        (best.name,),
        frozenset(best.ids),
        f"{best.name}: id: {said}",
    )


class Pointer(NamedTuple):
    """A column of ids: how to say which, and the template, if any, that makes the rows' ids of its cells."""

    said: str
    template: str | None
    separator: str | None


class TableProposer:
    """Decides what each column of a table is, and notes why.

    Args:
        pointers: the columns that hold ids of rows.
        taken: types of rows, which entities made of names must not have.

    Attributes:
        seen: what it rests on.
    """

    def __init__(
        self, file: FileSample, identity: Identity, pointers: Mapping[str, Pointer], taken: Collection[str]
    ) -> None:
        self._file, self._identity, self._pointers, self._taken = file, identity, pointers, taken
        envelopes = " in envelopes" if file.wrapped.in_envelopes else ""
        self.seen = [f"{file.count}{envelopes}, {len(file.columns)} columns"]
        self.seen += said_of(file)
        self.seen.append(identity.said)

    def table(self, prefix: str, kind: str, only_kind: str | None) -> dict[str, object]:
        """The mapping of the table.

        Args:
            prefix: stands before each id.
            kind: the rows' type, unless a column names it.
            only_kind: the rows' type, whatever columns say.
        """
        type_column = None if only_kind else self._type_column()
        relations, attributes = self._relations_and_attributes(type_column)
        table = {
            **origin_of(self._file),
            **layout_of(self._file),
            "id": self._identity.template(prefix),
            **({"type_column": type_column} if type_column else {"type": only_kind or kind}),
            "attributes": _attributes(attributes),
            **deleted_of(self._file),
        }
        used = {
            *attributes,
            *deleted_of(self._file).values(),
            *self._identity.columns,
            *([type_column] if type_column else []),
        }
        used.update(str(relation["column"]) for relation in relations.values())
        if optional := self._optional(used):
            table["optional"] = optional
        if null := null_of(self._file):
            table["null"] = null
            seen = ", ".join(f"{text} ({count:,})" for text, count in self._file.null.most_common())
            self._say("null", f"taken for absent: {seen}")
        roots = {name.partition(".")[0] for name in used} | used
        logical_types = {name: "json" for name in self._file.in_json if name in roots}
        logical_types |= {name: logical for name, logical in attributes.items() if logical}
        if logical_types:
            table["columns"] = logical_types
        if relations:
            table["relations"] = relations
        return table

    def _optional(self, used: Collection[str]) -> list[str]:
        """The columns in use that some rows lack."""
        columns = [*self._file.columns.values(), *filter(None, [self._file.deleted])]
        return [c.name for c in columns if c.name in used and c.values and c.rows < len(self._file.rows)]

    def _say(self, name: str, what: str) -> None:
        self.seen.append(f"{name}: {what}")

    def _type_column(self) -> str | None:
        column = type_column_of(self._file)
        if column is None or column.name in self._identity.columns:
            return None
        kinds = Counter(column.texts).most_common(4)
        self._say(column.name, f"type: {', '.join(f'{kind} ({count:,})' for kind, count in kinds)}")
        return column.name

    def _relations_and_attributes(
        self, type_column: str | None
    ) -> tuple[dict[str, dict[str, object]], dict[str, str | None]]:
        """All other columns: the relations by name, and the attributes' columns with their logical types."""
        relations: dict[str, dict[str, object]] = {}
        attributes: dict[str, str | None] = {}
        for name, column in self._file.columns.items():
            is_id = name in self._identity.columns
            is_called_so = _is_own_name(name)  # then its values say something, also as ids
            is_one = self._identity.columns == (name,) and name not in self._pointers
            if name == type_column or (is_one and not is_called_so):
                continue
            if not name:
                self._say("a column", "left out: it has no name")
            elif column.unusable:
                self._say(name, f"left out: {column.unusable:,} cells are {_unlike(column)}")
            elif not column.values:
                self._say(name, "left out: always blank")
            elif self._file.wrapped.in_envelopes and not is_id and column.is_base64:
                self._say(
                    name,
                    f"left out: base64 ({examples(column)}), most likely a NUMERIC; an attribute needs its "
                    f'scale: columns = {{{toml.key(name)} = "decimal(SCALE, base64)"}}',
                )
            elif relation := self._relation(column, is_id=is_id):
                relations[_unused(relation_name(name), relations, name)] = relation
            elif self._identity.columns != (name,) or is_called_so:
                attributes[name] = logical = self._logical(column)
                self._say(name, f"attribute{f', {logical}' if logical else ''}: {examples(column)}")
        return relations, attributes

    def _relation(self, column: ColumnSample, *, is_id: bool) -> dict[str, object] | None:
        """The column as a relation, to rows or to entities that are made of names; None if it is none."""
        pointer = self._pointers.get(column.name)
        if pointer is None and is_id:
            return None
        if pointer is None and (said := self._said_of_foreign_ids(column)):
            # as they are, numbers could be ids of other rows here
            template = (
                f"{singular(relation_name(column.name))}/{{{column.name}}}" if column.is_number else None
            )
            pointer = Pointer(said, template, None)
        if pointer is None:
            return None if column.is_number or not column.are_ids else self._relation_by_name(column)
        self._say(column.name, f"relation: {pointer.said}")
        relation: dict[str, object] = {"column": column.name}
        if pointer.separator:
            relation["separator"] = pointer.separator
        return relation | ({"id": pointer.template} if pointer.template else {})

    def _said_of_foreign_ids(self, column: ColumnSample) -> str | None:
        """In what way the values are ids of rows that are in no file here; None if they are not."""
        values = set(column.texts)
        if not column.are_ids:
            return None
        if self._file.is_rdf and sum("://" in value for value in values) > 0.5 * len(values):
            return "IRIs"
        if is_id_name(column.name) and len(values) < len(column.values):
            return "A GUESS: ids of another table; map its file, too, or correct their form with `id`"
        return None

    def _relation_by_name(self, column: ColumnSample) -> dict[str, object] | None:
        """To entities that are made of the values; None unless these are names that repeat."""
        separator = separator_of(column.texts)
        names = split(column.texts, separator)
        distinct = len(set(names))
        many = separator is not None or column.lists >= 0.05 * column.filled
        if _is_own_name(column.name) or distinct <= 2 or not are_short(names) or not column.is_text:
            return None
        if 2 * sum(name[0].isdigit() for name in names) > len(names):  # `320 p.`
            return None
        if 1 - distinct / len(names) <= (REPEATED_IN_LISTS if many else REPEATED):
            return None
        kind = singular(_name(column.name)).replace("/", "_")
        if not kind or kind in self._taken:
            return None
        how = f"separated by {separator!r}" if separator else "lists" if many else "names that repeat"
        self._say(
            column.name, f"relation to entities of type {kind!r}: {how}, {distinct:,} in {len(names):,}"
        )
        relation: dict[str, object] = {"column": column.name, "type": kind}
        return relation | ({"separator": separator} if separator else {})

    def _logical(self, column: ColumnSample) -> str | None:
        """Positions; and days and microseconds since 1970, where an envelope came without its schema."""
        if order := column.order:
            if order.is_guess:
                self._say(column.name, f"{order.type} is A GUESS, look where such a place lies")
            return order.type
        if not self._file.wrapped.in_envelopes or not all(isinstance(value, int) for value in column.values):
            return None
        least = min(abs(value) for value in column.values if isinstance(value, int))
        most = max(abs(value) for value in column.values if isinstance(value, int))
        if DATES.match(column.name) and most < 100_000:
            return "date"
        if (TIMES.match(column.name) or DATES.match(column.name)) and least > 10**10:
            return "timestamp-micros" if least > 10**13 else "timestamp-millis"
        return None


def type_column_of(file: FileSample) -> ColumnSample | None:
    """The column that names the rows' types: it is called so, and has few values."""
    rows = len(file.rows)
    for column in file.columns.values():
        is_filled = column.are_ids and column.filled >= 0.9 * rows
        few = max(2, min(20, rows // 5))
        if column.name.lower() in TYPE_NAMES and is_filled and len(set(column.texts)) <= few:
            return column
    return None


def origin_of(file: FileSample) -> dict[str, object]:
    """Where the rows come from: the file, or the topic that sent the envelopes, and what these are."""
    if not file.wrapped.in_envelopes:
        return {"file": [str(path) for path in (file.path, *file.more)] if file.more else str(file.path)}
    if file.wrapped.envelope in READERS:
        return {"topic": file.stem, "envelope": file.wrapped.envelope}
    topic = file.stem if "." in file.stem else f"SERVER.SCHEMA.{file.stem}"
    return {"topic": file.wrapped.topic or topic}


def deleted_of(file: FileSample) -> dict[str, str]:
    """The setting that names the column that says which rows are gone, if there is one to name."""
    return {"deleted": file.deleted.name} if file.deleted else {}


def said_of(file: FileSample) -> Iterator[str]:
    """What was seen of the file itself."""
    if file.more:
        why = (
            "subjects of its are in them" if file.is_rdf else "they differ in a number, and no row is in two"
        )
        yield f"A GUESS: one table with {', '.join(path.name for path in file.more)}: {why}"
    if file.wrapped.envelope in READERS:
        yield f"the messages: change events of {READERS[file.wrapped.envelope].title}; name their topic"
    if len(tables := file.wrapped.tables) > 1:
        some = ", ".join(f"{name[:80]} ({count:,})" for name, count in tables.most_common(4))
        yield (
            f"the messages: A GUESS, since they are of {len(tables)} tables, {some}: give each a topic of "
            "its own, or put the table into the id (`key_columns`), else rows with one id replace each other"
        )
    for setting, value in layout_of(file).items():
        yield f"the file: {setting} is {value!r}"
    if file.layout.encoding not in (None, *MARKS.values()):
        texts = (text for column in file.columns.values() for text in column.texts if not text.isascii())
        some = ", ".join(islice(dict.fromkeys(texts), 5))  # another encoding would read them otherwise
        yield f"the file: its encoding is A GUESS, by which it says {some}; correct it"
    numbers = [name for name in file.columns if NUMBER.fullmatch(name)]
    if numbers and format_of(file.path) in SEPARATORS:
        some = ", ".join(numbers[:3])
        yield f"the header: A GUESS, since {some} looks like a cell; if it is a row, add a header"
    for name in file.in_json:
        yield f"{name}: its texts are JSON"
    if file.refused:
        yield f"refused, by feed as well: {len(file.refused):,}, the first {file.refused[0]}"
    for name in file.repeated:
        yield f"{name}: left out: several columns have this name; give each a name of its own"
    for name in file.flags:
        yield f"{name}: left out: it says which rows are gone, and is taken for that"
    if gone := file.deleted:
        yield f"{gone.name}: says which rows are gone: {examples(gone) or 'none here'}; A GUESS, correct it"


def layout_of(file: FileSample) -> dict[str, object]:
    """The settings of a mapping that say how the file is laid out, where it is not as usual."""
    decimal = "," if file.decimal_comma else None
    settings = {**file.layout._asdict(), "decimal": decimal}
    return {name: value for name, value in settings.items() if value is not None}


def null_of(file: FileSample) -> list[str]:
    """The texts that are absent values; empty where none was seen."""
    return [*NULL, *(text for text in file.null if text not in NULL)] if file.null else []


def examples(column: ColumnSample) -> str:
    """The first values."""
    return ", ".join(dict.fromkeys(text if len(text) <= 24 else text[:23] + "…" for text in column.texts[:3]))


def relation_name(column: str) -> str:
    """A name for what a column points at: `director` of `director_id`."""
    name = _name(column).lstrip("~")
    return re.sub(r"(?i)(.)[_ ]ids?$|(?<=[a-z])I[dD]s?$", r"\1", name) or name or "relation"


def _attributes(columns: Sequence[str] | Mapping[str, object]) -> list[str] | dict[str, str]:
    """The columns; under names of their own where some are nested."""
    if not any("." in name for name in columns):
        return [*columns]
    named: dict[str, str] = {}
    for column in columns:
        named[_unused(_name(column), named, column)] = column
    return named


def _unused(name: str, used: Collection[str], otherwise: str) -> str:
    """A name that no other column has: the column's own, if need be."""
    while name in used:
        name, otherwise = otherwise, f"{otherwise}_"
    return name


def _is_own_name(column: str) -> bool:
    """Whether a column says what the row itself is called."""
    words = {*words_of(column)}
    return bool(words) and words <= OWN_NAMES


def _unlike(column: ColumnSample) -> str:
    """What the unusable cells of a column are not."""
    return f"no positions ({column.order.type})" if column.order else "no texts, numbers or lists of them"


def _name(column: str) -> str:
    """A name for a column: the last part of a path, without a language or an ending such as `_name`."""
    return re.sub(r"(?i)(.)[_. ]names?$", r"\1", column).rpartition(".")[2].partition("@")[0] or column
