"""Why a pair is aligned, or is not: what each step of the aligner makes of it, as things stand."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from index.entity import Entity, node_of
from stream.engine.pairs import DIFFERENT, NONE, SAME, PairId, SourcePair
from stream.engine.parts import Parts
from stream.errors import InvalidInput
from stream.events import Evidence, curie, split_curie

Outcome = Literal[
    "aligned",
    "declared-different",  # by a person
    "better-partner",  # one of the two is aligned with it; only where alignment is one to one
    "types-differ",
    "not-a-candidate",  # neither is among the other's nearest
    "below-threshold",
    "waiting",  # the work that would align them is not done yet
]
_VERDICTS: Final = {SAME: "same", NONE: None, DIFFERENT: "different"}


class Closeness(msgspec.Struct, frozen=True):
    """What retrieval knows of a pair in one view."""

    similarity: float  # about -1 to 1, of equal ones 1
    subject_rank: int  # of the subject among the object's nearest, from 1; 0 when it is not among them
    object_rank: int  # of the object among the subject's


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A pair as the state has it."""

    subject_id: str
    subject_category: str  # its type
    object_id: str
    object_category: str
    outcome: Outcome
    score: float | None  # the model's, also of pairs that are no candidates; None between types
    calibrated: bool  # false: training had no links of this type, so that the score only ranks
    threshold: float
    verdict: str | None  # a person's: "same" or "different"
    waits: bool  # one of the two is to be evaluated again, so that all of this may change
    subject_aligned_with: list[str]  # in the object's source
    object_aligned_with: list[str]  # in the subject's source
    model: str  # its id
    views: dict[str, Closeness]
    evidence: Evidence
    names: dict[str, str]  # of the entities that this mentions, by their CURIE, where they have one


def check_pair(name: str, other: str) -> None:
    """Raises InvalidInput unless these are CURIEs of two sources."""
    if split_curie(name)[0] == split_curie(other)[0]:
        raise InvalidInput("one-source", f"{name} and {other} are of one source; entities of two are aligned")


class Explaining:
    """Looks at the parts of an aligner; changes none of them."""

    def __init__(self, parts: Parts) -> None:
        self._graph = parts.graph
        self._links = parts.links
        self._backlog = parts.backlog
        self._retrieval = parts.retrieval
        self._scoring = parts.scoring
        self._deciding = parts.deciding
        self._evidence = parts.evidence
        self._model = parts.drafts.model
        self._calibrated = parts.drafts.calibrated
        self._title = parts.encoder.title

    def pair(self, name: str, other: str) -> Explanation:
        """Of two entities.

        Raises:
            InvalidInput: one does not exist, or both are of one source.
        """
        check_pair(name, other)
        return self._explain(self._entity(name), self._entity(other))

    def pairs_of(self, name: str) -> list[Explanation]:
        """Of an entity and each that is its candidate, aligned with it or judged by a person; best first.

        Raises:
            InvalidInput: it does not exist.
        """
        entity, node = self._entity(name), node_of(name)
        rows = self._retrieval.embedding.table.rows["node"]
        others = [partner for _, partner in self._deciding.known_pairs([node])]
        for _, pairs in self._retrieval.candidates([node]):
            others += [*rows[pairs.left].tolist(), *rows[pairs.right].tolist()]
        others += [end for pair in self._links.around([node]) for end in pair[:2]]
        partners = self._graph.entities([other for other in dict.fromkeys(others) if other != node])
        found = [
            self._explain(entity, partner)
            for partner in partners
            if partner is not None
            and not partner.deleted
            and node_of(curie(partner.source, partner.id)) not in self._backlog.aside
        ]
        return sorted(found, key=lambda each: (each.outcome != "aligned", -(each.score or 0), each.object_id))

    def _entity(self, name: str) -> Entity:
        [entity] = self._graph.entities([node_of(name)])
        if entity is None or entity.deleted:
            if entity is not None:
                raise InvalidInput("unknown-entity", f"there is no {name}: it was deleted")
            raise InvalidInput(
                "unknown-entity",
                f"there is no {name} in this state: it never came, is not applied yet, or is a dead letter "
                "(`sameas dead-letters list`)",
            )
        if node_of(name) in self._backlog.aside:
            raise InvalidInput(
                "set-aside",
                f"{name} cannot be evaluated, and counts as if it did not exist: see the worker's log",
            )
        return entity

    def _explain(self, one: Entity, other: Entity) -> Explanation:
        left, right = sorted((one, other), key=lambda entity: entity.source)
        subject_id, object_id = curie(left.source, left.id), curie(right.source, right.id)
        pair = PairId(node_of(subject_id), node_of(object_id), left.source, right.source)
        standing, is_aligned = self._deciding.standing(pair)
        score, views, is_candidate = None, {}, False
        group = SourcePair(left.type, pair.left_source, pair.right_source)
        if left.type == right.type and group in self._retrieval.lists:
            ends = np.array([pair.left], np.uint64), np.array([pair.right], np.uint64)
            scores, candidates = self._scoring.judge(group, *ends)
            score, is_candidate = float(scores[0]), bool(candidates[0])
            ranks = self._retrieval.ranks(group, pair.left, pair.right)
            views = {
                name: Closeness(round(similarity, 4), subject_rank=rank_of_left, object_rank=rank_of_right)
                for name, (similarity, rank_of_right, rank_of_left) in ranks.items()
            }
        outcome: Outcome = "waiting"
        if is_aligned:
            outcome = "aligned"
        elif standing.verdict == DIFFERENT:
            outcome = "declared-different"
        elif standing.acceptable:
            outcome = "better-partner"
        elif left.type != right.type:
            outcome = "types-differ"
        elif not is_candidate:
            outcome = "not-a-candidate"
        elif score is not None and score < self._deciding.threshold:
            outcome = "below-threshold"
        evidence = self._evidence.build([pair], {pair.left: left, pair.right: right})[0]
        aligned = [
            self._graph.names(self._deciding.partners(node, source, other))
            for node, source, other in (
                (pair.left, pair.left_source, pair.right_source),
                (pair.right, pair.right_source, pair.left_source),
            )
        ]
        near = [
            name for each in evidence.neighbours for name in (each.subject_neighbour, each.object_neighbour)
        ]
        return Explanation(
            subject_id=subject_id,
            subject_category=left.type,
            object_id=object_id,
            object_category=right.type,
            outcome=outcome,
            score=score,
            calibrated=left.type in self._calibrated,
            threshold=self._deciding.threshold,
            verdict=_VERDICTS[standing.verdict],
            waits=any(self._backlog.waits(node) for node in pair[:2]),
            subject_aligned_with=aligned[0],
            object_aligned_with=aligned[1],
            model=self._model,
            views=views,
            evidence=evidence,
            names=self._names([subject_id, object_id, *aligned[0], *aligned[1], *near]),
        )

    def _names(self, mentioned: Sequence[str]) -> dict[str, str]:
        entities = self._graph.entities(map(node_of, mentioned))
        titles = {
            name: self._title(entity)
            for name, entity in zip(mentioned, entities, strict=True)
            if entity is not None and not entity.deleted
        }
        return {name: title for name, title in titles.items() if title is not None}
