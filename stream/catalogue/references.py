"""Which columns hold ids of rows, of their own file or of another one, and which column is a file's id."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from stream.catalogue.columns import ColumnSample, FileSample

SURE, LEAST = 0.9, 0.5  # share of a column's values that are ids of rows; below SURE its name has to say so
SEPARATORS = (";", "|", " / ", ",")
WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+")
ID_WORDS = {"id", "ids", "key", "uuid", "guid", "iri", "uri", "identifier"}
EMPTY_WORDS = ID_WORDS | {"code", "no", "nr", "number", "ref", "fk", "name"}  # they say nothing of which rows
OWN_WORDS = {"parent", "child", "previous", "next", "broader", "narrower", "original", "part", "sequel"}
IRREGULAR = {"people": "person", "movies": "movie", "series": "series", "species": "species", "news": "news"}


class Reference(NamedTuple):
    """A column of ids."""

    target: int  # the file, by its place
    share: float  # of the values that are ids of its rows
    is_named: bool  # the column is called as these rows are, or as their id
    is_sure: bool
    separator: str | None  # between the ids in a cell


class _Values(NamedTuple):
    """What a column holds, if its cells are taken apart at a separator, or not at all."""

    separator: str | None
    distinct: frozenset[str]
    come_once: bool  # each of them


class _Column(NamedTuple):
    """A column that may hold ids."""

    sample: ColumnSample
    ways: list[_Values]  # of taking its cells apart, whole ones first


class Files:
    """The files of a call of `sameas map`, with the column that is each one's id, and what refers to it.

    Args:
        together: they are of one catalogue. Else two of them may be catalogues that share names.

    Attributes:
        keys: by the place of the file, None where no column differs in all rows.
        extends: the files with rows that say more of another file's rows, one of each, and that file.
        references: by the place of the file and the column.
    """

    def __init__(self, samples: Sequence[FileSample], *, together: bool) -> None:
        self.samples = samples
        self._together = together
        self._columns = [[_column(c) for c in sample.columns.values() if c.are_ids] for sample in samples]
        self.keys = self._choose_keys()
        self.extends = self._extensions()
        self.references: list[dict[str, Reference]] = []
        for place, columns in enumerate(self._columns):
            found = {column.sample.name: self._best(place, column) for column in columns}
            self.references.append({name: best for name, best in found.items() if best is not None})

    def _choose_keys(self) -> list[ColumnSample | None]:
        """What other files refer to, or else what is called so."""
        possible = [_possible_keys(sample) for sample in self.samples]
        votes: Counter[tuple[int, str]] = Counter()
        for target, keys in enumerate(self._columns):
            for key in keys:
                if any(key.sample is one for one in possible[target]):
                    votes[target, key.sample.name] = sum(
                        self._reference(place, column, target, key) is not None
                        for place, columns in enumerate(self._columns)
                        for column in columns
                        if place != target
                    )

        def rank(target: int, column: ColumnSample) -> tuple[int, bool, bool, bool, bool]:
            is_base64 = self.samples[target].wrapped.in_envelopes and column.is_base64
            is_one, name = separator_of(column.texts) is None, column.name
            return votes[target, name], is_one, is_id_name(name), name.lower() in ("id", "@id"), not is_base64

        return [
            max(columns, key=lambda column, target=target: rank(target, column), default=None)  # type: ignore[misc]
            for target, columns in enumerate(possible)
        ]

    def _extensions(self) -> dict[int, int]:
        """Of two files that extend each other, the one with more texts of its own is extended."""
        keys = self._key_columns()
        richness = [(self._own_texts(place, keys), -place) for place in range(len(keys))]
        found: dict[int, int] = {}
        for place, column in enumerate(keys):
            bases = [
                target
                for target, key in enumerate(keys)
                if place != target and column and key and self._reference(place, column, target, key)
                if richness[place] < richness[target] or not self._reference(target, key, place, column)
            ]
            if bases:
                found[place] = max(bases, key=richness.__getitem__)
        return found

    def _own_texts(self, place: int, keys: Sequence[_Column | None]) -> int:
        """How many columns of a file are texts and refer to no other file."""
        return sum(
            not column.sample.is_number
            and not any(
                key is not None and target != place and self._reference(place, column, target, key)
                for target, key in enumerate(keys)
            )
            for column in self._columns[place]
        )

    def _key_columns(self) -> list[_Column | None]:
        return [
            next((c for c in columns if c.sample is key), None)
            for columns, key in zip(self._columns, self.keys, strict=True)
        ]

    def _best(self, place: int, column: _Column) -> Reference | None:
        is_key = column.sample is self.keys[place]
        several = [
            self._reference(place, column, target, key)
            for target, key in enumerate(self._key_columns())
            if key is not None and key is not column and (not is_key or self.extends.get(place) == target)
        ]
        found = [reference for reference in several if reference is not None]
        mine = _words(self.samples[place])

        def rank(reference: Reference) -> tuple[bool, bool, bool, int, float]:
            target = reference.target
            alike = mine & _words(self.samples[target])
            is_whole = target not in self.extends
            return reference.is_named, is_whole, target != place, len(alike), reference.share

        return max(found, key=rank, default=None)

    def _reference(self, place: int, column: _Column, target: int, key: _Column) -> Reference | None:
        """A column of the file at `place` as a reference to rows with the id `key`; None if it is none."""
        found = [self._refers(place, column.sample, way, target, key) for way in column.ways]
        return max(filter(None, found), key=lambda reference: reference.share, default=None)

    def _refers(
        self, place: int, sample: ColumnSample, values: _Values, target: int, key: _Column
    ) -> Reference | None:
        """The same for one way of taking cells apart.

        Numbers are ids of many things, so the name has to say of which. Texts that are all ids are enough,
        unless each comes once: then the files may be two catalogues that share names.
        """
        is_number, ids = key.sample.is_number, key.ways[0].distinct
        words = {*words_of(sample.name)} - EMPTY_WORDS
        is_like_key = bool(words) and sample.name == key.sample.name
        is_named = bool(words) and words <= _words(self.samples[target])
        is_own = bool(words) and words <= _words(self.samples[place])
        could_be = is_id_of_another(sample.name) and not is_like_key and not is_own
        if is_number and not (is_named or is_like_key or could_be):
            return None
        if (
            is_number
            and could_be
            and place != target
            and not is_named
            and not _reach_alike(values.distinct, ids)
        ):
            return None
        common = len(values.distinct & ids)
        share = common / len(values.distinct)
        may_be_its = self._together or not is_number or not values.come_once
        is_named |= is_like_key and may_be_its and (share >= SURE or self.samples[target].is_cut)
        if place == target and is_number:
            is_named |= bool(words & OWN_WORDS)
            is_one = share >= SURE and is_named
        elif place == target:
            is_one = common >= max(2, LEAST * len(values.distinct)) and not sample.is_number
        elif is_named:
            is_one = share >= LEAST or (common > 0 and self.samples[target].is_cut)
        else:
            are_many = len(values.distinct) > 1 and not values.come_once
            is_one = share >= SURE and (could_be or (are_many and not is_number))
        if is_one and place == target:
            is_one = not self._repeats(place, sample, key.sample)
        is_sure = (place == target or share >= SURE) and (is_named or not is_number)
        return Reference(target, share, is_named, is_sure, values.separator) if is_one else None

    def _repeats(self, place: int, column: ColumnSample, key: ColumnSample) -> bool:
        """Whether a column often says the row's own id, as one of two codes of the same things does."""
        rows = [(row.get(column.name), row.get(key.name)) for row in self.samples[place].rows]
        filled = [(str(value), str(own)) for value, own in rows if value is not None]
        return sum(value == own for value, own in filled) > len(filled) // 4


