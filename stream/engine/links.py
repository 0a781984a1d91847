"""People's verdicts on pairs: kept for good, in force while both entities exist."""

from collections.abc import Callable, Iterable

import msgspec

from index import tables
from index.entity import node_key, node_of
from index.store import Store
from stream.engine.pairs import DIFFERENT, NONE, SAME, PairId
from stream.engine.words import LastWords, Word
from stream.events import Cause, Link, Message, split_curie


class StoredLink(msgspec.Struct, frozen=True, array_like=True):
    """A verdict and where it came from."""

    left_source: str
    right_source: str
    verdict: str
    author: str
    cause: Cause
    timestamp: float


class LinkStore:
    """Verdicts under both of their entities. Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._words = LastWords(store)
        self._decode = msgspec.msgpack.Decoder(StoredLink).decode
        self._any = next(store.scan(tables.LINKS), None) is not None

    def knows(self, left: str, right: str) -> bool:
        """Whether anybody gave a verdict on two CURIEs, or took one back."""
        pair = _pair(left, right)
        return self.get(pair) is not None or self._words.get(_keys(pair)[0]) is not None

    def put(self, left: str, right: str, link: Link | None, message: Message) -> PairId | None:
        """Keeps a verdict on two CURIEs, or forgets it; None if another partition has a newer one."""
        pair = _pair(left, right)
        stored = self.get(pair)
        known = None if stored is None else Word(stored.timestamp, stored.cause.topic, stored.cause.partition)
        if not self._words.take(_keys(pair)[0], message, known):
            return None
        for key in _keys(pair):
            if link is None:
                self._store.delete(key)
            else:
                stored = StoredLink(
                    pair.left_source,
                    pair.right_source,
                    link.verdict,
                    link.author,
                    message.cause,
                    message.timestamp,
                )
                self._store.put(key, msgspec.msgpack.encode(stored))
                self._any = True
        return pair

    def get(self, pair: PairId) -> StoredLink | None:
        """The verdict on a pair."""
        value = self._store.get(_keys(pair)[0])
        return None if value is None else self._decode(value)

    def around(self, nodes: Iterable[int]) -> list[PairId]:
        """The pairs with one of these nodes on which there is a verdict."""
        pairs = []
        if self._any:
            for node in nodes:
                for key, value in self._store.scan(tables.LINKS + node_key(node)):
                    link, other = self._decode(value), int.from_bytes(key[9:17], "big")
                    ends = (node, other) if key[17:] == b"<" else (other, node)
                    pairs.append(PairId(*ends, link.left_source, link.right_source))
        return pairs

    def in_force(
        self, pairs: Iterable[PairId], exist: Callable[[Iterable[int]], list[bool]]
    ) -> list[tuple[PairId, int]]:
        """SAME, DIFFERENT, or NONE where there is no verdict or one of the two entities does not exist."""
        pairs = list(pairs)
        exists = exist(node for pair in pairs for node in pair[:2])
        verdicts = []
        for number, pair in enumerate(pairs):
            link = self.get(pair)
            if link is None or not all(exists[2 * number : 2 * number + 2]):
                verdicts.append((pair, NONE))
            else:
                verdicts.append((pair, SAME if link.verdict == "same" else DIFFERENT))
        return verdicts


def _pair(left: str, right: str) -> PairId:
    (left_source, _), (right_source, _) = split_curie(left), split_curie(right)
    if left_source > right_source:
        left, right, left_source, right_source = right, left, right_source, left_source
    return PairId(node_of(left), node_of(right), left_source, right_source)


def _keys(pair: PairId) -> tuple[bytes, bytes]:
    """Under the left entity, marked '<', and under the right one, marked '>'."""
    left, right = node_key(pair.left), node_key(pair.right)
    return tables.LINKS + left + right + b"<", tables.LINKS + right + left + b">"
