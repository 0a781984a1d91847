"""From decisions to what goes out: alignment records, their tombstones, and alignment events with evidence.

Invariant: the store holds the record of every aligned pair as it was last put into the outbox. A record is
a function of the graph, the links and the model, its date aside, so that every run over the same log ends
with the same records; an event goes out only where the record changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Literal

import msgspec
import xxhash

from index import tables
from index.entity import Entity, node_key
from index.graph import GraphStore
from index.store import Store
from stream.engine.deciding import Deciding, Decision, Standing
from stream.engine.evidence import EvidenceBuilder
from stream.engine.interface import EvidenceDetail, Output
from stream.engine.links import LinkStore, StoredLink
from stream.engine.pairs import SAME, PairId
from stream.events import (
    TOOL_VERSION,
    AlignmentEvent,
    AlignmentRecord,
    Cause,
    Evidence,
    alignment_key,
    curie,
    split_curie,
)

# A record is revised, and sent, by every change that it shows.
CONFIDENCE_DIGITS = 4
EventKind = Literal["aligned", "revised", "withdrawn"]


@dataclass
class Difference:
    """What records that take the place of others change, in pairs."""

    former: int = 0  # that were aligned
    changed: int = 0
    withdrawn: int = 0

    @property
    def share_withdrawn(self) -> float:
        """Of all that were aligned."""
        return self.withdrawn / max(self.former, 1)


class Records:
    """Keeps the records of aligned pairs. Writes are pending until the store commits."""

    def __init__(
        self,
        store: Store,
        graph: GraphStore,
        links: LinkStore,
        deciding: Deciding,
        evidence: EvidenceBuilder,
        model: str,
        detail: EvidenceDetail = "full",
    ) -> None:
        self._store = store
        self._graph = graph
        self._links = links
        self._deciding = deciding
        self._evidence = evidence
        self._detail = detail
        self.model = model
        self._decode = msgspec.json.Decoder(AlignmentRecord).decode

    def outputs(self, decisions: Sequence[Decision]) -> list[Output]:
        """Records and events for the pairs whose record is not what it was."""
        stored = self._store.get_many([_key(decision.pair) for decision in decisions])
        aligned = [
            (decision.pair, decision.standing) for decision in decisions if decision.standing is not None
        ]
        current = dict(zip((pair for pair, _ in aligned), self._build(aligned), strict=True))
        changed: dict[PairId, tuple[AlignmentRecord | None, AlignmentRecord | None]] = {}
        for decision, raw in zip(decisions, stored, strict=True):
            old = None if raw is None else self._decode(raw)
            new = current.get(decision.pair)
            if _differ(old, new):
                changed[decision.pair] = (old, new)
        outputs: list[Output] = []
        for (pair, (old, new)), mark in zip(changed.items(), self._count(changed), strict=True):
            if new is not None:
                self._store.put(_key(pair), msgspec.json.encode(new))
                outputs += _announce("aligned" if old is None else "revised", new, mark)
            elif old is not None:
                self._store.delete(_key(pair))
                outputs += self._withdrawal(pair, old, mark)
        return outputs

    def supersede(self, former: "Records", mark: str, difference: Difference) -> Iterator[list[Output]]:
        """For each pair where these records say something else than `former`: what to publish.

        A pair that is no longer aligned is withdrawn in the name of this model.

        Args:
            difference: is counted in.
        """
        sides = (_marked(0, former.scan()), _marked(1, self.scan()))
        for key, group in groupby(merge(*sides), key=itemgetter(0)):
            said = {side: self._decode(value) for _, side, value in group}
            old, new = said.get(0), said.get(1)
            difference.former += old is not None
            if not _differ(old, new):
                continue
            difference.changed += 1
            difference.withdrawn += new is None
            if new is not None:
                yield _announce("aligned" if old is None else "revised", new, mark)
            elif old is not None:
                left, right = (int.from_bytes(key[at : at + 8], "big") for at in (1, 9))
                sources = [split_curie(name)[0] for name in (old.subject_id, old.object_id)]
                yield self._withdrawal(PairId(left, right, *sources), old, mark)

    def scan(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record under its key in the store, in the order of these keys."""
        yield from self._store.scan(tables.RECORDS)

    def all(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every record."""
        for _, value in self.scan():
            record = self._decode(value)
            yield alignment_key(record.subject_id, record.object_id).encode(), value

    def _count(self, pairs: Iterable[PairId]) -> list[str]:
        """How many events each pair had before, as a mark: a neighbour that goes, comes back and goes again
        revises the pair twice in the same way, with the same cause."""
        keys = [tables.EVENTS + _key(pair)[1:] for pair in pairs]
        counts = [int.from_bytes(raw or b"", "big") for raw in self._store.get_many(keys)]
        for key, count in zip(keys, counts, strict=True):
            self._store.put(key, (count + 1).to_bytes(4, "big"))
        return [f"after {count}" if count else "" for count in counts]

    def _withdrawal(self, pair: PairId, old: AlignmentRecord, mark: str) -> list[Output]:
        # what took the pair apart: a change of one of the two, or of the partner that one has now
        rivals = [
            *self._deciding.partners(pair.left, pair.left_source, pair.right_source),
            *self._deciding.partners(pair.right, pair.right_source, pair.left_source),
        ]
        entities = self._graph.entities([pair.left, pair.right, *rivals])
        cause = _newest([entity for entity in entities if entity is not None], self._links.get(pair))
        key = alignment_key(old.subject_id, old.object_id).encode()
        # without evidence: this log is kept when the values that stood there may have been erased
        last = msgspec.structs.replace(
            old, cause=cause, mapping_date=_today(), model=self.model, evidence=Evidence()
        )
        return [Output("alignments", key, None), _event("withdrawn", key, last, mark)]

    def _build(self, aligned: Sequence[tuple[PairId, Standing]]) -> list[AlignmentRecord]:
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
            mapping_tool_version=TOOL_VERSION,
            mapping_date=_today(),
            revision=left.offset + right.offset + 2 + (0 if link is None else link.cause.offset + 1),
            model=self.model,
            cause=_newest([left, right], link),
            evidence=evidence,
        )


def _marked(side: int, records: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, int, bytes]]:
    return ((key, side, value) for key, value in records)


def _differ(old: AlignmentRecord | None, new: AlignmentRecord | None) -> bool:
    """Whether two records of a pair say something else; the date they were made on does not count."""
    if old is None or new is None:
        return old is not new
    return msgspec.structs.replace(new, mapping_date=old.mapping_date) != old


def _newest(entities: Iterable[Entity], link: StoredLink | None) -> Cause:
    """The newest input that the pair itself rests on."""
    causes = [(entity.timestamp, Cause(entity.topic, entity.partition, entity.offset)) for entity in entities]
    if link is not None:
        causes.append((link.timestamp, link.cause))
    return max(causes)[1]


def _announce(kind: EventKind, record: AlignmentRecord, mark: str) -> list[Output]:
    key = alignment_key(record.subject_id, record.object_id).encode()
    return [Output("alignments", key, msgspec.json.encode(record)), _event(kind, key, record, mark)]


def _event(kind: EventKind, key: bytes, record: AlignmentRecord, mark: str) -> Output:
    """The event of a record; its id is made of what caused it, so a redelivery produces the same.

    What caused it may be no input but a new generation, which is named by `mark`; and what was caused may
    have happened to the pair before, which a mark tells, too.
    """
    made_of = (
        kind,
        key,
        record.model,
        record.revision,
        record.confidence,
        *msgspec.structs.astuple(record.cause),
        *([mark] if mark else []),
    )
    event = AlignmentEvent(
        **{name: getattr(record, name) for name in AlignmentRecord.__struct_fields__},
        event=kind,
        event_id=xxhash.xxh3_128_hexdigest(repr(made_of).encode()),
    )
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id,
        "ce_source": "sameas",
        "ce_type": f"sameas.alignment.{kind}",
        "ce_time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "content-type": "application/json",
    }
    encoded = [(name, text.encode()) for name, text in headers.items()]
    return Output("alignment_events", key, msgspec.json.encode(event), encoded)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _key(pair: PairId) -> bytes:
    return tables.RECORDS + node_key(pair.left) + node_key(pair.right)
