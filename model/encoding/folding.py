"""Words without what a spelling may leave out: case, accents, punctuation. In every script.

A combining mark is dropped where it is an accent: on letters of Latin and Greek, and of Cyrillic unless it
makes another letter (и, й). The vowel points of Hebrew, Arabic and Syriac, which most texts leave out, become
one character at the end of their word: so pointed and bare words are alike, and words that only points tell
apart are not equal. Any other mark is a part of its word: vowel signs, viramas, tones, voiced marks.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final, Literal
from zlib import crc32

Class = Literal["mark", "accented", "cyrillic", "pointed", "other", ""]  # the last for what is in no word

BRACKETS: Final = "\x02\x03"  # around a part that was in brackets
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "’": "", "'": ""}
    | {"׳": "", "ـ": "", "ک": "ك", "ی": "ي"}  # geresh, tatweel; kaf and yeh of Persian keyboards
)
_CLASSES: Final[tuple[tuple[Class, int, int], ...]] = (  # all other letters are `other`
    *(("accented", first, last) for first, last in ((0, 0x3FF), (0x1D00, 0x1DBF), (0x1E00, 0x2BFF))),
    *(("accented", first, last) for first, last in ((0x2C60, 0x2C7F), (0xA700, 0xA7FF), (0xAB30, 0xAB6F))),
    *(("cyrillic", first, last) for first, last in ((0x400, 0x52F), (0x1C80, 0x1C8F), (0xA640, 0xA69F))),
    *(("pointed", first, last) for first, last in ((0x590, 0x77F), (0x860, 0x8FF))),
)
_BEYOND_GREEK: Final = "\u0400"
_NOT_WORD_RE: Final = re.compile(rf"[^\w{BRACKETS}]|_")
_ACCENTED_CYRILLIC: Final = "ѐёѝ"  # of one character, and yet е and и with an accent
_PRIVATE, _PRIVATE_CHARS = 0xE000, 0x1900
_JOINERS: Final = "\u200c\u200d"
_LOOKS: Final = ((0x34F, 0x34F), (0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))  # of a letter


@lru_cache(maxsize=8192)
def fold(text: str) -> str:
    """The words in lower case, and a space for each character that is in none."""
    decomposed = unicodedata.normalize("NFKD", text).casefold().translate(_LETTERS)
    if max(decomposed, default="") < _BEYOND_GREEK:  # the same as below, and faster
        return _NOT_WORD_RE.sub(" ", "".join(c for c in decomposed if not unicodedata.combining(c)))
    folded: list[str] = []
    points = ""  # of the present word
    base, kind = " ", _class(" ")  # of the last character that is no mark
    for char in decomposed:
        of_char = _class(char)
        if of_char == "mark":
            if kind == "pointed":
                points += char
            elif kind == "other":
                folded.append("" if _is_in(char, _LOOKS) else char)
            elif kind == "cyrillic" and (letter := _letter(base, char)):
                folded[-1] = letter
            else:
                folded.append("" if unicodedata.combining(char) else " ")
        elif kind != "other" or char not in _JOINERS:
            base, kind = char, of_char
            if not kind:
                folded.append(_digest(points))
                points = ""
            folded.append(_plain(char) if kind else char if char in BRACKETS else " ")
    return "".join([*folded, _digest(points)])


@lru_cache(maxsize=8192)
def _class(char: str) -> Class:
    if unicodedata.category(char)[0] == "M":
        return "mark"
    if not char.isalnum():
        return ""
    return next((kind for kind, first, last in _CLASSES if first <= ord(char) <= last), "other")


def _plain(char: str) -> str:
    """Digits of every script as those of ASCII."""
    return str(unicodedata.decimal(char)) if char.isdecimal() else char


def _letter(base: str, mark: str) -> str:
    """What the two are together, if that is another letter; else nothing."""
    letter = unicodedata.normalize("NFC", base + mark)
    return letter if len(letter) == 1 and letter not in _ACCENTED_CYRILLIC else ""


def _digest(points: str) -> str:
    """One character, of those for private use, that stands for all points of a word."""
    return chr(_PRIVATE + crc32(points.encode()) % _PRIVATE_CHARS) if points else ""


def _is_in(char: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(char) <= last for first, last in ranges)
