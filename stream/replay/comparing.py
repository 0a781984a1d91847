"""The differences of two sets of alignments: pairs that are new, gone, or scored otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from stream.engine.evidence import as_shown
from stream.engine.scoring import EVIDENCE
from stream.events import MAX_CURIE_CHARS, AlignmentRecord, AttributeEvidence, Evidence, NeighbourEvidence
from stream.learning.known_links import KnownLinks, LinkPair

_Shown = TypeVar("_Shown", AttributeEvidence, NeighbourEvidence)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One pair: its score and evidence before and after, None where it is not aligned."""

    subject_id: str
    object_id: str
    before: float | None
    after: float | None
    link: bool | None  # whether it is a known link; None if no known link tells
    evidence_before: Evidence | None
    evidence_after: Evidence | None

    @property
    def size(self) -> float:
        return abs((self.after or 0.0) - (self.before or 0.0))


class Comparison(msgspec.Struct, frozen=True):
    """Each list is sorted by falling size of the difference, ties by name."""

    new: list[Difference]
    gone: list[Difference]
    changed: list[Difference]  # aligned on both sides, with another score
    same: int  # pairs with the same score

    def to_json(self, most: int | None = None) -> dict[str, Any]:
        """Numbers, and the `most` largest differences of each list (all, if None)."""
        lists = {name: getattr(self, name) for name in ("new", "gone", "changed")}
        return {
            "same": self.same,
            **{name: len(changes) for name, changes in lists.items()},
            **{
                f"{name}_{word}": sum(change.link is known for change in changes)
                for name, changes in lists.items()
                if name != "changed"
                for word, known in (("right", True), ("wrong", False))
            },
            "largest": {name: msgspec.to_builtins(changes[:most]) for name, changes in lists.items()},
        }


def compare(
    before: Mapping[str, AlignmentRecord],
    after: Mapping[str, AlignmentRecord],
    links: Sequence[LinkPair] = (),
) -> Comparison:
    """Compares alignments by their key; `links` say which of the new and gone ones are right."""
    known = KnownLinks(links)

    def change(key: str) -> Difference:
        old, new = before.get(key), after.get(key)
        record = new or old
        assert record is not None
        return Difference(
            subject_id=record.subject_id,
            object_id=record.object_id,
            before=None if old is None else old.confidence,
            after=None if new is None else new.confidence,
            link=known.judge(record.subject_id, record.object_id),
            evidence_before=None if old is None else _bounded(old.evidence),
            evidence_after=None if new is None else _bounded(new.evidence),
        )

    def ordered(keys: set[str]) -> list[Difference]:
        return sorted(map(change, keys), key=lambda one: (-one.size, one.subject_id, one.object_id))

    both = before.keys() & after.keys()
    changed = {key for key in both if before[key].confidence != after[key].confidence}
    return Comparison(
        ordered(after.keys() - before.keys()),
        ordered(before.keys() - after.keys()),
        ordered(changed),
        len(both) - len(changed),
    )


def _bounded(evidence: Evidence) -> Evidence:
    """As much as there is of it in a worker's own records: a forged one may hold megabytes."""

    def cut(one: _Shown) -> _Shown:
        values = {
            name: value[:MAX_CURIE_CHARS] if isinstance(value, str) else as_shown(value)
            for name, value in msgspec.structs.asdict(one).items()
        }
        return msgspec.structs.replace(one, **values)

    return Evidence(
        [cut(one) for one in evidence.attributes[:EVIDENCE]],
        [cut(one) for one in evidence.neighbours[:EVIDENCE]],
    )
