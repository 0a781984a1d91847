"""Arrays that search takes and gives: slots, vectors, similarities, hits and pairs."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from index.compiled import compiled

Slots = npt.NDArray[np.int32]  # numbers of nodes in this process; the keys of indexes
Rows = npt.NDArray[np.int32]  # of an index; -1 for a key that is not in it
Int8s = npt.NDArray[np.int8]
Vectors = npt.NDArray[np.integer[Any]]  # as one kind of index takes them
Sims = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Order = npt.NDArray[np.uint64]

MISSING: Final = -1
UNREACHABLE: Final = 1 << 30  # a bound above every similarity


class Nearest(NamedTuple):
    """For each of Q queries its nearest rows, best first, equal ones by the order; MISSING at the end."""

    keys: Slots  # (Q, k)
    sims: Sims  # (Q, k)


class Hits(NamedTuple):
    """Flat matches: row `query[i]` of the queries met `key[i]` with similarity `sim[i]`."""

    query: npt.NDArray[np.int64]
    key: Slots
    sim: Sims


@compiled
def no_hits() -> Any:
    """Room for the columns of `Hits`, of which none is used."""
    return np.empty(1024, np.int64), np.empty(1024, np.int32), np.empty(1024, np.int32)


NO_HITS: Final = Hits(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32))


def grown(array: Any, size: int) -> Any:
    """The array with room for `size` rows; what is not written to takes no memory."""
    if size <= len(array):
        return array
    larger = np.zeros((max(16, 2 * size), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


Number = TypeVar("Number", bound=np.generic)


class Pairs(NamedTuple):
    """P pairs of slots."""

    left: Slots
    right: Slots


def sorted_distinct(arrays: Sequence[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """All numbers of all arrays, each once, in order.

    A merge of what is sorted already: two orders of magnitude faster than np.unique, which hashes.
    """
    numbers = np.concatenate(arrays)
    numbers.sort(kind="stable")
    return numbers[np.append(True, numbers[1:] != numbers[:-1])] if len(numbers) else numbers
