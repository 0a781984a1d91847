"""The outbox: batches whose outputs are stored, and not yet known to be published.

Invariant: a batch with outputs is in the store from the commit that concludes it to the commit after it was
said to be published. So a crash loses no output; it may publish one twice.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import msgspec

from index import tables
from index.entity import node_key
from index.store import Store
from stream.engine.batches import batched
from stream.engine.interface import Batch, Output

OUTBOX_CHUNK = 500  # pairs of one batch when a generation takes the place of another

PUBLISHED_ENDS = tables.META + b"published"  # where the alignment topic ended after the last publication


class Outbox:
    """Numbers batches and keeps those with outputs. Deletions are pending until the next commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self._unpublished = deque(batch.sequence for batch in self.pending())
        self._last = max(self._unpublished, default=0)

    def pending(self) -> Iterator[Batch]:
        """The batches in the store, in order."""
        return (self._decode(value) for _, value in self._store.scan(tables.OUTBOX))

    def next_sequence(self) -> int:
        """The number of the next batch."""
        self._last += 1
        return self._last

    def conclude(self, batch: Batch) -> None:
        """Commits everything that is pending, with the outputs of the batch.

        Raises:
            StoreError: nothing was written.
        """
        if batch.outputs:
            self._store.put(_key(batch.sequence), msgspec.msgpack.encode(batch))
        self._store.commit()
        if batch.outputs:
            self._unpublished.append(batch.sequence)

    def conclude_all(self, outputs: Iterable[list[Output]], backlog: int) -> int:
        """Commits outputs that no message caused, in batches of bounded size.

        Args:
            outputs: of each pair.
            backlog: entities that wait for something.

        Returns:
            How many pairs there are.

        Raises:
            StoreError: the last batch was not written.
        """
        count = 0
        for chunk in batched(outputs, OUTBOX_CHUNK):
            count += len(chunk)
            self.conclude(Batch(self.next_sequence(), [*chain.from_iterable(chunk)], backlog))
        self._store.commit()
        return count

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        """Forgets every batch up to this one, and keeps where the alignment topic ends after it."""
        while self._unpublished and self._unpublished[0] <= sequence:
            self._store.delete(_key(self._unpublished.popleft()))
        if ends is not None:
            self._store.put(PUBLISHED_ENDS, msgspec.msgpack.encode(ends))

    def all_published(self) -> None:
        """Forgets every batch."""
        self.published(self._last)

    def published_ends(self) -> Mapping[int, int]:
        """Where the partitions of the alignment topic ended when `published` was told last."""
        raw = self._store.get(PUBLISHED_ENDS)
        return {} if raw is None else msgspec.msgpack.decode(raw, type=dict[int, int])

    def rolled_back(self) -> None:
        """Deletes again what was published before the store forgot what was pending."""
        for batch in list(self.pending()):
            if batch.sequence not in self._unpublished:
                self._store.delete(_key(batch.sequence))


def _key(sequence: int) -> bytes:
    return tables.OUTBOX + node_key(sequence)
