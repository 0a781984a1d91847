"""The second half of the aligner: changed scored pairs in, changed alignments out. Knows nothing of vectors.

Pairs are taken greedily by descending score, ties broken by node, each entity once per pair of sources.
That matching is the only one without a *blocking pair*, two entities that score higher together than each
does with its present partner (Gale and Shapley, 1962, with preferences that both sides share). So it does not
depend on the order in which pairs became known, and it can be repaired where something changed: an
entity that lost its partner or gained a chance looks for its best blocking pair, and so does one that is left
by that.

Invariant: the store holds every pair that may be aligned (a score of at least the threshold, or a verdict)
at both of its ends, and the matching of exactly these pairs.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np
import xxhash

from index import tables
from index.entity import node_key
from index.store import Store
from stream.engine.pairs import DIFFERENT, NONE, SAME, PairId, PairScores

_STANDING: Final = struct.Struct("<Qdb")
MANUAL_SCORE: Final = 1.0


class Standing(NamedTuple):
    """What is known of a pair: the model's score, 0 below the threshold, and a person's verdict."""

    score: float
    verdict: int

    @property
    def weight(self) -> tuple[int, float]:
        """What pairs are ranked by: a person's word before any score; (0, 0) is no pair at all."""
        if self.verdict == DIFFERENT:
            return (0, 0.0)
        return (1, MANUAL_SCORE) if self.verdict == SAME else (0, self.score)

    @property
    def acceptable(self) -> bool:
        """Whether the pair may be aligned."""
        return self.weight != (0, 0.0)


_UNKNOWN: Final = Standing(0.0, NONE)


class Decision(NamedTuple):
    """A pair whose alignment may have changed: what it rests on now, None when it is not aligned."""

    pair: PairId
    standing: Standing | None


class _Side(NamedTuple):
    """One entity, as a partner for entities of one other source."""

    node: int
    own: str
    other: str

    def key(self, table: bytes) -> bytes:
        return table + node_key(self.node) + _source_key(self.other)

    def opposite(self, partner: int) -> "_Side":
        return _Side(partner, self.other, self.own)

    def pair(self, partner: int) -> PairId:
        if self.own < self.other:
            return PairId(self.node, partner, self.own, self.other)
        return PairId(partner, self.node, self.other, self.own)


class Deciding:
    """Keeps the matching in the store; writes are pending until the store commits.

    Args:
        threshold: the least score, 0 to 1, with which a pair is aligned.
        one_to_one: each entity at most once per pair of sources; otherwise every acceptable pair is aligned.
    """

    def __init__(self, store: Store, threshold: float, *, one_to_one: bool) -> None:
        self._store = store
        self.threshold = threshold
        self._one_to_one = one_to_one
        # Which pairs the store may hold, by left ^ right: most pairs score low and were never there.
        self._known = {
            int.from_bytes(key[1:9], "big") ^ partner
            for key, value in store.scan(tables.SCORED)
            for partner, _, _ in _STANDING.iter_unpack(value)
        }

    def _relevant(self, scored: Iterable[PairScores]) -> list[tuple[PairId, float]]:
        """The pairs that may be aligned or may have been."""
        relevant = []
        for part in scored:
            known = np.fromiter(map(self._known.__contains__, (part.left ^ part.right).tolist()), bool)
            chosen = (part.score >= self.threshold) | known
            columns = (part.left[chosen], part.right[chosen], part.score[chosen])
            for left, right, score in zip(*(column.tolist() for column in columns), strict=True):
                relevant.append((PairId(left, right, part.left_source, part.right_source), score))
        return relevant

    def decide(self, scored: Iterable[PairScores], verdicts: Iterable[tuple[PairId, int]]) -> list[Decision]:
        """Applies computed scores and verdicts (SAME, DIFFERENT, NONE) and repairs the matching.

        Returns:
            Of the given pairs those that were aligned, and every pair whose alignment changed.
        """
        scores, verdicts = self._relevant(scored), list(verdicts)
        given = [pair for pair, _ in scores] + [pair for pair, _ in verdicts]
        market = _Market(self._store, given)
        market.reported.update((pair, None) for pair in given if market.is_matched(pair))
        for pair, score in scores:
            accepted = score if score >= self.threshold else 0.0
            market.revise(pair, market.standing(pair)._replace(score=accepted))
        for pair, verdict in verdicts:
            market.revise(pair, market.standing(pair)._replace(verdict=verdict))
        market.settle(self._one_to_one)
        market.save()
        self._known.update(pair.left ^ pair.right for pair in given)
        return [
            Decision(pair, market.standing(pair) if market.is_matched(pair) else None)
            for pair in market.reported
        ]

    def known_pairs(self, nodes: Iterable[int]) -> list[tuple[int, int]]:
        """(node, partner) of all pairs of these nodes that the store holds."""
        return [
            (node, partner)
            for node in nodes
            for _, value in self._store.scan(tables.SCORED + node_key(node))
            for partner, _, _ in _STANDING.iter_unpack(value)
        ]

    def standing(self, pair: PairId) -> tuple[Standing, bool]:
        """What is known of a pair, and whether it is aligned."""
        market = _Market(self._store, [pair])
        return market.standing(pair), market.is_matched(pair)

    def partners(self, node: int, own: str, other: str) -> list[int]:
        """The entities of the other source that this one is aligned with."""
        return list(_Market(self._store, []).partners(_Side(node, own, other)))


