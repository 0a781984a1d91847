"""What people see: lines on stderr, and tables of alignments."""

import sys
from collections.abc import Iterable

from stream.events import AlignmentRecord

MAX_VALUE_CHARS = 24


def tell(text: str) -> None:
    """A line for people, on stderr."""
    print(f"sameas: {text}", file=sys.stderr, flush=True)


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
        pair = f"{shown(attribute.subject_value)} ~ {shown(attribute.object_value)}"
        yield f"{attribute.subject_attribute}: {pair}"
    for neighbour in record.evidence.neighbours[: max(0, most - len(record.evidence.attributes))]:
        yield f"{neighbour.subject_relation}: {neighbour.subject_neighbour} ~ {neighbour.object_neighbour}"


def shown(value: object) -> str:
    """A value from somebody's catalogue, shortened and without what steers a terminal."""
    text = "".join(sign if sign.isprintable() else "�" for sign in str(value)[: 2 * MAX_VALUE_CHARS])
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"
