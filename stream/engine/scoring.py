"""Step 8: candidate pairs to scores, and what the model looked at."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.graph import GraphStore, Nodes
from index.search.arrays import Mask, Pairs, Slots
from index.search.threads import start
from model.encoding.encoder import Encoder
from model.scoring.comparing import I64
from model.scoring.scorer import DenseScorer
from model.shapes import OWN
from stream.engine.embedding import Embedding
from stream.engine.pair_inputs import slots_of_pairs
from stream.engine.pairs import FoundPairs, PairScores, SourcePair
from stream.engine.retrieval import Retrieval

SCORE_CHUNK: Final = 2048  # pairs gathered and scored together, 11 ms: a share for a thread
EVIDENCE: Final = 6  # compared values and neighbours that a record names
WEIGHT_DIGITS: Final = 2
LEAST_WEIGHT: Final = 0.01  # of what was compared


class Seen(NamedTuple):
    """One thing that the model saw of an entity: an attribute, or a neighbour over a relation."""

    name: str  # of the attribute or relation, '' if the model does not know it
    neighbour: int | None
    item: int = 0  # of an attribute the hash of its value


class Attention(NamedTuple):
    """Two things that the model compared, with their share of its attention."""

    left: Seen
    right: Seen
    weight: float


class Scoring:
    """The attention model over what retrieval found."""

    def __init__(
        self,
        embedding: Embedding,
        retrieval: Retrieval,
        encoder: Encoder,
        scorer_of: Callable[[str], DenseScorer],
    ) -> None:
        self.scored = 0  # pairs, since the start
        self._embedding = embedding
        self._retrieval = retrieval
        self._encoder = encoder
        self._scorer_of = scorer_of  # by type

    def score(self, found: Iterable[FoundPairs]) -> list[PairScores]:
        """Scores of these pairs; 0 for those that are no candidates any more."""
        rows = self._embedding.table.rows
        scored, started = [], []
        for part in found:
            pair, pairs = part
            scores = np.zeros(len(pairs.left))
            # of the type that they have now: the lists of a former type know nothing of them
            for current, places in self._retrieval.by_type(part):
                scorer = self._scorer_of(current.type)
                for first in range(0, len(places), SCORE_CHUNK):
                    chosen = places[first : first + SCORE_CHUNK]
                    context, is_candidate = self._retrieval.context(
                        current, Pairs(pairs.left[chosen], pairs.right[chosen])
                    )
                    chosen = chosen[is_candidate]
                    left, right, numbers = slots_of_pairs(
                        self._embedding.table, Pairs(pairs.left[chosen], pairs.right[chosen])
                    )
                    work = partial(scorer.score, left, right, numbers, context[is_candidate])
                    started.append((scores, chosen, start(work)))  # while the next are gathered
            self.scored += len(scores)
            nodes = rows["node"][pairs.left], rows["node"][pairs.right]
            scored.append(PairScores(pair.left, pair.right, *nodes, scores))
        for scores, chosen, scoring in started:
            scores[chosen] = scoring.result()
        return scored

    def dropped(
        self,
        stored: Sequence[tuple[int, int]],
        found: Iterable[FoundPairs],
        graph: GraphStore,
        aside: Container[int] = (),
    ) -> list[PairScores]:
        """Those of the stored pairs that are no candidates, reported or not, with score 0.

        Args:
            stored: (node, partner).
            found: with all candidate pairs of these nodes.
            aside: nodes of entities that count as if they did not exist.
        """
        if not stored:
            return []
        table = self._embedding.table
        concerned = np.zeros(len(table), bool)
        concerned[table.known(node for node, _ in stored)] = True
        candidates: set[tuple[int, int]] = set()
        for part in found:
            here = concerned[part.pairs.left] | concerned[part.pairs.right]
            candidates.update(
                zip(*(table.rows["node"][side[here]].tolist() for side in part.pairs), strict=True)
            )
        entities = graph.entities(node for pair in stored for node in pair)
        dropped = []
        for number, (node, partner) in enumerate(stored):
            one, other = entities[2 * number : 2 * number + 2]
            if one is None or other is None:
                continue
            # `found` has pairs that were candidates until now
            gone = one.deleted or other.deleted or node in aside or partner in aside
            if not gone and {(node, partner), (partner, node)} & candidates:
                continue
            (left_source, left), (right_source, right) = sorted([(one.source, node), (other.source, partner)])
            ends = np.array([left], np.uint64), np.array([right], np.uint64)
            dropped.append(PairScores(left_source, right_source, *ends, np.zeros(1)))
        return dropped

    def judge(self, pair: SourcePair, left: Nodes, right: Nodes) -> tuple[npt.NDArray[np.float64], Mask]:
        """(P,) scores of pairs whether or not they are candidates, and (P,) whether they are."""
        pairs, context, is_candidate = self._look_at(pair, left, right)
        inputs = *slots_of_pairs(self._embedding.table, pairs), context
        return self._scorer_of(pair.type).score(*inputs), is_candidate

    def explain(self, pair: SourcePair, left: Nodes, right: Nodes) -> list[list[Attention]]:
        """What the model looked at in each of P pairs, most attention first.

        Nothing where the first entities of two sources still wait: then there are no lists to rank them by.
        """
        if pair not in self._retrieval.lists:
            return [[] for _ in left]
        pairs, context, _ = self._look_at(pair, left, right)
        inputs = *slots_of_pairs(self._embedding.table, pairs), context
        partners, weights = self._scorer_of(pair.type).attention(*inputs)
        # coarse: a record is revised by every change that it shows
        weights = np.where(partners >= 0, np.maximum(weights, LEAST_WEIGHT).round(WEIGHT_DIGITS), 0)
        order = np.argsort(-weights, axis=1, kind="stable")[:, :EVIDENCE]
        every = np.arange(len(order))[:, None]
        is_shown = weights[every, order] > LEAST_WEIGHT
        is_shown[:, 0] = weights[every[:, 0], order[:, 0]] > 0  # the first, however little it got
        row, rank = np.nonzero(is_shown)
        place = order[row, rank]
        one = self._seen(pairs.left[row], place)
        other = self._seen(pairs.right[row], partners[row, place])
        looks: list[list[Attention]] = [[] for _ in left]
        for number, *look in zip(row.tolist(), one, other, weights[row, place].tolist(), strict=True):
            looks[number].append(Attention(*look))
        return looks

    def _look_at(
        self, pair: SourcePair, left: Nodes, right: Nodes
    ) -> tuple[Pairs, npt.NDArray[np.float32], Mask]:
        """The slots of P pairs, (P, C) their context, and (P,) whether they are candidates."""
        table = self._embedding.table
        pairs = Pairs(table.slots(left.tolist()), table.slots(right.tolist()))
        return pairs, *self._retrieval.context(pair, pairs)

    def _seen(self, slots: Slots, places: I64) -> Iterator[Seen]:
        """What stands at these places of entities."""
        rows, is_own = self._embedding.table.rows, places < OWN
        own, around = np.where(is_own, places, 0), np.where(is_own, 0, places - OWN)
        keys = np.where(is_own, rows["item_keys"][slots, own], rows["sample_keys"][slots, around])
        neighbours = rows["node"][rows["sample"][slots, around]]
        columns = keys, neighbours, rows["item_hashes"][slots, own], is_own
        for key, neighbour, item, inside in zip(*map(np.ndarray.tolist, columns), strict=True):
            named = self._encoder.key_name(key)
            yield Seen("" if named is None else named[1], None if inside else neighbour, item)
