"""Step 8: candidate pairs to scores, and what the model looked at."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.candidates import NOBODY, Pairs
from index.graph import Nodes
from index.vectors import Slots
from model.dense import DenseScorer
from model.encoder import OWN, Encoder
from model.pairs import PairInputs, Side, with_degree
from model.sampling import SAMPLE
from model.vectors import DIM
from stream.deciding import ScoredPairs
from stream.nodes import NodeTable
from stream.retrieval import Found, Retrieval, SourcePair

SCORE_CHUNK: Final = 2048  # pairs gathered at once: about 40 MB
EVIDENCE: Final = 6  # compared values and neighbours that a record names


class Seen(NamedTuple):
    """One thing that the model saw of an entity: an attribute, or a neighbour over a relation."""

    name: str  # of the attribute or relation, '' if the model does not know it
    neighbour: int | None


class Attention(NamedTuple):
    """Two things that the model compared, with their share of its attention."""

    left: Seen
    right: Seen
    weight: float


class Scoring:
    """The attention model over what retrieval found."""

    def __init__(self, retrieval: Retrieval, encoder: Encoder, scorer: DenseScorer) -> None:
        self.scored = 0  # pairs, since the start
        self._retrieval = retrieval
        self._encoder = encoder
        self._scorer = scorer

    def score(self, found: Iterable[Found]) -> list[ScoredPairs]:
        """Scores of these pairs; 0 for those that are no candidates any more."""
        rows = self._retrieval.table.rows
        scored = []
        for pair, pairs in found:
            scores = np.zeros(len(pairs.left))
            for first in range(0, len(scores), SCORE_CHUNK):
                chunk = Pairs(*(slots[first : first + SCORE_CHUNK] for slots in pairs))
                context, chosen = self._retrieval.context(pair, chunk)
                inputs = pair_inputs(
                    self._retrieval.table, Pairs(chunk.left[chosen], chunk.right[chosen]), context[chosen]
                )
                scores[first : first + SCORE_CHUNK][chosen] = self._scorer.score(inputs)
            self.scored += len(scores)
            nodes = rows["node"][pairs.left], rows["node"][pairs.right]
            scored.append(ScoredPairs(pair.left, pair.right, *nodes, scores))
        return scored

    def explain(self, pair: SourcePair, left: Nodes, right: Nodes) -> list[list[Attention]]:
        """What the model looked at in each of P pairs, most attention first."""
        table = self._retrieval.table
        pairs = Pairs(table.slots(left.tolist()), table.slots(right.tolist()))
        inputs = pair_inputs(table, pairs, self._retrieval.context(pair, pairs)[0])
        partners, weights = self._scorer.attention(inputs)
        order = np.argsort(-weights, axis=1, kind="stable")[:, :EVIDENCE]
        return [
            [
                Attention(
                    self._seen(pairs.left[row], place),
                    self._seen(pairs.right[row], int(partners[row, place])),
                    float(weights[row, place]),
                )
                for place in order[row].tolist()
                if partners[row, place] >= 0
            ]
            for row in range(len(left))
        ]

    def _seen(self, slot: int, place: int) -> Seen:
        rows = self._retrieval.table.rows
        if place < OWN:
            key, neighbour = int(rows["item_keys"][slot, place]), None
        else:
            key = int(rows["sample_keys"][slot, place - OWN])
            neighbour = int(rows["node"][rows["sample"][slot, place - OWN]])
        named = self._encoder.key_name(key)
        return Seen("" if named is None else named[1], neighbour)


def pair_inputs(table: NodeTable, pairs: Pairs, context: npt.NDArray[np.float32]) -> PairInputs:
    """What the model sees of P pairs: their own values, their sampled neighbours, and the context (P, C)."""
    return PairInputs(_side(table, pairs.left), _side(table, pairs.right), context)


def _side(table: NodeTable, slots: Slots) -> Side:
    rows = table.rows
    sample = rows["sample"][slots]
    here = (sample != NOBODY) & rows["exists"][sample]
    neighbours = sample[here]
    shape = (len(slots), OWN + SAMPLE)
    side = Side(
        np.zeros((*shape, DIM), np.int8),
        np.zeros((*shape, DIM), np.int8),
        np.zeros(shape, np.int16),
        np.zeros(shape, np.int64),
    )
    side.vec[:, :OWN] = rows["items"][slots]
    side.key[:, :OWN] = rows["item_keys"][slots]
    side.hash[:, :OWN] = rows["item_hashes"][slots]
    side.vec[:, OWN:][here] = rows["name"][neighbours]
    side.nbr[:, OWN:][here] = rows["neighbourhood"][neighbours]
    side.key[:, OWN:][here] = rows["sample_keys"][slots][here]
    side.hash[:, OWN:][here] = with_degree(rows["name_hash"][neighbours], rows["degree"][neighbours])
    return side
