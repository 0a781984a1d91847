"""How good a model is, against known links."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.checkpoint import Model
from model.errors import ModelError
from model.evaluation import Quality, ScoredPairs, evaluate
from model.training import score
from stream.engine.aligner import Aligner
from stream.engine.parts import candidate_options, usable_model
from stream.events import EntityEvent
from stream.learning.known_links import LinkPair, partners
from stream.learning.workspace import Workspace


@dataclass(frozen=True)
class Evaluation:
    """How good a model is, overall and for each type of entity, and the scored pairs that say so."""

    quality: Quality
    types: Mapping[str, Quality]
    pairs: ScoredPairs
    links_missing: int  # those that name an entity that does not exist; they are lost recall
    alone: int  # left entities that have no partner, since it was left out

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values: the world, those of `quality`, `links_missing`, `alone` and `types`.

        In a "closed" world each left entity has a partner, in an "open" one some have none.
        """
        quality = self.quality.to_json()
        types = {kind: part.to_json() for kind, part in self.types.items()}
        return {
            "world": "open" if self.alone else "closed",
            "links": quality["links"],
            "links_missing": self.links_missing,
            "alone": self.alone,
            **quality,
            "types": types,
        }


def evaluate_model(
    events: Iterable[EntityEvent],
    links: Sequence[LinkPair],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
    alone: float = 0.0,
) -> Evaluation:
    """How good a model is on the graph that the events make, for the left entities of `links`.

    Args:
        alone: the share of the links whose right entity is left out of the graph.

    Raises:
        ModelError: no usable model, or no link between entities that exist.
    """
    _, model = usable_model(checkpoint)
    threshold = model.threshold if threshold is None else threshold
    absent = partners(links, alone)
    with Workspace(events, absent=absent) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        scored = _scored(workspace, model, links)
        present = {*workspace.present(links)}
    if not scored:
        raise ModelError(
            "no link joins entities that exist; check that the links' ids are those of the entities"
        )
    types = {kind: evaluate(pairs, threshold, one_to_one=one_to_one) for kind, pairs in scored.items()}
    parts = [*scored.values()]
    tested = {link for link in links if link[1] not in absent}
    everything = ScoredPairs(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.left for part in parts]),
        np.concatenate([part.right for part in parts]),
        len(tested),  # with those of entities that do not exist: they are lost
    )
    return Evaluation(
        evaluate(everything, threshold, one_to_one=one_to_one),
        types,
        everything,
        links_missing=len(tested - present),
        alone=len({left for left, _ in present} - {left for left, _ in tested}),
    )


def score_links(aligner: Aligner, links: Sequence[LinkPair], checkpoint: Path) -> dict[str, ScoredPairs]:
    """All candidates of the links' left entities in an aligner's graph, scored, by the left entity's type.

    Links with an entity that does not exist are left out.
    """
    _, model = usable_model(checkpoint)
    with Workspace(begin_with=aligner.copy_to) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        return _scored(workspace, model, links)


def _scored(workspace: Workspace, model: Model, links: Sequence[LinkPair]) -> dict[str, ScoredPairs]:
    return {
        kind: score(model.scorer(kind), workspace.labelled(some))
        for kind, some in sorted(workspace.by_type(links).items())
    }
