"""Whose word is the last where two partitions speak of the same thing.

A key moves when partitions are added to its topic, and two topics may have the same entity. Partitions are
read in any order, so the newer record counts. Within a partition its own order counts, whatever the times:
a record there is at least as new as the ones before it.

A message that repeats an entity's state does not change its cause: that is the first of the messages with
this state at the end of their partition. So each partition is followed, also while another one counts.
"""

import struct
from typing import NamedTuple

import msgspec
import xxhash

from index import tables
from index.entity import Entity, Version
from index.store import Store
from stream.engine.origin import Place
from stream.events import Message

_HEAD = struct.Struct(">dI")


class Word(NamedTuple):
    """A message that said what something is. The greater one counts."""

    time: float  # seconds since the epoch
    topic: str
    partition: int

    @property
    def place(self) -> Place:
        return self.topic, self.partition

    def follow(self, last: "Word | None") -> "Word | None":
        """This word after another one; None if it comes too late to count."""
        if last is None:
            return self
        if last.place == self.place:
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

    def counts(self, key: bytes, message: Message) -> bool:
        """Whether a message does not come too late, as far as a last word is kept."""
        return _word(message).follow(self.get(key)) is not None

    def take(self, key: bytes, message: Message, known: Word | None = None) -> bool:
        """Keeps a message's word; False if it comes too late to count.

        Args:
            known: the last word, if none is kept.
        """
        following = _word(message).follow(self.get(key) or known)
        if following is not None:
            self.keep(key, following)
        return following is not None


def _word(message: Message) -> Word:
    return Word(message.timestamp, message.cause.topic, message.cause.partition)


class _Said(msgspec.Struct, frozen=True, array_like=True):
    """How a partition ends on an entity, as far as it was read."""

    version: Version | None
    time: float  # of its last message, in seconds since the epoch
    state: int  # digest
    offset: int  # of the first message of those at the end that say this state
    since: float  # the time of that message

    def follow(self, new: Entity) -> tuple[Entity, float, bool] | None:
        """The entity as the partition's next message has it; None if its version is stale.

        Returns:
            The entity, with the offset and time of the first message that said this state; the time of the
            message itself; and whether it repeats the state.
        """
        rise = _rise(self.version, new.version)
        if rise < 0:
            return None
        time = new.timestamp if rise > 0 else max(new.timestamp, self.time)
        if self.state != _digest(new):
            return msgspec.structs.replace(new, timestamp=time), time, False
        # a delete's tombstone takes no version away
        version = self.version if new.deleted and new.version is None else new.version
        first = msgspec.structs.replace(new, version=version, offset=self.offset, timestamp=self.since)
        return first, time, True


class Heard(NamedTuple):
    """An entity after a message, with its cause."""

    entity: Entity
    happened: bool  # or its state was said before, or it is as unknown as before


class EntityWords:
    """The last words on entities. What an `Entity` itself does not show is kept here.

    Writes are pending until the store commits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last = LastWords(store)

    def hear(self, key: bytes, old: Entity | None, new: Entity) -> Heard | None:
        """What becomes of an entity; None if the message is stale: by its version, else by its time.

        Args:
            key: of the node, or of the node and the row that speaks of it.
            old: the entity before the message, None if it is unknown.
            new: the entity as the message has it.
        """
        place = (new.topic, new.partition)
        kept = self._last.get(key)
        last = kept
        if last is None and old is not None:
            last = Word(old.timestamp, old.topic, old.partition)
        counted = None if last is None else _said(old, last.time)  # by the partition that counted so far
        is_elsewhere = last is not None and last.place != place
        said = self._elsewhere(key, place) if is_elsewhere else counted
        following = (new, new.timestamp, False) if said is None else said.follow(new)
        if following is None:
            return None
        new, time, repeats = following
        word = Word(time, *place)
        if last is not None and counted is not None and is_elsewhere:
            rise = _rise(counted.version, new.version)
            if rise < 0 or (rise == 0 and word < last):
                self._keep_elsewhere(key, place, _said(new, time))
                return None
            self._keep_elsewhere(key, last.place, counted)
        is_unknown = old is None and new.deleted and new.version is None
        if time != new.timestamp or is_unknown:
            self._last.keep(key, word)
        elif kept is not None:
            self._last.forget(key)
        return Heard(new, happened=not is_unknown and (is_elsewhere or not repeats))

    def _elsewhere(self, key: bytes, place: Place) -> _Said | None:
        raw = self._store.get(_place_key(key, place))
        return None if raw is None else msgspec.msgpack.decode(raw, type=_Said)

    def _keep_elsewhere(self, key: bytes, place: Place, said: _Said) -> None:
        self._store.put(_place_key(key, place), msgspec.msgpack.encode(said))


def _said(entity: Entity | None, time: float) -> _Said:
    """An entity that is unknown was deleted before it was said to exist."""
    if entity is None:
        return _Said(None, time, 0, 0, 0.0)
    return _Said(entity.version, time, _digest(entity), entity.offset, entity.timestamp)


def _rise(before: Version | None, after: Version | None) -> int:
    """Whether a version is higher (1) or lower (-1) than another one; 0 if that does not decide."""
    return 0 if before is None or after is None else (after > before) - (after < before)


def _digest(entity: Entity) -> int:
    """Of its state as it is written: in Python 1, 1.0 and true are equal."""
    state = (entity.type, entity.attributes, entity.relations, entity.deleted)
    return xxhash.xxh3_64_intdigest(msgspec.json.encode(state, order="deterministic"))


def _place_key(key: bytes, place: Place) -> bytes:
    return tables.ELSEWHERE + key + f"{place[0]}\0{place[1]}".encode()