def _possible_keys(file: FileSample) -> list[ColumnSample]:
    """The columns that differ in all rows; if one is called the id, none that is called that of others."""
    unique, words = file.unique(), _words(file)
    foreign = [
        c.name for c in unique if is_id_name(c.name) and not {*words_of(c.name)} - EMPTY_WORDS <= words
    ]
    has_own = any(is_id_name(column.name) and column.name not in foreign for column in unique)
    return [column for column in unique if not has_own or column.name not in foreign]


def _words(file: FileSample) -> set[str]:
    """What a file's rows are called."""
    return {*words_of(file.stem), *words_of(file.word)}


def _reach_alike(numbers: Collection[str], ids: Collection[str]) -> bool:
    """Whether numbers reach as far as ids do, roughly: those of a small table are among any ids."""
    try:
        return 2 * max(map(int, numbers)) >= max(map(int, ids))
    except ValueError:
        return True


def _column(sample: ColumnSample) -> _Column:
    separators = [None, *(s for s in SEPARATORS if any(s in text for text in sample.texts))]
    ways = []
    for separator in separators:
        values = split(sample.ids, separator)
        if values:
            distinct = frozenset(values)
            ways.append(_Values(separator, distinct, len(distinct) == len(values)))
    return _Column(sample, ways)


def separator_of(texts: Sequence[str]) -> str | None:
    """What separates several names in a cell; a comma only if cells hold different numbers of names.

    It is tried last: it also stands in names (`Lem, Stanisław / Kandel, Michael`).
    """
    for separator in SEPARATORS:
        counts = Counter(text.count(separator) + 1 for text in texts if separator in text)
        cells = counts.total()
        if cells < max(2, 0.01 * len(texts)):
            continue
        if separator != "," or (max(counts) > 2 and counts.most_common(1)[0][1] < 0.9 * cells):
            return separator
    return None


def split(texts: Sequence[str], separator: str | None) -> list[str]:
    """The names in cells."""
    if separator is None:
        return list(texts)
    return [part for text in texts for item in text.split(separator) if (part := item.strip())]


def is_id_name(name: str) -> bool:
    """Whether a column is called `id`, `film_id`, `filmId`, `uri` or the like."""
    words = words_of(name)
    return bool(words) and words[-1] in ID_WORDS


def is_id_of_another(name: str) -> bool:
    """Whether a column is called `film_id` or the like, by which it is a reference."""
    return is_id_name(name) and bool({*words_of(name)} - EMPTY_WORDS)


def words_of(name: str) -> list[str]:
    """The words of a name, small and in the singular: film, id of `filmIds`."""
    return [singular(word.lower()) for word in WORD.findall(name)]


def singular(word: str) -> str:
    """The word for one of those that an English word is for."""
    if word.lower() in IRREGULAR:
        return IRREGULAR[word.lower()]
    for ending, one in (("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word.removesuffix(ending) + one
    return word
