"""Known links: reading them, splitting them for training and validation, and judging pairs by them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import xxhash

from stream.catalogue.rows import read_rows
from stream.catalogue.sniffing import sniff
from stream.errors import InvalidInput
from stream.events import split_curie

VALID_SHARE: Final = 0.2  # of the links, if none are given for validation

SIDES: Final = ("left", "right")  # the columns of a file of links

LinkPair = tuple[str, str]


class LinkFile(NamedTuple):
    """The links of a file, and the line of each."""

    path: Path
    links: list[LinkPair]
    lines: list[int]

    def numbered(self) -> Iterator[tuple[int, LinkPair]]:
        """The links, each with its line."""
        return zip(self.lines, self.links, strict=True)


def read_links(path: Path) -> LinkFile:
    """Links from a file with the columns `left,right` of CURIEs, read as a catalogue's rows are.

    The file itself shows how its cells are separated, since no mapping says it. Blanks around a CURIE are
    none of it.

    Raises:
        ConfigError: the file cannot be read, has an unknown suffix, or lacks a column.
        InvalidInput: a row cannot be read, or is no pair of CURIEs of two sources.
    """
    found = LinkFile(path, [], [])
    layout = sniff(path)._replace(encoding=None)  # no guess: ids that are read wrong are those of others
    if layout.quoting == "none":  # no CURIE has a quote in it: one that is open is a mistake
        layout = layout._replace(quoting=None)
    for line, row in read_rows(path, SIDES, layout=layout, mapped=SIDES):
        try:
            if isinstance(row, InvalidInput):
                raise row
            left, right = (_name(row[side], side) for side in SIDES)
            if split_curie(left)[0] == split_curie(right)[0]:
                raise InvalidInput("bad-links", f"{left[:80]} and {right[:80]} are of one source")
        except InvalidInput as error:
            raise InvalidInput("bad-links", f"{path}:{line}: {error}") from error
        found.links.append((left, right))
        found.lines.append(line)
    return found


def _name(cell: object, side: str) -> str:
    if not isinstance(cell, str):
        raise InvalidInput("bad-links", f"{side}: a text such as imdb:tt0133093 is expected")
    return cell.strip()


def split_links(links: Sequence[LinkPair]) -> tuple[list[LinkPair], list[LinkPair]]:
    """Links to train on, and a fifth of them to validate with. The left entity alone decides which."""
    parts: tuple[list[LinkPair], list[LinkPair]] = [], []
    for link in links:
        parts[uniform(link[0]) < VALID_SHARE].append(link)
    return parts


def partners(links: Sequence[LinkPair], share: float) -> frozenset[str]:
    """This share of the links' right entities. Without them, their left entities have no partner."""
    return frozenset(right for _, right in links if uniform("absent", right) < share)


def uniform(*words: str) -> float:
    """A number in [0, 1) that depends on the words alone."""
    return xxhash.xxh3_64_intdigest("\0".join(words).encode()) / 2**64


class KnownLinks:
    """Links to judge pairs by, whichever of the two names is given first."""

    def __init__(self, links: Sequence[LinkPair]) -> None:
        self._links = {pair for link in links for pair in (link, link[::-1])}
        self._linked = {(left, split_curie(right)[0]) for left, right in links}

    def judge(self, subject_id: str, object_id: str) -> bool | None:
        """Whether the pair is a link; None if neither is the left entity of one into the other's source."""
        if (subject_id, object_id) in self._links:
            return True
        pairs = ((subject_id, object_id), (object_id, subject_id))
        is_wrong = any((one, split_curie(other)[0]) in self._linked for one, other in pairs)
        return False if is_wrong else None


class LabelledLink(NamedTuple):
    """Two CURIEs, and whether they are the same."""

    left: str
    right: str
    same: bool
