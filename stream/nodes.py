"""What is known of every node right now, one row each: the inputs of retrieval and scoring.

A row (its number is the node's *slot*) exists for every entity and for every neighbour that an entity was
sampled with, whether or not that neighbour exists yet. Rows are a function of the graph and the model;
slots are not, so nothing that leaves this process may depend on them.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from index.graph import Nodes
from index.vectors import NOBODY, Slots
from model.encoder import OWN
from model.sampling import SAMPLE
from model.vectors import DIM
from model.words import GATHERED, WORDS

ROW: Final = np.dtype(
    [
        ("node", np.uint64),
        ("exists", np.bool_),
        ("space", np.int32),  # number of (source, type)
        ("degree", np.int64),  # rounded up to a power of two
        ("name", np.int8, DIM),
        ("values", np.int8, DIM),
        ("neighbourhood", np.int8, DIM),
        ("items", np.int8, (OWN, DIM)),
        ("item_keys", np.int16, OWN),
        ("item_hashes", np.int64, OWN),
        ("name_hash", np.int64),
        ("words", np.uint32, WORDS),
        ("near_words", np.uint32, GATHERED),  # its sampled neighbours' rarest words with its own
        ("far_words", np.uint32, GATHERED),  # its sampled neighbours' near words
        ("sample", np.int32, SAMPLE),  # slots, NOBODY where there is none
        ("sample_keys", np.int16, SAMPLE),
        ("own", np.uint64),  # digest of the entity's own values
        ("shown", np.uint64),  # digest of what others see of it
        ("content", np.uint64),  # digest of everything its scores rest on
    ]
)


class NodeTable:
    """Rows by slot. One thread owns it."""

    def __init__(self) -> None:
        self._rows = np.zeros(1024, ROW)
        self._slot_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def rows(self) -> npt.NDArray[np.void]:
        """All rows, dtype `ROW`; writing to a field changes the table."""
        return self._rows[: len(self)]

    @property
    def bytes(self) -> npt.NDArray[np.int8]:
        """All rows as they lie in memory, slot * `ROW.itemsize` bytes from the start."""
        return self._rows.view(np.int8)

    def slots(self, nodes: Iterable[int]) -> Slots:
        """The slots of these nodes; new nodes get a blank row."""
        known, before = self._slot_of, len(self._slot_of)
        found = [known.setdefault(node, len(known)) for node in nodes]
        if len(known) > len(self._rows):
            # no memory before it is written to
            rows = np.zeros(max(2 * len(self._rows), len(known)), ROW)
            rows[:before] = self._rows[:before]
            self._rows = rows
        new = self._rows[before : len(known)]
        new["degree"] = 1
        new["space"] = new["sample"] = NOBODY
        slots = np.array(found, np.int32)
        self._rows["node"][slots] = np.fromiter(nodes, np.uint64, len(found))
        return slots

    def slots_of(self, nodes: Nodes) -> Slots:
        """The same for very many nodes, most of which come often."""
        distinct, place = np.unique(nodes, return_inverse=True)
        return self.slots(distinct.tolist())[place]

    def known(self, nodes: Iterable[int]) -> Slots:
        """The slots of those of these nodes that have a row."""
        get = self._slot_of.get
        return np.array([slot for slot in map(get, nodes) if slot is not None], np.int32)

    def known_of(self, nodes: Nodes, of: npt.NDArray[np.int64]) -> tuple[Slots, npt.NDArray[np.int64]]:
        """The slots of those of (n,) nodes that have a row, and what `of` (n,) says of these."""
        get = self._slot_of.get
        slots = np.array([get(node, NOBODY) for node in nodes.tolist()], np.int32)
        return slots[slots != NOBODY], of[slots != NOBODY]


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
