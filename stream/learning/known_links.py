"""Known links: reading them, splitting them for training and validation, and judging pairs by them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import xxhash

from stream.errors import InvalidInput
from stream.events import split_curie

VALID_SHARE: Final = 0.2  # of the links, if none are given for validation

LinkPair = tuple[str, str]


def read_links(path: Path) -> list[LinkPair]:
    """Links from a CSV file with the columns `left,right` of CURIEs.

    Raises:
        InvalidInput: the file cannot be read, lacks a column or holds something that is no CURIE.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput("bad-links", f"{path}: {error}") from error
    links = []
    for number, row in enumerate(rows, start=2):
        left, right = row.get("left"), row.get("right")
        if left is None or right is None:
            raise InvalidInput("bad-links", f"{path}, line {number}: the columns left,right are expected")
        if split_curie(left)[0] == split_curie(right)[0]:
            raise InvalidInput("bad-links", f"{path}, line {number}: {left} and {right} are of one source")
        links.append((left, right))
    return links


def split_links(links: Sequence[LinkPair]) -> tuple[list[LinkPair], list[LinkPair]]:
    """Links to train on, and a fifth of them to validate with. The left entity alone decides which."""
    parts: tuple[list[LinkPair], list[LinkPair]] = [], []
    for link in links:
        parts[uniform(link[0]) < VALID_SHARE].append(link)
    return parts


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
