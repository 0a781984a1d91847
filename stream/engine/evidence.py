"""Why a pair scored as it did: the values and neighbours that the model looked at."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from index.entity import Entity, Scalar, Value, node_of
from index.graph import GraphStore
from model.encoding.encoder import Encoder
from stream.engine.embedding import Embedding
from stream.engine.interface import EvidenceDetail
from stream.engine.pairs import PairId, SourcePair
from stream.engine.scoring import Attention, Scoring, Seen
from stream.events import AttributeEvidence, Evidence, NeighbourEvidence, curie

SHOWN_CHARS, SHOWN_VALUES = 1000, 20  # of a text or of a list's texts together, and of a list, in evidence


class EvidenceBuilder:
    """Puts names and values to what the model looked at."""

    def __init__(self, graph: GraphStore, embedding: Embedding, scoring: Scoring, encoder: Encoder) -> None:
        self._graph = graph
        self._embedding = embedding
        self._scoring = scoring
        self._encoder = encoder

    def build(
        self, pairs: Sequence[PairId], entities: Mapping[int, Entity], detail: EvidenceDetail = "full"
    ) -> list[Evidence]:
        """The evidence of pairs of existing entities, aligned or not.

        Args:
            entities: both entities of every pair, by node.
            detail: with "ids" every value is the empty text.
        """
        if detail == "none":
            return [Evidence() for _ in pairs]
        attention = self._attention(pairs)
        near = dict.fromkeys(
            seen.neighbour
            for looks in attention
            for look in looks
            for seen in (look.left, look.right)
            if seen.neighbour is not None
        )
        names = dict(zip(near, self._graph.names(near), strict=True))
        return [
            _evidence(entities[pair.left], entities[pair.right], looks, names, detail)
            for pair, looks in zip(pairs, self._named(pairs, entities, attention, names), strict=True)
        ]

    def _named(
        self,
        pairs: Sequence[PairId],
        entities: Mapping[int, Entity],
        attention: Sequence[Sequence[Attention]],
        names: Mapping[int, str],
    ) -> Iterator[list[Attention]]:
        """The same with the names of attributes and relations that the model does not know.

        All of them have one key. So a value tells its attribute, and a neighbour the relation, if the entity
        itself has it: what others say of it is no reason to make its records anew.
        """
        looked = [
            (node, seen)
            for pair, looks in zip(pairs, attention, strict=True)
            for look in looks
            for node, seen in zip(pair[:2], look[:2], strict=True)
        ]
        unnamed = list(dict.fromkeys(node for node, seen in looked if not seen.name))
        found = self._encoder.unknown_attributes([entities[node] for node in unnamed])
        attributes = dict(zip(unnamed, found, strict=True))

        def named(node: int, seen: Seen) -> Seen:
            if seen.name:
                return seen
            if seen.neighbour is None:
                return seen._replace(name=attributes[node].get(seen.item, ""))
            entity = entities[node]
            near = _neighbour(seen, entity, names).removeprefix(f"{entity.source}:")
            relations = self._encoder.unknown_relations(entity)
            return seen._replace(name=next((n for n in relations if near in entity.relations[n]), ""))

        for pair, looks in zip(pairs, attention, strict=True):
            yield [
                Attention(named(pair.left, one), named(pair.right, other), share)
                for one, other, share in looks
            ]

    def _attention(self, pairs: Sequence[PairId]) -> list[list[Attention]]:
        """What the model looked at; nothing where a person linked entities of two types."""
        types = [
            self._embedding.types([pair.left for pair in pairs]),
            self._embedding.types([pair.right for pair in pairs]),
        ]
        found: list[list[Attention]] = [[] for _ in pairs]
        groups: dict[SourcePair, list[int]] = {}
        for number, (pair, left, right) in enumerate(zip(pairs, *types, strict=True)):
            if left == right:
                groups.setdefault(SourcePair(left, pair.left_source, pair.right_source), []).append(number)
        for group, numbers in groups.items():
            left, right = (np.array([pairs[n][side] for n in numbers], np.uint64) for side in (0, 1))
            for number, looks in zip(numbers, self._scoring.explain(group, left, right), strict=True):
                found[number] = looks
        return found


def _evidence(
    left: Entity,
    right: Entity,
    looks: Iterable[Attention],
    names: Mapping[int, str],
    detail: EvidenceDetail,
) -> Evidence:
    evidence = Evidence([], [])
    for one, other, weight in looks:
        if one.neighbour is not None and other.neighbour is not None:
            near, other_near = _neighbour(one, left, names), _neighbour(other, right, names)
            if near and other_near:
                evidence.neighbours.append(NeighbourEvidence(one.name, near, other.name, other_near, weight))
        elif one.neighbour is None and other.neighbour is None:
            value, other_value = left.attributes.get(one.name), right.attributes.get(other.name)
            if value is not None and other_value is not None:
                if detail == "ids":
                    value = other_value = ""
                evidence.attributes.append(
                    AttributeEvidence(one.name, as_shown(value), other.name, as_shown(other_value), weight)
                )
    return evidence


def _neighbour(seen: Seen, entity: Entity, names: Mapping[int, str]) -> str:
    """The CURIE of a neighbour. Of one that never came the entity's own relations know it, if not a join.

    Empty if nothing does: the graph has only the hash.
    """
    assert seen.neighbour is not None
    if known := names[seen.neighbour]:
        return known
    own = (target for targets in entity.relations.values() for target in targets)
    targets = (curie(entity.source, target) for target in own)
    return next((target for target in targets if node_of(target) == seen.neighbour), "")


def as_shown(value: Value) -> Value:
    """A value as evidence shows it: two large entities together must not make a record too large to send."""
    if not isinstance(value, list):
        return _shown_text(value, SHOWN_CHARS)
    shown: list[Scalar] = []
    left = SHOWN_CHARS
    for part in value[:SHOWN_VALUES]:
        if left <= 0:
            break
        shown.append(_shown_text(part, left))
        left -= len(str(part))
    return shown


def _shown_text(value: Scalar, most: int) -> Scalar:
    return f"{value[:most]}..." if isinstance(value, str) and len(value) > most else value
