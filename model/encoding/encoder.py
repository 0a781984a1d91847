"""Entities to vectors: a pure function of the entity and of what `fit` learned, bit for bit in any batch.

    entity -> values -> kinds -> tokens -> weighted sum of signs -> int8 items -> name and values views
                                        -> weighted sum of what was learned of them -> level 0

`fit` learns from unlabelled entities: how rare tokens are, and of every key (a source's attribute or
relation) which kind it has and how well its values tell entities apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from index.entity import Profile, Value
from model.encoding import tokens
from model.encoding.items import ItemEncoder, Items, TextTokens
from model.encoding.keys import KeyRow, KeyTable
from model.encoding.levels import Levels, unlearned
from model.encoding.rarest import OwnCells
from model.encoding.values import Kind
from model.encoding.vectors import to_int8
from model.encoding.words import Packed
from model.shapes import DIM, I8, LEVEL_NORM, OWN, UNKNOWN

BATCH = 2048


class Encoded(NamedTuple):
    """n entities. Items are in canonical order (key, then hash); an empty slot is zero everywhere."""

    name: I8  # (n, DIM) what the entity says of itself in text
    level0: I8  # (n, LEVEL) the same as it was learned
    values: I8  # (n, DIM) its numbers, dates, positions
    items: I8  # (n, OWN, DIM)
    item_keys: npt.NDArray[np.int16]  # (n, OWN) 0 empty, 1 unknown
    item_hashes: npt.NDArray[np.int64]  # (n, OWN) equal for equal values; 0 none
    name_hash: npt.NDArray[np.int64]  # (n,) of the most telling text; 0 none
    words: Packed  # (n, WORDS) the rarest words


class _Alone(NamedTuple):
    """An entity with one of its attributes, and no relations."""

    source: str
    attributes: dict[str, Value]
    relations: dict[str, list[str]]


class Encoder:
    """Made by `fit`, or by `from_state` from what `state` returned.

    Attributes:
        levels: what levels 0 and 1 are made with; `fit` leaves them unlearned.
    """

    def __init__(self, keys: KeyTable, weights: npt.NDArray[np.uint8], levels: Levels) -> None:
        self.keys = keys
        self.levels = levels
        self._weights = weights
        self._items = ItemEncoder(keys, weights)

    @classmethod
    def fit(cls, entities: Iterable[Profile]) -> "Encoder":
        """Learns from entities of all sources."""
        entities = list(entities)
        keys = KeyTable.recognise(entities)
        counter = ItemEncoder(keys, np.full(tokens.BUCKETS, 16, np.uint8))
        counts = np.zeros(tokens.BUCKETS, np.int64)
        total = 0
        for batch in _batches(entities):
            items = counter.parse(batch)
            total += len(items.entity)
            counts += counter.count(items)
            keys.observe(items.key, items.hash, items.length)
        keys.judge()
        return cls(keys, rarity_weights(counts, total), unlearned(len(keys)))

    def with_levels(self, levels: Levels) -> "Encoder":
        """The same with other levels."""
        return Encoder(self.keys, self._weights, levels)

    def text_tokens(self, entities: Sequence[Profile]) -> TextTokens:
        """The tokens of the entities' texts, from which level 0 is learned."""
        parts = []
        seen = texts = 0
        for batch in _batches(entities):
            part = self._items.text_tokens(self._items.parse(batch))
            parts.append(part._replace(entity=part.entity + seen, starts=part.starts + texts))
            seen, texts = seen + len(batch), texts + len(part.token)
        return TextTokens(*map(np.concatenate, zip(*parts, strict=True)))

    def encode(self, entities: Sequence[Profile]) -> Encoded:
        """The entities' vectors, in the order given. Entities without usable values are all zero."""
        parts = [self._encode(len(batch), self._items.parse(batch)) for batch in _batches(entities)]
        return parts[0] if len(parts) == 1 else Encoded(*map(np.concatenate, zip(*parts, strict=True)))

    def encode_with_cells(self, entities: Sequence[Profile]) -> tuple[Encoded, OwnCells]:
        """The same, and the cells by which these vectors are found."""
        encoded, cells = [], []
        for batch in _batches(entities):
            items = self._items.parse(batch)
            encoded.append(self._encode(len(batch), items))
            cells.append(self._items.cells(len(batch), items))
        return (
            Encoded(*map(np.concatenate, zip(*encoded, strict=True))),
            OwnCells(*map(np.concatenate, zip(*cells, strict=True))),
        )

    def key_name(self, key: int) -> tuple[str, str] | None:
        """(source, name) of a key id, None for empty and unknown. Reverse relations read `~name`."""
        return self.keys.name(key)

    def unknown_attributes(self, entities: Sequence[Profile]) -> list[dict[int, str]]:
        """Of each entity the attributes that `fit` did not see, by the hashes of their items.

        All of them have one key, which an item tells. Of equal values the first counts.
        """
        alone = [
            (number, name, _Alone(entity.source, {name: entity.attributes[name]}, {}))
            for number, entity in enumerate(entities)
            for name in sorted(entity.attributes, reverse=True)
            if self.keys.attribute(entity.source, name)[0] == UNKNOWN
        ]
        found: list[dict[int, str]] = [{} for _ in entities]
        if alone:
            items = self._items.parse([profile for _, _, profile in alone])
            for place, hashed in zip(items.entity.tolist(), self._items.hashes(items).tolist(), strict=True):
                number, name, _ = alone[place]
                found[number][hashed] = name
        return found

    def unknown_relations(self, entity: Profile) -> Iterator[str]:
        """The relations that `fit` did not see."""
        for name in sorted(entity.relations):
            if self.keys.relation(entity.source, name) == UNKNOWN:
                yield name

    def title(self, entity: Profile) -> str | None:
        """What people may call an entity: its text under the key of largest weight. None without a text."""
        texts = []
        for name, value in entity.attributes.items():
            text = value[0] if isinstance(value, list) and value else value
            key, kind = self.keys.attribute(entity.source, name)
            if isinstance(text, str) and kind in (None, Kind.TEXT, Kind.LIST):
                texts.append((int(self.keys.weights(np.array([key]))[0]), -key, text))
        return max(texts)[-1] if texts else None

    def state(self) -> tuple[npt.NDArray[np.uint8], list[KeyRow]]:
        """What makes this encoder again: (BUCKETS,) token weights in sixteenths, and the keys."""
        return self._weights, self.keys.state()

    @classmethod
    def from_state(cls, weights: npt.NDArray[np.uint8], keys: Sequence[KeyRow], levels: Levels) -> "Encoder":
        """Raises ValueError when the state is not one."""
        return cls(KeyTable.from_state(keys), weights, levels)

    def _encode(self, n: int, items: Items) -> Encoded:
        vectors, learned, hashes = self._items.encode(items, self.levels.tokens)
        is_text = items.text_row >= 0
        weights = self.keys.weights(items.key)
        name = to_int8(_sums(n, items.entity, vectors, weights * is_text))
        level0 = to_int8(_sums(n, items.entity, learned, weights * is_text), LEVEL_NORM)
        values = to_int8(_sums(n, items.entity, vectors, weights * ~is_text))
        item_slots, item_keys, item_hashes = _fill(n, self.keys.ranks(items.key), items, vectors, hashes)
        telling = _telling(n, items, weights, hashes)
        words = self._items.words(n, items)
        return Encoded(name, level0, values, item_slots, item_keys, item_hashes, telling, words)


