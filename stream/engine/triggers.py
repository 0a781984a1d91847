"""What made an alignment change, where neither entity nor a verdict did: for events, never for records.

While nothing waits, all records rest on all messages. So whatever changes later comes from messages since:
an entity near the pair has one, or the change came from further away. Which of several messages it was is
a matter of order, so a record, which is a function of the graph, cannot tell.
"""

import numpy as np

from index.graph import GraphStore
from index.search.arrays import MISSING, Slots
from stream.engine.origin import Origin
from stream.engine.pairs import PairId
from stream.engine.retrieval import Retrieval
from stream.events import Cause, Trigger


class Triggers:
    """Looks around a pair for what has changed since nothing waited."""

    def __init__(self, graph: GraphStore, retrieval: Retrieval, origin: Origin) -> None:
        self._graph = graph
        self._retrieval = retrieval
        self._origin = origin
        self._settled = origin.settled()

    def settle(self) -> None:
        """Nothing waits. Pending until the store commits."""
        self._settled = self._origin.settle()

    def is_new(self, cause: Cause) -> bool:
        """Whether it was applied since nothing waited."""
        return cause.offset >= self._settled.get((cause.topic, cause.partition), 0)

    def around(self, pair: PairId, cause: Cause) -> Trigger:
        """The newest new message about a neighbour or its neighbours, else the pair, else a candidate.

        Args:
            cause: the newest of the pair itself. Its effects may come back from around it, in a later batch.
        """
        own = self._retrieval.embedding.table.known(pair[:2])
        near = self._sampled(own)
        for slots in (near, self._sampled(near)):
            if (found := self._newest(slots, own)) is not None:
                return Trigger("neighbour", found)
        if self.is_new(cause):
            return Trigger("input", cause)
        ends = [end for _, pairs in self._retrieval.candidates(pair[:2]) for end in pairs]
        if ends and (found := self._newest(np.unique(np.concatenate(ends)), own)) is not None:
            return Trigger("candidate", found)
        return Trigger("unknown")

    def _sampled(self, slots: Slots) -> Slots:
        sampled = self._retrieval.embedding.table.rows["sample"][slots]
        return np.unique(sampled[sampled != MISSING])

    def _newest(self, slots: Slots, but: Slots) -> Cause | None:
        nodes = self._retrieval.embedding.table.rows["node"][np.setdiff1d(slots, but)]
        entities = [entity for entity in self._graph.entities(nodes.tolist()) if entity is not None]
        found = [(each.timestamp, Cause(each.topic, each.partition, each.offset)) for each in entities]
        return max(((at, cause) for at, cause in found if self.is_new(cause)), default=(0.0, None))[1]
