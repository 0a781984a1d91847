"""Why a pair scored as it did: the values and neighbours that the model looked at."""

from collections.abc import Iterable, Mapping

from index.entity import Entity, Scalar, Value
from stream.engine.scoring import Attention
from stream.events import AttributeEvidence, Evidence, NeighbourEvidence

SHOWN_CHARS, SHOWN_VALUES = 1000, 20  # of a text, and of a list, in evidence


def evidence_of(
    left: Entity, right: Entity, looks: Iterable[Attention], names: Mapping[int, str]
) -> Evidence:
    evidence = Evidence([], [])
    for one, other, weight in looks:
        if one.neighbour is not None and other.neighbour is not None:
            evidence.neighbours.append(
                NeighbourEvidence(one.name, names[one.neighbour], other.name, names[other.neighbour], weight)
            )
        elif one.neighbour is None and other.neighbour is None:
            value, other_value = left.attributes.get(one.name), right.attributes.get(other.name)
            if value is not None and other_value is not None:
                evidence.attributes.append(
                    AttributeEvidence(one.name, _shown(value), other.name, _shown(other_value), weight)
                )
    return evidence


def _shown(value: Value) -> Value:
    """A value as evidence shows it: two large entities together must not make a record too large to send."""
    if isinstance(value, list):
        return [_shown_text(part) for part in value[:SHOWN_VALUES]]
    return _shown_text(value)


def _shown_text(value: Scalar) -> Scalar:
    return f"{value[:SHOWN_CHARS]}..." if isinstance(value, str) and len(value) > SHOWN_CHARS else value
