"""Alignments as lines of a table that fits the terminal, for people to read."""

import shutil
from collections.abc import Iterable

from stream.console import compared, fitted, shown, width
from stream.events import AlignmentRecord

MOST_REASONS = 3
LONGEST_ID, SHORTEST_ID = 32, 16  # columns for an id; longer ones are not cut, and take more


def header() -> str:
    """The names of the columns."""
    return _line("what", "score", "subject", "object", "why")


def row(what: str, record: AlignmentRecord) -> str:
    """One alignment as a line under `header`."""
    return _line(
        what,
        f"{record.confidence:.3f}",
        record.subject_id,
        record.object_id,
        "; ".join(_reasons(record)),
    )


def withdrawn_row(subject_id: str, object_id: str) -> str:
    """A pair that is no longer aligned, as a line under `header`."""
    return _line("withdrawn", "", subject_id, object_id, "")


def _line(what: str, score: str, subject: str, object_: str, why: str) -> str:
    line, columns = f"{what:<9}  {score:>5}", shutil.get_terminal_size().columns
    room = min(LONGEST_ID, max(SHORTEST_ID, (columns - len(line)) // 3 - 2))
    for name in (subject, object_):
        line += f"  {name}{' ' * (room - width(name))}"
    return f"{line}  {fitted(why, columns - width(line) - 2)}".rstrip()


def _reasons(record: AlignmentRecord) -> Iterable[str]:
    for attribute in record.evidence.attributes[:MOST_REASONS]:
        values = shown(attribute.subject_value), shown(attribute.object_value)
        yield compared(attribute.subject_attribute, values[0], attribute.object_attribute, values[1])
    for neighbour in record.evidence.neighbours[: max(0, MOST_REASONS - len(record.evidence.attributes))]:
        ends = neighbour.subject_neighbour, neighbour.object_neighbour
        yield compared(neighbour.subject_relation, ends[0], neighbour.object_relation, ends[1])
