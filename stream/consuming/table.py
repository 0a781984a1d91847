"""Alignments as lines of a table, for people to read."""

from collections.abc import Iterable

from stream.console import compared, shown
from stream.events import AlignmentRecord

HEADER = f"{'what':<9}  {'score':>5}  {'subject':<32}  {'object':<32}  why"


def row(what: str, record: AlignmentRecord) -> str:
    """One alignment as a line under `HEADER`."""
    return (
        f"{what:<9}  {record.confidence:>5.3f}  {record.subject_id:<32}  {record.object_id:<32}  "
        f"{'; '.join(_reasons(record))}"
    )


def withdrawn_row(subject_id: str, object_id: str) -> str:
    """A pair that is no longer aligned, as a line under `HEADER`."""
    return f"{'withdrawn':<9}  {'':>5}  {subject_id:<32}  {object_id:<32}"


def _reasons(record: AlignmentRecord, most: int = 3) -> Iterable[str]:
    for attribute in record.evidence.attributes[:most]:
        values = shown(attribute.subject_value), shown(attribute.object_value)
        yield compared(attribute.subject_attribute, values[0], attribute.object_attribute, values[1])
    for neighbour in record.evidence.neighbours[: max(0, most - len(record.evidence.attributes))]:
        ends = neighbour.subject_neighbour, neighbour.object_neighbour
        yield compared(neighbour.subject_relation, ends[0], neighbour.object_relation, ends[1])
