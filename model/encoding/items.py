"""The values of entities as items: parsed, tokenised, turned into vectors and hashes, many at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.entity import Profile, Scalar, Value
from model.encoding import tokens
from model.encoding.keys import KeyTable
from model.encoding.levels import add_tokens
from model.encoding.rarest import NAME_CELLS, VALUE_CELLS, OwnCells, rarest_tokens
from model.encoding.tokens import Bags, Texts
from model.encoding.values import (
    MAX_LIST_ITEMS,
    Kind,
    Measure,
    measure,
    on_sphere,
    position,
    recognise,
    single_degree,
)
from model.encoding.vectors import Projection, to_int8
from model.encoding.words import FoundWords, Packed, embedded, pack
from model.shapes import DIM, I8, LEVEL, LEVEL_NORM, RARITY_BITS

_EMPTY = np.zeros(0, np.int64)


class Items(NamedTuple):
    """m values of a batch of entities, with what they were parsed into."""

    entity: npt.NDArray[np.int64]  # (m,) index in the batch, ascending
    key: npt.NDArray[np.int64]  # (m,)
    text_row: npt.NDArray[np.int64]  # (m,) row in `texts`, -1 for measures
    texts: Texts
    grid_item: npt.NDArray[np.int64]  # (g,) the item that a measure belongs to
    grid_kind: npt.NDArray[np.uint64]  # (g,)
    grid_measure: npt.NDArray[np.float64]  # (g,)
    position_item: npt.NDArray[np.int64]  # (p,)
    positions: npt.NDArray[np.float64]  # (p, 3) kilometres
    hash: npt.NDArray[np.uint64]  # (m,) of the normalised value
    length: npt.NDArray[np.int64]  # (m,) letters
    inside_entity: npt.NDArray[np.int64]  # (i,) index in the batch: dates and durations inside texts
    inside_hash: npt.NDArray[np.uint64]  # (i,) as of a value of their own


class TextTokens(NamedTuple):
    """The tokens of m texts."""

    entity: npt.NDArray[np.int64]  # (m,) which has the text, ascending
    weight: npt.NDArray[np.int64]  # (m,) of its key
    starts: npt.NDArray[np.int64]  # (m,) where its tokens begin
    token: npt.NDArray[np.int64]  # (T,) buckets
    rarity: npt.NDArray[np.uint8]  # (T,) their weights


class ItemEncoder:
    """Parses and encodes values with given keys and token weights ((BUCKETS,) uint8, sixteenths)."""

    def __init__(self, keys: KeyTable, weights: npt.NDArray[np.uint8]) -> None:
        self._keys = keys
        self._weights = weights
        self._projection = Projection(weights)

    def parse(self, entities: Sequence[Profile]) -> Items:
        """Values become texts or measures, by their key's kind where they fit it, by their own otherwise."""
        entity: list[int] = []
        key: list[int] = []
        text_row: list[int] = []
        texts: list[bytes] = []
        grid: list[tuple[int, Kind, float]] = []
        places: list[tuple[int, tuple[float, float, float]]] = []
        inside: list[tuple[int, Kind, float]] = []
        for number, upsert in enumerate(entities):
            for key_id, kind, value in self._values(upsert):
                text, measures = _interpret(kind, value)
                if text is None and not measures:
                    continue
                item = len(entity)
                entity.append(number)
                key.append(key_id)
                text_row.append(-1 if text is None else len(texts))
                if text is not None:
                    texts.append(text)
                    if isinstance(value, str):
                        inside.extend((number, *found) for found in embedded(value))
                for measured_kind, measured in measures:
                    if isinstance(measured, tuple):
                        places.append((item, measured))
                    else:
                        grid.append((item, measured_kind, measured))
        items = Items(
            entity=np.array(entity, np.int64),
            key=np.array(key, np.int64),
            text_row=np.array(text_row, np.int64),
            texts=Texts(texts),
            grid_item=np.array([item for item, _, _ in grid], np.int64),
            grid_kind=np.array([kind for _, kind, _ in grid], np.uint64),
            grid_measure=np.array([value for _, _, value in grid], np.float64),
            position_item=np.array([item for item, _ in places], np.int64),
            positions=np.array([place for _, place in places], np.float64).reshape(-1, 3),
            hash=np.zeros(0, np.uint64),
            length=_EMPTY,
            inside_entity=np.array([number for number, _, _ in inside], np.int64),
            inside_hash=_measure_hashes(
                np.array([kind for _, kind, _ in inside], np.uint64),
                np.array([value for _, _, value in inside], np.float64),
            ),
        )
        hashes, length = _hashes(items)
        return items._replace(hash=hashes, length=length)

    def count(self, items: Items) -> npt.NDArray[np.int64]:
        """How often each token occurs in these values: (BUCKETS,)."""
        counts = np.zeros(tokens.BUCKETS, np.int64)
        for buckets, _ in (*_text_bags(items.texts), *_measure_bags(items)):
            counts += np.bincount(buckets[buckets >= 0], minlength=tokens.BUCKETS)
        counts += np.bincount(tokens.value_buckets(items.inside_hash, False), minlength=tokens.BUCKETS)
        return counts + np.bincount(_value_buckets(items), minlength=tokens.BUCKETS)

    def words(self, n: int, items: Items) -> Packed:
        """The rarest words of n entities (n, WORDS)."""
        text_item = np.flatnonzero(items.text_row >= 0)
        row, hashes, digit, buckets = items.texts.word_list()
        measured = np.flatnonzero((items.text_row < 0) & (items.hash != 0))
        values = np.concatenate([items.hash[measured], items.inside_hash])
        return pack(
            n,
            FoundWords(
                np.concatenate([items.entity[text_item][row], items.entity[measured], items.inside_entity]),
                np.concatenate([hashes, tokens.mix(values)]),
                np.concatenate([digit, np.ones(len(values), bool)]),
                self._weights[np.concatenate([buckets, tokens.value_buckets(values, False)])],
            ),
        )

    def cells(self, n: int, items: Items) -> OwnCells:
        """The cells of n entities."""
        entity_of_text = items.entity[items.text_row >= 0]
        texts = [(bags, entity_of_text) for bags in _text_bags(items.texts)] if len(entity_of_text) else []
        measures = zip(_measure_bags(items), (items.grid_item, items.position_item), strict=True)
        return OwnCells(
            rarest_tokens(n, *_flat(texts), self._weights, NAME_CELLS),
            rarest_tokens(
                n, *_flat([(bags, items.entity[item]) for bags, item in measures]), self._weights, VALUE_CELLS
            ),
        )

    def encode(self, items: Items, learned: I8) -> tuple[I8, I8, npt.NDArray[np.int64]]:
        """Vectors (m, DIM), learned vectors (m, LEVEL), which are zero for measures, and hashes (m,).

        Args:
            learned: (TEXT_BUCKETS, LEVEL) vectors of tokens.

        Returns:
            The lowest RARITY_BITS of the hashes tell the value's rarity.
        """
        sums = np.zeros((len(items.entity), DIM), np.float32)
        learned_sums = np.zeros((len(items.entity), LEVEL), np.int32)
        is_text = np.flatnonzero(items.text_row >= 0)
        for bags in _text_bags(items.texts) if len(is_text) else ():
            self._projection.add(bags, is_text, sums)
            add_tokens(bags, is_text, self._weights, learned, learned_sums)
        for bags, item in zip(_measure_bags(items), (items.grid_item, items.position_item), strict=True):
            self._projection.add(bags, item, sums)
        return to_int8(sums), to_int8(learned_sums, LEVEL_NORM), self.hashes(items)

    def text_tokens(self, items: Items) -> TextTokens:
        """The tokens of these values' texts."""
        is_text = np.flatnonzero(items.text_row >= 0)
        bags = [(bags, is_text) for bags in _text_bags(items.texts)] if len(is_text) else []
        text, token = _flat(bags)
        order = np.argsort(text, kind="stable")
        token = token[order]
        return TextTokens(
            items.entity[is_text],
            self._keys.weights(items.key[is_text]),
            np.searchsorted(text[order], is_text),
            token,
            self._weights[token],
        )

    def _values(self, upsert: Profile) -> Iterator[tuple[int, Kind | None, Value | Measure]]:
        """An entity's values in order of attribute name, latitude and longitude joined."""
        latitudes, longitudes = [], []
        for name in sorted(upsert.attributes):
            value = single_degree(name, upsert.attributes[name])
            key_id, kind = self._keys.attribute(upsert.source, name)
            if kind is Kind.LATITUDE:
                latitudes.append((key_id, value))
            elif kind is Kind.LONGITUDE:
                longitudes.append((key_id, value))
            else:
                yield key_id, kind, value
        for k in range(max(len(latitudes), len(longitudes))):
            halves = [half[k] for half in (latitudes, longitudes) if k < len(half)]
            place = _join(*(value for _, value in halves)) if len(halves) == 2 else None
            if place:
                yield halves[0][0], Kind.COORDINATE, place
            else:
                for key_id, value in halves:
                    yield key_id, Kind.NUMBER, value

    def hashes(self, items: Items) -> npt.NDArray[np.int64]:
        """(m,) equal for equal values of equal rarity, which the lowest RARITY_BITS tell."""
        rarity = np.minimum(self._weights[_value_buckets(items)].astype(np.uint64) >> np.uint64(3), 15)
        says = np.minimum(np.log2(items.length + 1.0) * 2, 15).astype(np.uint64)
        low = np.uint64((1 << RARITY_BITS) - 1)
        return np.asarray(
            ((items.hash & ~low) | (rarity << np.uint64(4)) | says).view(np.int64) * (items.hash != 0),
            np.int64,
        )


