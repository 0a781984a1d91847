"""A store with the entities of some events, for tests of one part of the engine."""

from collections.abc import Iterable
from itertools import count

import msgspec

from index.graph import GraphStore
from index.store import Store
from stream.changes import Decoder
from stream.engine.inbox import Inbox, Received
from stream.engine.links import LinkStore
from stream.events import Cause, EntityEvent, Message
from stream.mapping.canonical import decode_canonical


class Graph:
    """A graph store that takes in events, one batch after the other."""

    def __init__(self, store: Store, decode: Decoder = decode_canonical) -> None:
        self.graph = GraphStore(store)
        self.links = LinkStore(store)
        self.inbox = Inbox(store, self.graph, self.links, decode)
        self._store = store
        self._offsets = count()

    def messages(self, *values: EntityEvent | bytes) -> list[Message]:
        """The next messages of partition 0 of the topic `t`."""
        return [
            Message(
                Cause("t", 0, offset),
                b"a key",
                value if isinstance(value, bytes) else msgspec.json.encode(value),
                float(offset),
            )
            for value, offset in zip(values, self._offsets, strict=False)
        ]

    def apply(self, events: Iterable[EntityEvent]) -> Received:
        """Takes in and commits one batch."""
        received = self.inbox.receive(self.messages(*events))
        assert not received.dead_letters
        self._store.commit()
        return received
