"""Rows that are known by their message's key, because that is not just their entity's id.

Two of them may have one id. Then each is kept under its own key, and the entity is that of the row which is
there longest, by the times of the messages. So it does not depend on the order in which they are read.
"""

import msgspec
import xxhash

from index import tables
from index.entity import Entity, node_key
from index.store import Store
from stream.events import Message

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
        value = self._store.get(tables.ROWS + node_key(node) + name)
        return None if value is None else self._decode(value)

    def put(self, node: int, name: bytes, row: Row) -> None:
        """Keeps what a row says."""
        self._any = True
        self._store.put(tables.ROWS + node_key(node) + name, self._encode(row))
        self._store.put(tables.ROW_NODES + name + node_key(node), b"")

    def named(self, name: bytes) -> list[Entity]:
        """The entities that came under a name, as its row has them."""
        if not self._any:
            return []
        nodes = [int.from_bytes(key[-8:], "big") for key, _ in self._store.scan(tables.ROW_NODES + name)]
        return [row.entity for node in nodes if (row := self.get(node, name)) is not None]

    def of(self, node: int) -> dict[bytes, Row]:
        """By name the rows that have or had an id."""
        found = self._store.scan(tables.ROWS + node_key(node))
        return {key[9:]: self._decode(value) for key, value in found}


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
