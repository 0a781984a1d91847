"""An alignment record, for tests that ask for a few of its fields."""

from typing import Any

from stream.events import AlignmentRecord, Cause, Evidence, alignment_key


def aligned_pair(subject_id: str, object_id: str, **more: Any) -> AlignmentRecord:
    """The record of a pair that the model aligned; `more` are fields that are to be otherwise."""
    fields: dict[str, Any] = {
        "record_id": alignment_key(subject_id, object_id),
        "mapping_justification": "semapv:SemanticSimilarityThresholdMatching",
        "confidence": 0.9,
        "mapping_tool_version": "0",
        "mapping_date": "2026-01-01",
        "revision": 1,
        "model": "m",
        "cause": Cause("t", 0, 0),
        "evidence": Evidence(),
    }
    return AlignmentRecord(subject_id=subject_id, object_id=object_id, **(fields | more))
