"""Whose word is the last where two partitions speak of the same thing.

A key moves when partitions are added to its topic, and two topics may have the same entity. Partitions are
read in any order, so the newer record counts. Within a partition its own order counts, whatever the times:
a record there is at least as new as the ones before it.
"""

import struct
from typing import NamedTuple

from index import tables
from index.store import Store
from stream.events import Message

_HEAD = struct.Struct(">dI")


class Word(NamedTuple):
    """A message that said what something is. The greater one counts."""

    time: float  # seconds since the epoch
    topic: str
    partition: int

    def follow(self, last: "Word | None") -> "Word | None":
        """This word after another one; None if it comes too late to count."""
        if last is None:
            return self
        if last[1:] == self[1:]:
            return max(self, last)
        return self if self > last else None


class LastWords:
    """The last word on anything, by key. Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, key: bytes) -> Word | None:
        """The last word, if it is kept here."""
        raw = self._store.get(tables.WORDS + key)
        if raw is None:
            return None
        time, partition = _HEAD.unpack_from(raw)
        return Word(time, raw[_HEAD.size :].decode(), partition)

    def keep(self, key: bytes, word: Word) -> None:
        """This is the last word now."""
        raw = _HEAD.pack(word.time, word.partition) + word.topic.encode()
        self._store.put(tables.WORDS + key, raw)

    def forget(self, key: bytes) -> None:
        """The last word is known without this."""
        self._store.delete(tables.WORDS + key)

    def take(self, key: bytes, message: Message, known: Word | None = None) -> bool:
        """Keeps a message's word; False if it comes too late to count.

        Args:
            known: the last word, if none is kept.
        """
        word = word_of(message).follow(self.get(key) or known)
        if word is not None:
            self.keep(key, word)
        return word is not None


def word_of(message: Message) -> Word:
    """What a message has to say counts as this."""
    return Word(message.timestamp, message.cause.topic, message.cause.partition)