def _interpret(kind: Kind | None, value: Value | Measure) -> tuple[bytes | None, list[tuple[Kind, Measure]]]:
    """A value as normalised text, or as measures of a kind; (None, []) when nothing can be compared."""
    if isinstance(value, tuple):
        return None, [(Kind.COORDINATE, value)]
    if isinstance(value, list):
        return _interpret_list(kind, value)
    if kind is None or kind is Kind.LIST:
        kind = recognise(value)
    if kind is Kind.COORDINATE and (place := position(value)):
        return None, [(kind, place)]
    if kind not in (Kind.TEXT, Kind.CODE):
        measured = measure(kind, value)
        if measured is None and (own := recognise(value)) is not kind:
            kind, measured = own, measure(own, value)
        if measured is not None:
            return None, [(kind, measured)]
    return tokens.normalise(value if isinstance(value, str) else str(value)[:32]).strip() or None, []


def _interpret_list(
    kind: Kind | None, values: list[Scalar]
) -> tuple[bytes | None, list[tuple[Kind, Measure]]]:
    """All elements' tokens together: measures when all are, text otherwise. The order does not count."""
    if place := position(values) if kind in (None, Kind.COORDINATE) else None:
        return None, [(Kind.COORDINATE, place)]
    parts = [_interpret(kind, element) for element in values[:MAX_LIST_ITEMS]]
    if parts and all(text is None for text, _ in parts):
        return None, [measured for _, measures in parts for measured in measures]
    texts = sorted(text for text, _ in parts if text)
    return tokens.cut(b" ".join(texts)) or None, []


