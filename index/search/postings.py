"""A multimap of 32-bit numbers in a few arrays, for compiled loops: words, and the values posted under each.

Words are in an open hash table; a word's values lie together in one pool, with room for some more. Values
that outgrow their room move to the end of the pool and leave a hole; when the pool is full, everything is
copied to a new one without holes.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled

Numbers = npt.NDArray[np.uint32]

_FEWEST: Final = 64  # places of a table


class Table(NamedTuple):
    """Where the values of each word lie, by the place of the word."""

    word: Numbers  # plus 1; 0 for a free place
    start: npt.NDArray[np.int32]  # in the pool
    held: npt.NDArray[np.int32]  # values
    room: npt.NDArray[np.int32]
    pool: Numbers
    used: npt.NDArray[np.int64]  # (2,) places, and numbers of the pool


class Postings:
    """Values under words. A value may be posted once under a word; a word is less than 2^32 - 1."""

    def __init__(self) -> None:
        self.table = _table(_FEWEST, 1024)

    def add(self, words: Numbers, values: Numbers) -> None:
        """Posts each value under the word at the same place; it must not be there yet."""
        done = 0
        while (done := _add(self.table, words, values, done)) < len(words):
            self._grow()

    def remove(self, words: Numbers, values: Numbers) -> None:
        """Removes each value from under the word at the same place; it must be there."""
        _remove(self.table, words, values)

    def find(self, words: Numbers) -> tuple[npt.NDArray[np.int64], Numbers]:
        """All values under these words: for each the place of its word in `words`, and the value."""
        found: tuple[npt.NDArray[np.int64], Numbers] = _find(self.table, words)
        return found

    def _grow(self) -> None:
        """Makes room for more. Words without values are forgotten."""
        old = self.table
        words = int((old.held > 0).sum())
        room = int(_room(old.held[old.held > 0]).sum(dtype=np.int64))
        places = max(_FEWEST, 1 << (3 * words + 1).bit_length())
        # a quarter more than is taken, and room for the largest word to move
        self.table = _table(places, room + room // 4 + int(_room(old.room.max())) + 1024)
        _copy(old, self.table)


def _table(places: int, room: int) -> Table:
    start, held, free = (np.zeros(places, np.int32) for _ in range(3))
    return Table(
        np.zeros(places, np.uint32), start, held, free, np.zeros(room, np.uint32), np.zeros(2, np.int64)
    )


@compiled(inline="always")
def _room(values: Any) -> Any:
    """The room that a word with so many values gets when it moves."""
    return values + values // 2 + 1


@compiled(inline="always")
def place_of(words: Any, word: Any) -> Any:
    """The place of a word in a table, or the one that it would get."""
    mask = np.uint32(len(words) - 1)
    stored = np.uint32(word + np.uint32(1))
    place = np.uint32(stored * np.uint32(2654435761)) >> np.uint32(7) & mask
    while words[place] != 0 and words[place] != stored:
        place = (place + np.uint32(1)) & mask
    return np.int64(place)


@compiled
def _add(table: Any, words: Any, values: Any, done: Any) -> Any:
    """Posts from `done` on while there is room; returns how many are done."""
    word, start, held, room, pool, used = table
    for i in range(done, len(words)):
        if 2 * (used[0] + 1) > len(word):
            return i
        place = place_of(word, words[i])
        if held[place] == room[place]:
            more = _room(room[place])
            if used[1] + more > len(pool):
                return i
            for p in range(held[place]):
                pool[used[1] + p] = pool[start[place] + p]
            start[place], room[place] = used[1], more
            used[1] += more
        if word[place] == 0:
            word[place] = words[i] + np.uint32(1)
            used[0] += 1
        pool[start[place] + held[place]] = values[i]
        held[place] += 1
    return len(words)


@compiled
def _remove(table: Any, words: Any, values: Any) -> None:
    word, start, held, _, pool, _ = table
    for i in range(len(words)):
        place = place_of(word, words[i])
        at, last = start[place], start[place] + held[place] - 1
        while pool[at] != values[i]:
            at += 1
        pool[at] = pool[last]
        held[place] -= 1


@compiled
def _find(table: Any, words: Any) -> tuple[Any, Any]:
    word, start, held, _, pool, _ = table
    total = 0
    for i in range(len(words)):
        total += held[place_of(word, words[i])]
    places, values = np.empty(total, np.int64), np.empty(total, np.uint32)
    found = 0
    for i in range(len(words)):
        place = place_of(word, words[i])
        for p in range(start[place], start[place] + held[place]):
            places[found], values[found] = i, pool[p]
            found += 1
    return places, values


@compiled
def _copy(old: Any, new: Any) -> None:
    """Everything that is posted, into an empty table, without holes."""
    for at in range(len(old.word)):
        if old.held[at] == 0:
            continue
        place = place_of(new.word, old.word[at] - np.uint32(1))
        new.word[place] = old.word[at]
        new.start[place] = new.used[1]
        new.held[place], new.room[place] = old.held[at], _room(old.held[at])
        for p in range(old.held[at]):
            new.pool[new.used[1] + p] = old.pool[old.start[at] + p]
        new.used[0] += 1
        new.used[1] += new.room[place]
