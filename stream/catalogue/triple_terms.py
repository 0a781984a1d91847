"""How deep triple terms (RDF 1.2) are nested, before the parser sees them.

The parser calls itself for each level: a few kilobytes of `<<( s p <<( s p ...` would end the process.
"""

import re
from typing import IO, Final

from stream.errors import InvalidInput

MAX_DEPTH: Final = 64
OPENING: Final = b"<<("
_MARK_BYTES = 3  # of the longest mark; with fewer at hand it is not clear which one it is

# What opens and closes nothing, whole texts, IRIs and comments included: most of a piece, at one go
_PLAIN = re.compile(
    rb"""(?:[^"'<#\\)]++|"(?!""|"?\Z)(?:[^"\\]++|\\.)*+"|<[^<>]*+>|\#[^\r\n]*+[\r\n]|\)(?=[^>]))*+""",
    re.DOTALL,
)
_MARK = re.compile(rb"""<<\(|<<|\)>>|\"""|'''|["'<#)]|\\.""", re.DOTALL)
# What may stand in a text, an IRI or a comment before its end, by what it begins with
_INSIDE = {
    b'"': re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL),
    b"'": re.compile(rb"(?:[^'\\]++|\\.)*+", re.DOTALL),
    b'"""': re.compile(rb'(?:[^"\\]++|\\.|"(?!""|"?\Z))*+', re.DOTALL),
    b"'''": re.compile(rb"(?:[^'\\]++|\\.|'(?!''|'?\Z))*+", re.DOTALL),
    b"<": re.compile(rb"[^>]*+"),
    b"#": re.compile(rb"[^\r\n]*+"),
}
_ENDS = {mark: (mark,) for mark in _INSIDE} | {b"<": (b">",), b"#": (b"\n", b"\r")}


class Nesting:
    """Follows a text in N-Triples or Turtle, piece by piece."""

    def __init__(self) -> None:
        self._depth = 0
        self._inside = b""  # what began the text, IRI or comment in which the last piece ended
        self._rest = b""  # of the last piece: the beginning of a mark

    def follow(self, piece: bytes) -> None:
        """Raises InvalidInput (`too-deep`)."""
        text, at = self._rest + piece, 0
        while True:
            if self._inside:
                at = _end(_INSIDE[self._inside], text, at)
                if not text.startswith(_ENDS[self._inside], at):
                    break
                at += len(self._inside)
                self._inside = b""
            at = _end(_PLAIN, text, at)
            if len(text) - at < _MARK_BYTES:
                break
            after = _end(_MARK, text, at)
            self._take(text[at:after])
            at = after
        self._rest = text[at:]

    def _take(self, mark: bytes) -> None:
        if mark in _INSIDE:
            self._inside = mark
        elif mark == OPENING:
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise InvalidInput("too-deep", f"triple terms are nested deeper than {MAX_DEPTH}")
        elif mark == b")>>":
            self._depth -= 1


class FollowedFile:
    """A file for the parser, which `Nesting` follows."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._nesting = Nesting()

    def read(self, size: int = -1) -> bytes:
        """Raises InvalidInput (`too-deep`)."""
        piece = self._file.read(size)
        self._nesting.follow(piece)
        return piece


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None
    return match.end()