def _join(latitude: Value | Measure, longitude: Value | Measure) -> tuple[float, float, float] | None:
    if isinstance(latitude, list | tuple) or isinstance(longitude, list | tuple):
        return None
    a, b = measure(Kind.LATITUDE, latitude), measure(Kind.LONGITUDE, longitude)
    return None if a is None or b is None else on_sphere(a, b)


def _text_bags(texts: Texts) -> Iterator[Bags]:
    for n in tokens.GRAMS:
        yield texts.grams(n)
    yield texts.words()


def _measure_bags(items: Items) -> Iterator[Bags]:
    for buckets in (
        tokens.grid_tokens(items.grid_kind, items.grid_measure),
        tokens.position_tokens(items.positions),
    ):
        yield buckets.ravel(), np.arange(len(buckets), dtype=np.int64) * buckets.shape[1]


def _flat(
    bags: Sequence[tuple[Bags, npt.NDArray[np.int64]]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The entity and the bucket of every token; `bags` come with the entities (m,) that they belong to."""
    parts = [(_EMPTY, _EMPTY)]
    for (buckets, starts), entity in bags:
        some = buckets >= 0
        owner = np.repeat(entity, np.diff(np.append(starts, len(buckets))))
        parts.append((owner[some], buckets[some]))
    owners, tokens_of = map(np.concatenate, zip(*parts, strict=True))
    return owners, tokens_of


def _hashes(items: Items) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Value hashes without rarity, 0 only for texts without words; and lengths in letters."""
    hashes = np.zeros(len(items.entity), np.uint64)
    length = np.zeros(len(items.entity), np.int64)
    is_text = items.text_row >= 0
    text_hashes, letters = items.texts.hashes()
    hashes[is_text] = np.where(text_hashes != 0, tokens.mix(text_hashes), np.uint64(0))
    length[is_text] = letters
    np.add.at(hashes, items.grid_item, _measure_hashes(items.grid_kind, items.grid_measure))
    rounded = np.rint(items.positions * 100) + 0.0  # ten metres
    for axis in range(3):
        salt = np.uint64(axis + 1) << np.uint64(60)
        np.add.at(
            hashes,
            items.position_item,
            tokens.mix(np.ascontiguousarray(rounded[:, axis]).view(np.uint64) ^ salt),
        )
    return hashes, length


def _measure_hashes(
    kinds: npt.NDArray[np.uint64], measures: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint64]:
    bits = measures + 0.0  # so that -0 is 0
    return tokens.mix(bits.view(np.uint64) ^ tokens.mix(kinds))


def _value_buckets(items: Items) -> npt.NDArray[np.int64]:
    text = items.text_row >= 0
    return np.where(text, tokens.value_buckets(items.hash, True), tokens.value_buckets(items.hash, False))
