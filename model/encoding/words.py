"""Which words two entities share, wherever they stand: for values in the wrong column, and for long texts.

An entity's *words* are the rarest distinct words of all of its texts, and what it measures (numbers, dates,
durations, prices), also where such a thing stands inside a text. Those with a digit tell apart what is alike
otherwise (part two, version 3, 2:41 minutes), so they are counted for themselves.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.encoding.values import MAX_TEXT_CHARS, Kind, find_dates, measure

WORDS: Final = 24  # of an entity: the rarest ones
GATHERED: Final = 32  # of an entity and those around it: the rarest ones
FEATURES: Final = 11
# the least weight of a gathered word (`model/encoding/encoder.py:rarity_weights`)
_UNCOMMON: Final = np.uint32(40)
_WEIGHT: Final = np.uint32(0xFF)
_DIGIT: Final = np.uint32(0x100)
_CLOCK_RE: Final = re.compile(r"(?<![\d:])\d{1,3}:[0-5]\d(?::[0-5]\d)?(?![\d:])")

Packed = npt.NDArray[np.uint32]  # from the highest bit: 23 of the hash, 1 has a digit, 8 weight; 0 is nothing


class FoundWords(NamedTuple):
    """m words of n entities; a word of an entity may come more than once."""

    entity: npt.NDArray[np.int64]  # (m,)
    hash: npt.NDArray[np.uint64]  # (m,)
    digit: npt.NDArray[np.bool_]  # (m,)
    weight: npt.NDArray[np.uint8]  # (m,)


def embedded(text: str) -> Iterator[tuple[Kind, float]]:
    """Dates and durations inside the part of a text that is looked at."""
    text = text[:MAX_TEXT_CHARS]
    if not any(map(str.isdigit, text)):
        return
    for days in find_dates(text):
        yield Kind.DATE, days
    for clock in _CLOCK_RE.findall(text):
        seconds = measure(Kind.DURATION, clock)
        if seconds is not None:
            yield Kind.DURATION, seconds


def pack(n: int, found: FoundWords) -> Packed:
    """(n, WORDS) the rarest words of n entities, equal weights by hash; sorted, so a function of the set."""
    word = (found.hash >> np.uint64(41)).astype(np.uint32) << np.uint32(9)
    word |= np.where(found.digit, _DIGIT, np.uint32(0)) | found.weight
    order = np.lexsort((word, ~found.weight, found.entity))
    entity, word = found.entity[order], word[order]
    first = np.ones(len(word), bool)
    first[1:] = (word[1:] != word[:-1]) | (entity[1:] != entity[:-1])
    entity, word = entity[first], word[first]
    rank = np.arange(len(entity)) - np.searchsorted(entity, entity)
    kept = rank < WORDS
    packed = np.zeros((n, WORDS), np.uint32)
    packed[entity[kept], rank[kept]] = word[kept]
    return packed


@compiled
def gather(words: Any, members: Any) -> Any:
    """(B, GATHERED) the rarest words of B groups, each once and in ascending order: sparse vectors.

    A word that more than one of sixteen values has is left out: every query would look it up. So is one
    with a digit, and with that all measures: a price that changes would reach entities two steps away.

    Args:
        words: (n, any number) words of n entities, 0 for none.
        members: (B, M) which entities are in each group, negative for none.
    """
    out = np.zeros((len(members), GATHERED), np.uint32)
    found = np.empty(members.shape[1] * words.shape[1], np.uint32)
    for b in range(len(members)):
        count = 0
        for member in members[b]:
            if member < 0:
                continue
            for word in words[member]:
                weight = word & _WEIGHT
                if weight >= _UNCOMMON and not word & _DIGIT:
                    found[count] = weight << np.uint32(24) | word >> np.uint32(8)  # the rarest is the largest
                    count += 1
        _sort(found, count)
        kept = 0
        for i in range(count - 1, -1, -1):
            packed = np.uint32(found[i] << np.uint32(8) | found[i] >> np.uint32(24))
            known = False
            for other in out[b, :kept]:
                known |= other >> np.uint32(8) == packed >> np.uint32(8)
            if not known:
                out[b, kept] = packed
                kept += 1
                if kept == GATHERED:
                    break
        _sort(out[b], kept)
    return out


@compiled
def _sort(numbers: Any, count: Any) -> None:
    """Sorts the first `count` of (n,) numbers, some hundred, in place. NumPy's sort takes 2 s to compile."""
    gap = 1
    while gap < count:
        gap = 3 * gap + 1
    while gap > 1:
        gap //= 3
        for i in range(gap, count):
            number, at = numbers[i], i
            while at >= gap and numbers[at - gap] > number:
                numbers[at] = numbers[at - gap]
                at -= gap
            numbers[at] = number


@compiled
def overlap(left: Any, right: Any, left_of: Any, right_of: Any) -> Any:
    """What P pairs of entities (n, WORDS) share: (P, FEATURES) float32.

    For words without a digit, then for those with one: the share by weight of the left ones that the right
    entity has, and the other way; the weight of the rarest shared one; of the rarest that only the left has,
    and only the right. Last, the share of all words by weight that both have (Jaccard).

    Args:
        left_of, right_of: (P,) which entities of `left` and `right`.
    """
    out = np.zeros((len(left_of), FEATURES), np.float32)
    found = np.empty(WORDS, np.bool_)
    total = np.empty((2, 2), np.int64)  # by digit, then side
    shared = np.empty(2, np.int64)
    rarest = np.empty((2, 3), np.int64)  # by digit: of both, left alone, right alone
    for p in range(len(left_of)):
        a, b = left[left_of[p]], right[right_of[p]]
        found[:], total[:], shared[:], rarest[:] = False, 0, 0, 0
        for i in range(WORDS):
            if a[i] == 0:
                break
            digit, weight = np.int64(a[i] >> np.uint32(8) & np.uint32(1)), np.int64(a[i] & np.uint32(255))
            total[digit, 0] += weight
            kind = 1
            for j in range(WORDS):
                if a[i] == b[j]:
                    found[j] = True
                    kind = 0
                    shared[digit] += weight
                    break
            rarest[digit, kind] = max(rarest[digit, kind], weight)
        for j in range(WORDS):
            if b[j] == 0:
                break
            digit, weight = np.int64(b[j] >> np.uint32(8) & np.uint32(1)), np.int64(b[j] & np.uint32(255))
            total[digit, 1] += weight
            if not found[j]:
                rarest[digit, 2] = max(rarest[digit, 2], weight)
        for part in range(2):
            for side in range(2):
                if total[part, side]:
                    out[p, 5 * part + side] = shared[part] / total[part, side]
            for which in range(3):
                out[p, 5 * part + 2 + which] = rarest[part, which] / 255
        both = shared[0] + shared[1]
        if total.sum() > both:
            out[p, 10] = both / (total.sum() - both)
    return out
