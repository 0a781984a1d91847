"""Quality over stream time: the alignments against the known links, again and again while the stream goes by.

Prequential: what is measured at a point rests on nothing but the messages before it. A link counts as soon as
both of its entities exist. Points stand where a share of the messages is read and the backlog
drained, so they are a function of the topics and the model.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from index.errors import StateError
from stream.atomic import replace
from stream.engine.aligner import Aligner
from stream.events import UNDECODABLE, AlignmentRecord
from stream.learning.known_links import KnownLinks, LinkPair

POINTS: Final = 20  # in a run; the backlog is drained at each


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The alignments at one moment. precision = correct / (correct + wrong); recall = correct / links."""

    position: int  # messages
    time: float  # of the stream, seconds since the epoch
    aligned: int  # pairs
    links: int  # with two entities that exist
    correct: int  # of these, aligned
    wrong: int  # other pairs of a link's left entity with an entity of its right one's source

    @property
    def precision(self) -> float:
        """1 if nothing is aligned, as everywhere."""
        accepted = self.correct + self.wrong
        return self.correct / accepted if accepted else 1.0

    @property
    def recall(self) -> float:
        return self.correct / self.links if self.links else 0.0

    @property
    def f1(self) -> float:
        total = self.correct + self.wrong + self.links
        return 2 * self.correct / total if total else 0.0


class Timeline:
    """The points of a run, in a JSON Lines file that is always whole. Raises StateError if unreadable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            text = path.read_bytes() if path.exists() else b""
            self.points = msgspec.json.Decoder(Point).decode_lines(text)
        except (OSError, *UNDECODABLE) as error:
            raise StateError(f"{path}: {error}; `sameas replay remove` forgets the run") from error

    def add(self, point: Point) -> None:
        self.points.append(point)
        try:
            replace(self._path, b"".join(msgspec.json.encode(known) + b"\n" for known in self.points))
        except OSError as error:
            raise StateError(f"{self._path} cannot be written: {error.strerror}") from error


def measure(aligner: Aligner, links: Sequence[LinkPair], position: int, time: float) -> Point:
    """The alignments of a drained aligner against the links."""
    exist = aligner.exist(name for link in links for name in link)
    present = [link for number, link in enumerate(links) if exist[2 * number] and exist[2 * number + 1]]
    known = KnownLinks(present)
    decode = msgspec.json.Decoder(AlignmentRecord).decode
    records = (decode(value) for _, value in aligner.records())
    judged = Counter(known.judge(record.subject_id, record.object_id) for record in records)
    return Point(
        position=position,
        time=time,
        aligned=judged.total(),
        links=len(set(present)),
        correct=judged[True],
        wrong=judged[False],
    )
