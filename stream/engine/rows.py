"""Rows that are known by their message's key, because that is not just their entity's id.

Two of them may have one id. Then each is kept under its own key, and the entity is that of the row which is
there longest, by the times of the messages. So it does not depend on the order in which they are read. The
store keeps the rows of an id in that order, so that one more costs the same however many there are.
"""

import struct
from itertools import islice
from typing import Final

import msgspec
import xxhash

from index import tables
from index.entity import Entity, node_key
from index.store import Store
from stream.errors import InvalidInput
from stream.events import Message

MAX_IDS: Final = 1_000  # of the rows that have come under one key: its tombstone costs .2 ms for each of them
_NAME_BYTES: Final = 16
_ALIVE, _GONE = b"\0", b"\1"  # what the rank of a row begins with
_SIGN: Final = 1 << 63
_INVERTED: Final = bytes(range(255, -1, -1))

FIRST_TABLES = tables.META + b"tables"
Since = tuple[float, str, int, int]  # time, topic, partition, offset


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What a row makes of an entity, which is deleted when the row is gone."""

    entity: Entity
    since: Since  # the message with which it came

    def follow(self, entity: Entity) -> "Row":
        """The row with what it says now."""
        return Row(entity, since(entity) if self.entity.deleted else self.since)


class RowStore:
    """Rows by name and by node. Writes are pending until the store commits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Row).decode
        self._any = next(store.scan(tables.ROWS), None) is not None

    def get(self, node: int, name: bytes) -> Row | None:
        """The row if it has or had this entity's id."""
        rank = self._store.get(tables.ROW_NODES + name + node_key(node))
        value = None if rank is None else self._store.get(tables.ROWS + node_key(node) + rank + name)
        return None if value is None else self._decode(value)

    def put(self, node: int, name: bytes, row: Row) -> None:
        """Keeps what a row says."""
        self._any = True
        key, rank = tables.ROW_NODES + name + node_key(node), _rank(row)
        former = self._store.get(key)
        if former is not None and former != rank:
            self._store.delete(tables.ROWS + node_key(node) + former + name)
        self._store.put(key, rank)
        self._store.put(tables.ROWS + node_key(node) + rank + name, self._encode(row))

    def check_room(self, name: bytes) -> None:
        """Raises InvalidInput (`too-many`) if as many ids came under a name as may."""
        if sum(1 for _ in islice(self._store.scan(tables.ROW_NODES + name), MAX_IDS)) == MAX_IDS:
            raise InvalidInput(
                "too-many",
                f"{MAX_IDS:,} ids came under this message's key, which does not tell rows apart: set "
                "`ignore_key`, or use the key's columns in the id (`key_columns`)",
            )

    def named(self, name: bytes) -> list[Entity]:
        """The entities that came under a name, as its row has them."""
        if not self._any:
            return []
        nodes = [int.from_bytes(key[-8:], "big") for key, _ in self._store.scan(tables.ROW_NODES + name)]
        return [row.entity for node in nodes if (row := self.get(node, name)) is not None]

    def first(self, node: int, most: int) -> dict[bytes, Row]:
        """By name the first rows that have or had an id: that which is there longest comes first.

        Those that are gone come last, the one that went last before the others.
        """
        found = self._store.scan(tables.ROWS + node_key(node))
        return {key[-_NAME_BYTES:]: self._decode(value) for key, value in islice(found, most)}


def _rank(row: Row) -> bytes:
    """What puts rows of one id in order."""
    if row.entity.deleted:
        return _GONE + _sortable(since(row.entity)).translate(_INVERTED)
    return _ALIVE + _sortable(row.since)


def _sortable(since: Since) -> bytes:
    """Bytes that are in the order of what they are made of, and so are their complements."""
    time, topic, partition, offset = since
    (bits,) = struct.unpack(">Q", struct.pack(">d", time))
    ordered = bits ^ (2 * _SIGN - 1 if bits & _SIGN else _SIGN)  # below zero the larger are the smaller
    return struct.pack(">Q", ordered) + topic.encode() + b"\0" + struct.pack(">QQ", partition, offset)


class RowTables:
    """From which table an entity's row came, where several tables go into one topic.

    Kept are the first table of each topic, and the entities from others. Writes are pending until the store
    commits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        raw = store.get(FIRST_TABLES)
        self._first: dict[str, str] = {} if raw is None else msgspec.msgpack.decode(raw, type=dict[str, str])
        self._any = next(store.scan(tables.ROW_TABLES), None) is not None

    def put(self, node: int, topic: str, table: str) -> str:
        """Keeps the table of an entity's row in a topic, and returns that of the row before it, if any."""
        if topic not in self._first:
            self._first[topic] = table
            self._store.put(FIRST_TABLES, msgspec.msgpack.encode(self._first))
        first, key = self._first[topic], tables.ROW_TABLES + node_key(node)
        raw = self._store.get(key) if self._any else None
        before = first if raw is None else raw.decode()
        if table != first:
            self._any = True
            self._store.put(key, table.encode())
        elif raw is not None:
            self._store.delete(key)
        return before


def since(entity: Entity) -> Since:
    """What the order of an entity's messages goes by."""
    return entity.timestamp, entity.topic, entity.partition, entity.offset


def row_name(message: Message) -> bytes:
    """The row of a message with a key, in its topic: 16 bytes."""
    return xxhash.xxh3_128_digest(message.cause.topic.encode() + b"\0" + (message.key or b""))