def rarity_weights(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.uint8]:
    """Token weights in sixteenths from how often each was seen among `total` values.

    Text: inverse document frequency, log2((total + 1) / (count + 1)) / 2 + 1/2. Measures: its square root,
    so that the inner product of two measures is the sum of idf over the cells that they share.
    """
    idf = np.log2((total + 1) / (np.minimum(counts, total) + 1))
    weights = 0.5 + idf / 2
    grid = slice(tokens.TEXT_BUCKETS, None)
    weights[grid] = np.sqrt(idf[grid])
    return np.asarray(np.clip(np.rint(16 * weights), 1, 255), np.uint8)


def _batches(entities: Sequence[Profile]) -> Iterator[Sequence[Profile]]:
    for start in range(0, max(1, len(entities)), BATCH):  # none: one empty batch, which has shapes
        yield entities[start : start + BATCH]


def _sums(
    n: int, entity: npt.NDArray[np.int64], vectors: I8, weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Weighted sums of item vectors by entity, in whole numbers."""
    sums = np.zeros((n, vectors.shape[1]), np.int64)
    used = np.flatnonzero(weights)
    np.add.at(sums, entity[used], vectors[used].astype(np.int64) * weights[used, None])
    return sums


def _fill(
    n: int, ranks: npt.NDArray[np.int64], items: Items, vectors: I8, hashes: npt.NDArray[np.int64]
) -> tuple[I8, npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    """The OWN most useful items of every entity, in canonical order."""
    by_use = np.lexsort((hashes, items.key, ranks, items.entity))
    kept = by_use[_position_in_group(items.entity[by_use]) < OWN]
    kept = kept[np.lexsort((hashes[kept], items.key[kept], items.entity[kept]))]
    slot = (items.entity[kept], _position_in_group(items.entity[kept]))
    slots, keys, slot_hashes = (
        np.zeros((n, OWN, DIM), np.int8),
        np.zeros((n, OWN), np.int16),
        np.zeros((n, OWN), np.int64),
    )
    slots[slot], keys[slot], slot_hashes[slot] = vectors[kept], items.key[kept], hashes[kept]
    return slots, keys, slot_hashes


def _telling(
    n: int, items: Items, weights: npt.NDArray[np.int64], hashes: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The hash of every entity's text of largest weight."""
    text = np.flatnonzero(items.text_row >= 0)
    order = text[np.lexsort((hashes[text], items.key[text], -weights[text], items.entity[text]))]
    first = order[_position_in_group(items.entity[order]) == 0]
    name_hash = np.zeros(n, np.int64)
    name_hash[items.entity[first]] = hashes[first]
    return name_hash


def _position_in_group(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal values."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths)
