"""What is known of keys: a source's attributes, its relations, and its relations seen from the other end.

Key ids: 0 is an empty slot, 1 a key that `fit` did not see. Ids are given by frequency, most frequent first,
so that an overfull table loses the rarest.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from index.entity import Profile
from model.encoding.values import Kind, recognise, recognise_key, single_degree
from model.shapes import FIRST, UNKNOWN

MAX_KEYS = 16_384
MAX_WEIGHT = 16
UNKNOWN_WEIGHT = 8
RECOGNISED_VALUES = 500  # of one key, before its kind is taken as known
IDENTIFYING_LENGTH = 24  # letters; longer texts weigh less in the name view

Direction = Literal["attribute", "out", "in"]
Key = tuple[str, Direction, str]


class KeyRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A key in a checkpoint; its id is its place there."""

    source: str
    direction: Direction
    name: str
    weight: Annotated[int, msgspec.Meta(ge=1, le=MAX_WEIGHT)]
    kind: str | None = None  # of attributes


class KeyTable:
    """Keys with their ids, kinds, and weights.

    A key's weight (1 to 16) is the share of its values that differ, reduced for long texts; a measure of how
    well a value of it identifies an entity. Its rank orders keys by weight: 0 is the most useful one.
    """

    def __init__(
        self, keys: Sequence[Key], kinds: Mapping[Key, Kind], weights: npt.NDArray[np.int64]
    ) -> None:
        if len(weights) != len(keys) + FIRST:
            raise ValueError(f"{len(weights)} weights for {len(keys)} keys")
        self._keys = list(keys)
        self._ids = {key: number for number, key in enumerate(keys, start=FIRST)}
        self._kinds = dict(kinds)
        self._weights = weights
        self._rank()
        self._seen = np.zeros(len(weights), np.int64)
        self._letters = np.zeros(len(weights), np.int64)
        self._distinct: list[set[int]] = [set() for _ in weights]

    def __len__(self) -> int:
        """How many key ids there are, 0 and 1 included."""
        return len(self._weights)

    @classmethod
    def recognise(cls, entities: Iterable[Profile]) -> "KeyTable":
        """All keys of these entities, each with the kind that most of its values have."""
        frequency: Counter[Key] = Counter()
        votes: dict[Key, Counter[Kind]] = {}
        for entity in entities:
            for name, value in entity.attributes.items():
                key: Key = (entity.source, "attribute", name)
                frequency[key] += 1
                ballot = votes.setdefault(key, Counter())
                if frequency[key] <= RECOGNISED_VALUES:
                    ballot[recognise(single_degree(name, value))] += 1
            for name, targets in entity.relations.items():
                frequency[entity.source, "out", name] += len(targets)
                frequency[entity.source, "in", name] += len(targets)
        kinds = {key: _majority(key[2], ballot) for key, ballot in votes.items()}
        keys = sorted(frequency, key=lambda key: (-frequency[key], key))[:MAX_KEYS]
        return cls(keys, kinds, np.full(len(keys) + FIRST, UNKNOWN_WEIGHT, np.int64))

    def observe(
        self, key: npt.NDArray[np.int64], value: npt.NDArray[np.uint64], letters: npt.NDArray[np.int64]
    ) -> None:
        """Counts values of attributes: key ids, value hashes, lengths, each (m,)."""
        np.add.at(self._seen, key, 1)
        np.add.at(self._letters, key, letters)
        for number, hashed in zip(key.tolist(), value.tolist(), strict=True):
            self._distinct[number].add(hashed)

    def judge(self) -> None:
        """Sets every observed key's weight from what was observed, and forgets the observations."""
        seen = np.maximum(self._seen, 1)
        distinct = np.array([len(values) for values in self._distinct]) / seen
        brevity = np.minimum(1, IDENTIFYING_LENGTH / np.maximum(self._letters / seen, 1))
        judged = np.clip(np.rint(MAX_WEIGHT * distinct * brevity), 1, MAX_WEIGHT).astype(np.int64)
        self._weights = np.where(self._seen > 0, judged, UNKNOWN_WEIGHT)
        self._distinct = [set() for _ in self._weights]
        self._rank()

    def attribute(self, source: str, name: str) -> tuple[int, Kind | None]:
        """Id and kind of an attribute; (1, None) when it is unknown."""
        key: Key = (source, "attribute", name)
        return self._ids.get(key, UNKNOWN), self._kinds.get(key)

    def relation(self, source: str, name: str) -> int:
        """Id of a relation, or of its other end when the name starts with '~'."""
        key: Key = (source, "in", name[1:]) if name.startswith("~") else (source, "out", name)
        return self._ids.get(key, UNKNOWN)

    def name(self, number: int) -> tuple[str, str] | None:
        """(source, name) of an id; None for 0 and 1."""
        if number < FIRST:
            return None
        source, direction, name = self._keys[number - FIRST]
        return source, f"~{name}" if direction == "in" else name

    def relations(self) -> Iterator[tuple[str, str, int]]:
        """(source, name, id) of every relation, seen from its other end as `~name`."""
        for number, (source, direction, name) in enumerate(self._keys, start=FIRST):
            if direction != "attribute":
                yield source, f"~{name}" if direction == "in" else name, number

    def weights(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """1 to 16 for key ids (m,)."""
        return self._weights[key]

    def ranks(self, key: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Order of usefulness for key ids (m,), the most useful first."""
        return self._ranks[key]

    def state(self) -> list[KeyRow]:
        """One row a key, in order of id."""
        return [
            KeyRow(*key, int(self._weights[number]), self._kinds[key].name if key in self._kinds else None)
            for number, key in enumerate(self._keys, start=FIRST)
        ]

    @classmethod
    def from_state(cls, rows: Sequence[KeyRow]) -> "KeyTable":
        """Raises ValueError when these are no rows of `state`."""
        keys: list[Key] = [(row.source, row.direction, row.name) for row in rows]
        if len(set(keys)) < len(keys):
            raise ValueError("encoder.keys: one key is there twice")
        kinds = {}
        for number, (key, row) in enumerate(zip(keys, rows, strict=True)):
            if row.kind is not None:
                if row.kind not in Kind.__members__:
                    raise ValueError(f"encoder.keys[{number}].kind: there is no such kind of value")
                kinds[key] = Kind[row.kind]
        weights = [UNKNOWN_WEIGHT] * FIRST + [row.weight for row in rows]
        return cls(keys, kinds, np.array(weights, np.int64))

    def _rank(self) -> None:
        order = np.lexsort((np.arange(len(self._weights)), -self._weights))
        self._ranks = np.empty(len(order), np.int64)
        self._ranks[order] = np.arange(len(order))


def _majority(name: str, ballot: Counter[Kind]) -> Kind:
    """The most frequent kind; text unless three of four values agree on something else."""
    kind, votes = min(ballot.most_common(), key=lambda entry: (-entry[1], entry[0]))
    if kind is Kind.NUMBER and (half := recognise_key(name)):
        return half
    return kind if votes >= 0.75 * ballot.total() else Kind.TEXT