class _Market:
    """What is known of pairs, and the matching around them: read as needed, written back once."""

    def __init__(self, store: Store, pairs: Sequence[PairId]) -> None:
        self.reported: dict[PairId, None] = {}  # in the order of the changes
        self._store = store
        self._standings: dict[_Side, dict[int, Standing]] = {}
        self._partners: dict[_Side, dict[int, None]] = {}
        self._changed: set[_Side] = set()
        self._unsettled: dict[_Side, None] = {}
        self._read(list(dict.fromkeys(side for pair in pairs for side in _sides(pair))))

    def standing(self, pair: PairId) -> Standing:
        """What is known of a pair."""
        return self.standings(_left(pair)).get(pair.right, _UNKNOWN)

    def standings(self, side: _Side) -> dict[int, Standing]:
        """What is known of an entity's pairs, by partner."""
        if side not in self._standings:
            self._read([side])
        return self._standings[side]

    def partners(self, side: _Side) -> dict[int, None]:
        """The entities that one is matched with."""
        if side not in self._partners:
            self._read([side])
        return self._partners[side]

    def is_matched(self, pair: PairId) -> bool:
        """Whether the two are matched with each other."""
        return pair.right in self.partners(_left(pair))

    def revise(self, pair: PairId, standing: Standing) -> None:
        """Sets what is known of a pair and parts the two, to be settled anew."""
        if standing == self.standing(pair):
            return
        if self.is_matched(pair):
            self._part(pair)
        left, right = _sides(pair)
        for side, partner in ((left, pair.right), (right, pair.left)):
            if standing == _UNKNOWN:
                self.standings(side).pop(partner, None)
            else:
                self.standings(side)[partner] = standing
            self._changed.add(side)
            self._unsettled[side] = None

    def settle(self, one_to_one: bool) -> None:
        """Matches until no pair blocks."""
        while self._unsettled:
            side, _ = self._unsettled.popitem()
            standings = self.standings(side)
            acceptable = [partner for partner, standing in standings.items() if standing.acceptable]
            for partner in sorted(acceptable, key=lambda partner: self._rank(side.pair(partner))):
                pair = side.pair(partner)
                if self.is_matched(pair):
                    if one_to_one:
                        break  # all better partners have better ones
                elif not one_to_one:
                    self._match(pair)
                elif self._blocks(pair):
                    for rival in [side.pair(p) for p in self.partners(side)] + [
                        side.opposite(partner).pair(p) for p in self.partners(side.opposite(partner))
                    ]:
                        self._part(rival)
                    self._match(pair)
                    break

    def save(self) -> None:
        """Writes what changed; an empty side leaves no key."""
        for side in self._changed:
            standings, partners = self._standings[side], self._partners[side]
            packed = b"".join(
                _STANDING.pack(partner, *standing) for partner, standing in sorted(standings.items())
            )
            _put(self._store, side.key(tables.SCORED), packed)
            _put(self._store, side.key(tables.MATCHES), b"".join(map(node_key, sorted(partners))))

    def _blocks(self, pair: PairId) -> bool:
        """Whether each of the two ranks the other above its present partner."""
        rank = self._rank(pair)
        return all(
            rank < self._rank(side.pair(present)) for side in _sides(pair) for present in self.partners(side)
        )

    def _rank(self, pair: PairId) -> tuple[int, float, int, int]:
        manual, score = self.standing(pair).weight
        return -manual, -score, pair.left, pair.right

    def _match(self, pair: PairId) -> None:
        left, right = _sides(pair)
        self.partners(left)[pair.right] = None
        self.partners(right)[pair.left] = None
        self._changed.update((left, right))
        self.reported[pair] = None

    def _part(self, pair: PairId) -> None:
        left, right = _sides(pair)
        del self.partners(left)[pair.right]
        del self.partners(right)[pair.left]
        self._changed.update((left, right))
        self._unsettled[left] = self._unsettled[right] = None
        self.reported[pair] = None

    def _read(self, sides: Sequence[_Side]) -> None:
        standings = self._store.get_many([side.key(tables.SCORED) for side in sides])
        partners = self._store.get_many([side.key(tables.MATCHES) for side in sides])
        for side, packed, matched in zip(sides, standings, partners, strict=True):
            self._standings[side] = {
                partner: Standing(score, verdict)
                for partner, score, verdict in _STANDING.iter_unpack(packed or b"")
            }
            raw = matched or b""
            self._partners[side] = {
                int.from_bytes(raw[at : at + 8], "big"): None for at in range(0, len(raw), 8)
            }


def _left(pair: PairId) -> _Side:
    return _Side(pair.left, pair.left_source, pair.right_source)


def _sides(pair: PairId) -> tuple[_Side, _Side]:
    return _left(pair), _Side(pair.right, pair.right_source, pair.left_source)


@cache
def _source_key(source: str) -> bytes:
    return node_key(xxhash.xxh3_64_intdigest(source.encode()))


def _put(store: Store, key: bytes, value: bytes) -> None:
    if value:
        store.put(key, value)
    else:
        store.delete(key)
