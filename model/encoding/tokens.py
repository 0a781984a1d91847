"""Values to hashed tokens, many at once: no Python per token.

A token is a bucket in [0, BUCKETS). Text takes the first TEXT_BUCKETS, measures (numbers, dates, positions)
the rest. All hashes are polynomials modulo 2^64 over the value's own units, so a value's tokens do not
depend on what else is in the buffer.

The units of a text are the bytes of Latin letters and digits in UTF-8, and the letters of any other script,
whose bytes say little more than which script it is. A Han character is two units, since two make a name.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from index.compiled import compiled
from model.encoding.folding import fold
from model.encoding.values import MAX_TEXT_CHARS

BUCKETS = 1 << 17
GRID_BUCKETS = 1 << 15
TEXT_BUCKETS = BUCKETS - GRID_BUCKETS
MAX_TEXT_UNITS = 256  # of one value, after normalisation: what follows is not compared
GRAMS = (2, 3, 4)

# Widths of the grids on which a measure is placed: each about three times the one before, from a hundredth
# of a unit up. Whole numbers have no cell below 1. Every width has SHIFTS grids, shifted by fractions of a
# cell, so the share of common cells falls linearly with the distance at each width, and with its logarithm
# over all of them.
WIDTHS = np.array([w * 10.0**e for e in range(-2, 7) for w in (1, 3)])
WHOLE = int(np.searchsorted(WIDTHS, 1.0))
SHIFTS = 3
POSITION_WIDTHS_KM = np.array([1.0, 3, 10, 30, 100, 300, 1000])
POSITION_SHIFTS = 5

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bags = tuple[I64, I64]  # buckets, and for every value where its buckets start

_BASE = 0x9E3779B97F4A7C15 | 1  # odd: invertible modulo 2^64
_OPEN, _CLOSE, _SPACE = 2, 3, 0x20
_ASCII = bytes(
    ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else (_SPACE if c < 128 else c) for c in range(256)
)
_ASCII_BRACKETS = bytes(c if c in (_OPEN, _CLOSE) else t for c, t in enumerate(_ASCII))
_FIRST_LEAD = 0xCC  # of U+0300 in UTF-8: what is before is Latin
_LATIN = ((0x1D00, 0x2BFF), (0x2C60, 0x2C7F), (0xA700, 0xA7FF), (0xAB30, 0xAB6F))
_HAN = ((0x2E80, 0x2FFF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_BRACKETS_RE = re.compile(r"\(([^()\x02\x03]*)\)")


def normalise(text: str) -> bytes:
    """Lower-case words without accents and punctuation, separated by bytes up to 0x20, at most 256 units.

    A bracketed part stays, between the bytes 2 and 3: it distinguishes, but it is not the name.
    """
    text = text[:MAX_TEXT_CHARS].replace("\x02", " ").replace("\x03", " ")
    brackets = "(" in text
    if brackets:
        text = _BRACKETS_RE.sub("\x02\\1\x03", text)
    if text.isascii():
        words = text.encode().translate(_ASCII_BRACKETS if brackets else _ASCII, b"'")
    else:
        words = fold(text).encode(errors="ignore")
    return cut(words)


def cut(words: bytes) -> bytes:
    """At most 256 units of a normalised text, brackets closed: an open one would reach into the next text."""
    if len(words) <= MAX_TEXT_UNITS:
        return words
    starts = np.flatnonzero(_units(np.frombuffer(words, np.uint8))[1])
    if len(starts) <= MAX_TEXT_UNITS:
        return words
    words = words[: starts[MAX_TEXT_UNITS]]
    return words + b"\x03" if words.count(b"\x02") > words.count(b"\x03") else words


class Texts:
    """Normalised texts in one buffer: their n-grams, words, and one hash for each.

    Args:
        texts: results of `normalise`.
    """

    def __init__(self, texts: Sequence[bytes]) -> None:
        joined = b" " + b" ".join(texts) + b" "
        units, begins = _units(np.frombuffer(joined, np.uint8))
        separator = units <= _SPACE
        self._count = len(texts)
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        starts = np.cumsum(lengths + 1) - lengths  # of every text, after the separator
        self._starts = (np.cumsum(begins) - 1)[starts]
        self._units = np.where(separator, np.uint64(_SPACE), units)
        self._letter = ~separator
        power, self._inverse = _powers(_round_up(len(units)))
        self._prefix = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self._units * power[: len(units)])])
        depth = np.cumsum(units == _OPEN, dtype=np.int32) - np.cumsum(units == _CLOSE, dtype=np.int32)
        self._letter_outside = self._letter & (depth == 0)
        before = np.concatenate([[False], self._letter[:-1]])
        self._word_starts = np.flatnonzero(self._letter & ~before)
        self._word_ends = np.flatnonzero(~self._letter & before)
        self._outside = depth[self._word_starts] == 0
        self._word_hashes = mix(self._hash(self._word_starts, self._word_ends))

    def grams(self, n: int) -> Bags:
        """All windows of n units within words; one separator at either end counts as a letter."""
        last = len(self._units) - n + 1
        inside = self._letter[1 : 1 + last].copy() if n > 2 else self._letter[:last] | self._letter[1:][:last]
        for k in range(2, n - 1):
            inside &= self._letter[k : k + last]
        starts = np.flatnonzero(inside)
        buckets = _bucket(mix(self._hash(starts, starts + n) + np.uint64(n)), 0, TEXT_BUCKETS)
        # A window may begin at the separator before its text.
        return buckets, np.searchsorted(starts, self._starts - 1)

    def words(self) -> Bags:
        """Whole words."""
        buckets = _bucket(mix(self._word_hashes + np.uint64(1)), 0, TEXT_BUCKETS)
        return buckets, np.searchsorted(self._word_starts, self._starts)

    def word_list(self) -> tuple[I64, U64, npt.NDArray[np.bool_], I64]:
        """Every word: its text, hash, whether it has a digit, and its bucket among `words`."""
        text = np.searchsorted(self._starts, self._word_starts, side="right") - 1
        digits = np.concatenate([[0], np.cumsum((self._units >= ord("0")) & (self._units <= ord("9")))])
        has_digit = digits[self._word_ends] > digits[self._word_starts]
        return text, self._word_hashes, has_digit, self.words()[0]

    def hashes(self) -> tuple[U64, I64]:
        """For every text a hash of its words in any order, and the number of their letters.

        Words in brackets do not count unless there are no others, so 'Khaled, Rawhiyya (I)' and
        'Rawhiyya Khaled' are equal. A text without words has hash 0.
        """
        inside = self._word_sums(np.where(self._outside, np.uint64(0), self._word_hashes))
        outside = self._word_sums(np.where(self._outside, self._word_hashes, np.uint64(0)))
        letters, letters_outside = self._letters(self._letter), self._letters(self._letter_outside)
        return np.where(outside != 0, outside, inside), np.where(outside != 0, letters_outside, letters)

    def _letters(self, flags: npt.NDArray[np.bool_]) -> I64:
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(flags)])
        ends = np.append(self._starts[1:], len(flags))
        return np.asarray(total[ends] - total[self._starts], np.int64)

    def _word_sums(self, per_word: U64) -> U64:
        total = np.concatenate([np.zeros(1, np.uint64), np.cumsum(per_word)])
        bounds = np.append(np.searchsorted(self._word_starts, self._starts), len(per_word))
        return np.asarray(total[bounds[1:]] - total[bounds[:-1]], np.uint64)

    def _hash(self, starts: I64, ends: I64) -> U64:
        return np.asarray((self._prefix[ends] - self._prefix[starts]) * self._inverse[starts], np.uint64)


def _units(raw: npt.NDArray[np.uint8]) -> tuple[U64, npt.NDArray[np.bool_]]:
    """The units (u,) of texts in UTF-8 (b,), and which of the bytes begin one (b,)."""
    units, begins = raw.astype(np.uint64), np.ones(len(raw), bool)
    at = np.flatnonzero(raw >= _FIRST_LEAD)
    if not len(at):
        return units, begins
    lead = units[at]
    width = 2 + (lead >= 0xE0).astype(np.int64) + (lead >= 0xF0)
    tail = np.append(units, np.zeros(3, np.uint64))[at[:, None] + np.arange(1, 4)]
    inside = np.arange(1, 4) < width[:, None]
    letter = ((tail >> np.uint64(6) == 2) | ~inside).all(axis=1)  # a Latin one may have been cut
    code = lead & (np.uint64(0x7F) >> width.astype(np.uint64))
    for k in range(3):
        code = np.where(inside[:, k], code << np.uint64(6) | tail[:, k] & np.uint64(0x3F), code)
    for first, last in _LATIN:
        letter &= (code < first) | (code > last)
    at, code, inside = at[letter], code[letter], inside[letter]
    units[at] = code
    begins[(at[:, None] + np.arange(1, 4))[inside]] = False
    han = np.any([(code >= first) & (code <= last) for first, last in _HAN], axis=0)
    units[at[han]] |= np.uint64(1 << 32)
    units[at[han] + 1] = code[han]
    begins[at[han] + 1] = True
    return units[begins], begins


def grid_tokens(kinds: npt.NDArray[np.uint64], measures: F64) -> I64:
    """Cells of measures (m,) on all grids, (m, G) buckets; -1 where a whole number has no cell."""
    measures = np.clip(measures, -1e300, 1e300)  # so that no quotient overflows
    cells = np.floor(measures[:, None, None] / WIDTHS[:, None] + np.arange(SHIFTS) / SHIFTS) + 0.0
    grid = np.arange(len(WIDTHS) * SHIFTS, dtype=np.uint64)
    salted = mix(kinds[:, None] << np.uint64(32) | grid)
    flat = cells.reshape(len(cells), len(grid))
    buckets = _bucket(mix(np.ascontiguousarray(flat).view(np.uint64) ^ salted), TEXT_BUCKETS, GRID_BUCKETS)
    whole = measures == np.floor(measures)
    buckets[whole, : WHOLE * SHIFTS] = -1
    return buckets


def position_tokens(positions: F64) -> I64:
    """Cells of positions (m, 3), in kilometres, on shifted cubic grids: (m, G) buckets."""
    count = len(POSITION_WIDTHS_KM) * POSITION_SHIFTS
    hashes = np.arange(count, dtype=np.uint64)[None] + np.uint64(1 << 40)
    # The plastic number's powers spread the three shifts of each grid evenly (Roberts, R3 sequence).
    shifts = np.arange(1, POSITION_SHIFTS + 1)[:, None] * np.array([0.8191725, 0.6710436, 0.5497005]) % 1.0
    for axis in range(3):
        scaled = positions[:, None, None, axis] / POSITION_WIDTHS_KM[:, None] + shifts[:, axis]
        cells = (np.floor(scaled) + 0.0).reshape(len(positions), count)
        hashes = mix(hashes ^ np.ascontiguousarray(cells).view(np.uint64))
    return _bucket(hashes, TEXT_BUCKETS, GRID_BUCKETS)


def value_buckets(hashes: U64, text: bool) -> I64:
    """The bucket that counts how often a whole value was seen: the rarity of a value."""
    low, size = (0, TEXT_BUCKETS) if text else (TEXT_BUCKETS, GRID_BUCKETS)
    return _bucket(mix(hashes ^ np.uint64(0x5DEECE66D)), low, size)


def mix(hashes: U64) -> U64:
    """The finaliser of splitmix64 (Steele et al. 2014), elementwise."""
    return np.asarray(_mix(hashes), np.uint64)


@compiled
def _mix(h: Any) -> Any:
    h = h + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _bucket(hashes: U64, low: int, size: int) -> I64:
    high = (hashes >> np.uint64(32)) * np.uint64(size) >> np.uint64(32)
    return np.asarray(high.astype(np.int64) + low, np.int64)


def _round_up(length: int) -> int:
    return 1 << max(16, length.bit_length())


@cache
def _powers(length: int) -> tuple[U64, U64]:
    """Powers 0..length-1 of the base and of its inverse, modulo 2^64."""
    base = np.full(length, _BASE, np.uint64)
    inverse = np.full(length, pow(_BASE, -1, 1 << 64), np.uint64)
    base[0] = inverse[0] = 1
    return np.multiply.accumulate(base), np.multiply.accumulate(inverse)
