"""What can be said of an aligned pair: its record, drafted from entities, verdict, model and evidence.

A draft is a function of the graph, the links and the model, its date aside. Whether it is published, and
what was published before it, `stream/engine/records.py` knows and this module does not.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
import xxhash

from index.entity import Entity
from index.graph import GraphStore
from stream.engine.deciding import Standing
from stream.engine.evidence import EvidenceBuilder
from stream.engine.interface import EvidenceDetail
from stream.engine.links import LinkStore, StoredLink
from stream.engine.pairs import SAME, PairId
from stream.events import TOOL_VERSION, AlignmentRecord, Cause, Evidence, alignment_key, curie

# A record is revised, and sent, by every change that it shows.
CONFIDENCE_DIGITS: Final = 4


class Drafts:
    """Reads graph and links; changes nothing.

    Args:
        model: its id.
        calibrated: the types whose confidence is calibrated: those that had links in training.
        detail: what of the evidence stands in records.
    """

    def __init__(
        self,
        graph: GraphStore,
        links: LinkStore,
        evidence: EvidenceBuilder,
        model: str,
        calibrated: Container[str],
        detail: EvidenceDetail = "full",
    ) -> None:
        self._graph = graph
        self._links = links
        self._evidence = evidence
        self._detail = detail
        self.model = model
        self.calibrated = calibrated

    def records(self, aligned: Sequence[tuple[PairId, Standing]]) -> list[AlignmentRecord]:
        """The records of pairs of existing entities."""
        nodes = dict.fromkeys(node for pair, _ in aligned for node in pair[:2])
        entities = {
            node: entity
            for node, entity in zip(nodes, self._graph.entities(nodes), strict=True)
            if entity is not None
        }
        pairs = [pair for pair, _ in aligned]
        evidence = self._evidence.build(pairs, entities, self._detail)
        return [
            self._record(pair, standing, entities[pair.left], entities[pair.right], found)
            for (pair, standing), found in zip(aligned, evidence, strict=True)
        ]

    def withdrawn(self, pair: PairId, old: AlignmentRecord, partners: Iterable[int]) -> AlignmentRecord:
        """The record of a pair as its withdrawal tells it.

        Args:
            old: as it was told last.
            partners: the entities that the two are aligned with now.
        """
        # what took the pair apart: a change of one of the two, or of the partner that one has now
        entities = self._graph.entities([pair.left, pair.right, *partners])
        cause = _newest([entity for entity in entities if entity is not None], self._links.get(pair))
        # without evidence: the log of events is kept when the values that stood there may have been erased
        return msgspec.structs.replace(
            old, cause=cause, mapping_date=_today(), model=self.model, evidence=Evidence()
        )

    def _record(
        self, pair: PairId, standing: Standing, left: Entity, right: Entity, evidence: Evidence
    ) -> AlignmentRecord:
        link = self._links.get(pair) if standing.verdict == SAME else None
        key = alignment_key(curie(left.source, left.id), curie(right.source, right.id))
        return AlignmentRecord(
            record_id=f"sameas:{xxhash.xxh3_128_hexdigest(key.encode())}",
            subject_id=curie(left.source, left.id),
            subject_category=left.type,
            object_id=curie(right.source, right.id),
            object_category=right.type,
            mapping_justification="semapv:ManualMappingCuration"
            if link is not None
            else "semapv:SemanticSimilarityThresholdMatching",
            confidence=round(standing.weight[1], CONFIDENCE_DIGITS),
            calibrated=link is not None or left.type in self.calibrated,
            mapping_tool_version=TOOL_VERSION,
            mapping_date=_today(),
            revision=left.offset + right.offset + 2 + (0 if link is None else link.cause.offset + 1),
            model=self.model,
            cause=_newest([left, right], link),
            evidence=evidence,
        )


def _newest(entities: Iterable[Entity], link: StoredLink | None) -> Cause:
    """The newest input that the pair itself rests on."""
    causes = [(entity.timestamp, Cause(entity.topic, entity.partition, entity.offset)) for entity in entities]
    if link is not None:
        causes.append((link.timestamp, link.cause))
    return max(causes)[1]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
