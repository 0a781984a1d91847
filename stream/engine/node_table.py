"""What is known of every node right now, one row each: the inputs of retrieval and scoring.

A row (its number is the node's *slot*) exists for every entity and for every neighbour that an entity was
sampled with, whether or not that neighbour exists yet. Rows are a function of the graph and the model;
slots are not, so nothing that leaves this process may depend on them.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from index.graph import Nodes
from index.search.arrays import MISSING, Slots
from model.encoding.words import GATHERED, WORDS
from model.shapes import DIM, LEVEL, OWN, SAMPLE

# What a row has, by name: type of number, and how many.
FIELDS: Final[dict[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "node": (np.uint64, ()),
    "exists": (np.bool_, ()),
    "space": (np.int32, ()),  # number of (source, type)
    "degree": (np.int64, ()),  # rounded up to a power of two
    "name": (np.int8, (DIM,)),
    "level0": (np.int8, (LEVEL,)),
    "values": (np.int8, (DIM,)),
    "level1": (np.int8, (LEVEL,)),
    "levels": (np.int8, (2 * LEVEL,)),  # both joined
    "neighbourhood": (np.int8, (DIM,)),
    "item_keys": (np.int16, (OWN,)),
    "item_hashes": (np.int64, (OWN,)),
    "name_hash": (np.int64, ()),
    "words": (np.uint32, (WORDS,)),
    "near_words": (np.uint32, (GATHERED,)),  # its sampled neighbours' rarest words with its own
    "far_words": (np.uint32, (GATHERED,)),  # its sampled neighbours' near words
    "sample": (np.int32, (SAMPLE,)),  # slots, MISSING where there is none
    "sample_keys": (np.int16, (SAMPLE,)),
    "own": (np.uint64, ()),  # digest of the entity's own values
    "shown": (np.uint64, ()),  # digest of what others see of it
    "content": (np.uint64, ()),  # digest of everything its scores rest on
}
# What an entity says of itself, whatever is around it.
OWN_FIELDS: Final = (
    "exists",
    "space",
    "name",
    "level0",
    "values",
    "item_keys",
    "item_hashes",
    "name_hash",
    "words",
    "own",
)
BLANK: Final = {"degree": 1, "space": MISSING, "sample": MISSING}  # of a new row, where it is not 0
Column = npt.NDArray[Any]


class NodeRows:
    """The rows of a table by field: `rows["name"]` is (rows, DIM). Writing to that changes the table."""

    def __init__(self, columns: Mapping[str, Column], count: int) -> None:
        self._columns = columns
        self._count = count

    def __getitem__(self, field: str) -> Column:
        return self._columns[field][: self._count]

    def __len__(self) -> int:
        return self._count


class NodeTable:
    """Rows by slot, each field in an array of its own. One thread owns it.

    An array has room for more rows than there are; memory that was never written to is not taken.
    """

    def __init__(self) -> None:
        self._slot_of: dict[int, int] = {}
        self._room = 1024
        self._columns: dict[str, Column] = {
            field: np.zeros((self._room, *shape), kind) for field, (kind, shape) in FIELDS.items()
        }
        # The vectors of entities' own values, first ones first: few entities have a last one.
        self.items = np.zeros((OWN, self._room, DIM), np.int8)
        self._items_used = 0

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def rows(self) -> NodeRows:
        """All rows there are now."""
        return NodeRows(self._columns, len(self))

    def with_columns(self, columns: Mapping[str, Column]) -> "NodeTable":
        """The same rows with other columns. What is not given is shared, so neither may change anymore."""
        other = copy.copy(self)
        other._columns = {**self._columns, **columns}
        return other

    def blank(self, slots: Slots) -> None:
        """Empties the rows of entities that do not exist."""
        for field in OWN_FIELDS:
            self.rows[field][slots] = BLANK.get(field, 0)

    def set_items(self, slots: Slots, items: npt.NDArray[np.int8], keys: npt.NDArray[np.int16]) -> None:
        """Vectors (n, OWN, DIM) of values; where the key (n, OWN) is 0 there is none."""
        for place in range(OWN):
            used = keys[:, place] != 0
            if used.any():
                self._items_used = max(self._items_used, place + 1)
                self.items[place, slots[used]] = items[used, place]

    def save(self, directory: Path, slots: Slots) -> None:
        """Writes what these say of themselves into an existing directory: a file for every field."""
        for field in ("node", *OWN_FIELDS):
            np.save(directory / f"{field}.npy", self.rows[field][slots])
        keys = self.rows["item_keys"][slots]
        for place in range(self._items_used):
            np.save(directory / f"items{place}.npy", self.items[place, slots[keys[:, place] != 0]])

    def load(self, directory: Path) -> None:
        """Reads what `save` wrote into an empty table: the first slot is the first that was saved.

        Raises:
            ValueError, OSError: a file is missing, or they do not fit together.
        """
        self.slots(np.load(directory / "node.npy").tolist())
        for field in OWN_FIELDS:
            self.rows[field][:] = np.load(directory / f"{field}.npy")
        used = self.rows["item_keys"] != 0
        self._items_used = int(used.any(axis=0).sum())
        for place in range(self._items_used):
            self.items[place, np.flatnonzero(used[:, place])] = np.load(directory / f"items{place}.npy")

    def _make_room(self, rows: int, before: int) -> None:
        self._room = max(2 * self._room, rows)
        for field, column in self._columns.items():
            larger = np.zeros((self._room, *column.shape[1:]), column.dtype)
            larger[:before] = column[:before]
            self._columns[field] = larger
        items = np.zeros((OWN, self._room, DIM), np.int8)
        items[: self._items_used, :before] = self.items[: self._items_used, :before]
        self.items = items

    def slots(self, nodes: Iterable[int]) -> Slots:
        """The slots of these nodes; new nodes get a blank row."""
        known, before = self._slot_of, len(self._slot_of)
        found = [known.setdefault(node, len(known)) for node in nodes]
        slots = np.array(found, np.int32)
        if len(known) > before:
            if len(known) > self._room:
                self._make_room(len(known), before)
            for field, value in BLANK.items():
                self._columns[field][before : len(known)] = value
            self._columns["node"][slots] = np.fromiter(nodes, np.uint64, len(found))
        return slots

    def known(self, nodes: Iterable[int]) -> Slots:
        """The slots of those of these nodes that have a row."""
        get = self._slot_of.get
        return np.array([slot for slot in map(get, nodes) if slot is not None], np.int32)

    def known_of(self, nodes: Nodes, of: npt.NDArray[np.int64]) -> tuple[Slots, npt.NDArray[np.int64]]:
        """The slots of those of (n,) nodes that have a row, and what `of` (n,) says of these."""
        get = self._slot_of.get
        slots = np.array([get(node, MISSING) for node in nodes.tolist()], np.int32)
        return slots[slots != MISSING], of[slots != MISSING]


def digest(columns: npt.NDArray[np.uint64]) -> Nodes:
    """(n,) the 64-bit XXH3 of each row of (n, m)."""
    rows = np.ascontiguousarray(columns)
    return np.fromiter((xxhash.xxh3_64_intdigest(row) for row in rows), np.uint64, len(rows))


def as_words(array: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    """(n, ...) of any type as (n, words) of 64 bits, padded with zeros."""
    width = array.itemsize * int(np.prod(array.shape[1:]))
    raw = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), width)
    padding = -raw.shape[1] % 8
    if padding:
        raw = np.concatenate([raw, np.zeros((len(raw), padding), np.uint8)], axis=1)
    return raw.view(np.uint64)
