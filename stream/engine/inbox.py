"""Steps 1 to 3: what messages mean, which of them still count, and the graph after them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from index.entity import Entity, node_key, node_of, relation_of
from index.graph import EdgeChange, GraphStore
from index.store import Store
from stream.changes import (
    Change,
    Decoder,
    Edge,
    JoinChange,
    LinkChange,
    RowChange,
    RowChanges,
    SnapshotRow,
    UnreadCell,
)
from stream.engine.interface import RETRY_OF, Counts, Output
from stream.engine.joins import JoinStore
from stream.engine.links import LinkStore
from stream.engine.origin import Origin
from stream.engine.pairs import PairId
from stream.engine.rows import Row, RowStore, RowTables, row_name, since
from stream.engine.words import EntityWords, LastWords
from stream.errors import InvalidInput, UnreadableKey
from stream.events import Cause, Delete, EntityEvent, Message, Upsert, curie

NO_POISON: Mapping[Cause, InvalidInput] = {}


def failed(error: Exception) -> InvalidInput:
    """Why a message is refused which made the program fail in whatever way, out of memory included."""
    return InvalidInput("failed", f"{type(error).__name__}: {str(error)[:1000]}")


class Received:
    """What became of a micro-batch of messages, and what it changed."""

    def __init__(self) -> None:
        self.topics: defaultdict[str, Counts] = defaultdict(Counts)
        self.dead_letters: list[Output] = []
        self.offsets: dict[tuple[str, int], int] = {}
        self.fresh: list[Message] = []  # those that were not applied before
        self.before: dict[int, Entity | None] = {}
        self.after: dict[int, Entity] = {}
        self.links: list[PairId] = []
        self.joined: dict[Edge, None] = {}  # edges that rows of joins began or ceased to name
        self.changed: dict[int, None] = {}  # nodes that the messages themselves are about
        self.prompt: set[int] = set()  # those of them that are not only in rows of a snapshot
        self.gone: dict[int, None] = {}  # nodes that were deleted or have another type
        self.touched: dict[int, None] = {}  # every node whose entity or adjacency changed

    def note(self, message: Message, oddity: str, what: str) -> None:
        """One of `ODDITIES`."""
        self.topics[message.cause.topic].note(oddity, _placed(what, message))

    def miss(self, message: Message, what: str) -> None:
        """A deletion names what never came. If that comes still, the word kept of the deletion decides."""
        self.note(message, "absent", what)

    def refuse(self, message: Message, stage: str, error: InvalidInput) -> None:
        """Turns a message into a dead letter: its own bytes, and in the headers what was wrong."""
        cause = message.cause
        self.topics[cause.topic].dead_lettered += 1
        headers = {
            "stage": stage,
            "reason": error.reason,
            "message": str(error)[:1000],
            "topic": cause.topic,
            "partition": str(cause.partition),
            "offset": str(cause.offset),
        }
        if (first := message.retry_of) is not None:
            headers[RETRY_OF] = f"{first.partition}:{first.offset}"
        encoded = [(name, text.encode(errors="replace")) for name, text in headers.items()]
        self.dead_letters.append(Output("dead_letters", message.key, message.value, encoded))


class Inbox:
    """Applies messages to the graph store. Writes are pending until the store commits."""

    def __init__(self, store: Store, graph: GraphStore, links: LinkStore, decode: Decoder) -> None:
        self.origin = Origin(store)
        self._graph = graph
        self._links = links
        self._joins = JoinStore(store)
        self._rows = RowStore(store)
        self._tables = RowTables(store)
        self._words = EntityWords(store)
        self._last = LastWords(store)  # on rows of which nothing but their deletion came
        self._decode = decode

    def receive(
        self, messages: Sequence[Message], poison: Mapping[Cause, InvalidInput] = NO_POISON
    ) -> Received:
        """Applies messages in the order given; those in `poison` are refused with the error given there."""
        received = self._understand(messages, poison)
        received.touched = self._write(received)
        self.origin.apply(received.offsets, received.fresh)
        return received

    def _understand(self, messages: Sequence[Message], poison: Mapping[Cause, InvalidInput]) -> Received:
        """Steps 1 and 2: what the messages change, each entity's state before and after."""
        received = Received()
        decoded: list[tuple[Message, Sequence[Change | UnreadableKey]]] = []
        for message in messages:
            where = (message.cause.topic, message.cause.partition)
            counts = received.topics[message.cause.topic]
            counts.received += 1
            if where not in received.offsets:
                received.offsets[where] = self.origin.next_offset(*where) or 0
            if message.cause.offset < received.offsets[where]:
                counts.stale += 1
                continue
            received.offsets[where] = message.cause.offset + 1
            received.fresh.append(message)
            if message.cause in poison:
                received.refuse(message, "process", poison[message.cause])
                continue
            try:
                decoded.append((message, self._decode(message)))
            except UnreadableKey as error:
                decoded.append((message, [error]))
            except InvalidInput as error:
                received.refuse(message, "decode", error)
            except (
                Exception
            ) as error:  # the state is untouched; in the next phase it would have to be reloaded
                received.refuse(message, "decode", failed(error))
        names = {
            node_of(name): name
            for _, events in decoded
            for event in events
            if (entity := _event(event)) is not None
            for name in [curie(entity.source, entity.id)]
        }
        received.before = dict(zip(names, self._graph.entities(names), strict=True))
        for message, events in decoded:
            try:
                prompt = not isinstance(events, SnapshotRow)
                rows = events if isinstance(events, RowChanges) and events.table else RowChanges()
                before = {
                    event.id: self._known(event, received)
                    for event in rows
                    if isinstance(event, Upsert) and event.id in rows.own
                }
                applied = [self._apply(event, message, received, prompt=prompt) for event in events]
                if before:
                    self._note_tables(rows, before, applied, message, received)
            except InvalidInput as error:
                received.refuse(message, "apply", error)
                continue
            counts = received.topics[message.cause.topic]
            if any(applied) or not events:
                counts.applied += 1
            else:
                counts.stale += 1
        return received

    def _note_tables(
        self,
        rows: RowChanges,
        before: Mapping[str, tuple[int, Entity | None]],
        applied: Sequence[bool],
        message: Message,
        received: Received,
    ) -> None:
        """Counts rows that took the place of another table's row, as their key does not tell them apart.

        The last one counts, since compaction leaves no other in the topic.

        Args:
            before: by the ids of the rows' own entities their nodes, and what was there.
        """
        topic = message.cause.topic
        for event, is_applied in zip(rows, applied, strict=True):
            if is_applied and isinstance(event, Upsert) and event.id in before:
                node, old = before[event.id]
                table = self._tables.put(node, topic, rows.table)
                is_there = old is not None and not old.deleted and old.topic == topic
                if is_there and table != rows.table:
                    name = curie(event.source, event.id)
                    what = f"{name[:200]} of {table[:100]}, by {rows.table[:100]}"
                    received.note(message, "replaced", what)

    def _apply(
        self, event: Change | UnreadableKey, message: Message, received: Received, *, prompt: bool
    ) -> bool:
        """Puts the entity's new state into `received.after`; False if the event is stale, or changes nothing
        because what it deletes never came."""
        if isinstance(event, UnreadCell):
            received.note(message, "unread", event.what)
            return False
        if isinstance(event, JoinChange):
            is_absent = event.edge is None and not self._joins.knows(event, message)
            edges = self._joins.put(event, message)
            if edges is None:
                return False
            if is_absent:
                received.miss(message, f"a row with the key {message.key!r:.200}")
                return False
            received.joined.update(dict.fromkeys(edges))
            if prompt:
                received.prompt.update(map(_head, edges))
            return True
        if isinstance(event, LinkChange):
            is_absent = event.link is None and not self._links.knows(event.left, event.right)
            pair = self._links.put(event.left, event.right, event.link, message)
            if pair is None:
                return False
            if is_absent:
                received.miss(message, f"a verdict on {event.left} and {event.right}")
                return False
            received.links.append(pair)
            return True
        if isinstance(event, RowChange):
            return self._apply_row(event.event, message, received, prompt=prompt)
        if isinstance(event, Delete | UnreadableKey):
            rows = self._rows.named(row_name(message))
            gone = [Delete(row.source, row.id) for row in rows]
            if gone:
                applied = [self._apply_row(each, message, received, prompt=prompt) for each in gone]
                return any(applied)
        if isinstance(event, UnreadableKey):
            self._last.take(row_name(message), message)
            raise InvalidInput(event.reason, f"{event}; no row with this key ever came")
        return self._apply_entity(event, message, received, prompt=prompt)

    def _apply_entity(
        self, event: EntityEvent, message: Message, received: Received, *, prompt: bool
    ) -> bool:
        """Of an entity that is known by its id."""
        node, old = self._known(event, received)
        heard = self._words.hear(node_key(node), old, _entity(event, message))
        if heard is None:
            return False
        if heard.happened:
            received.after[node] = heard.entity
            if prompt:
                received.prompt.add(node)
        elif old is not None and old.version != heard.entity.version:
            received.after[node] = heard.entity  # its cause, and so its alignments, stay as they are
        if old is None and isinstance(event, Delete):
            if message.key is not None:
                self._last.take(row_name(message), message)
            received.miss(message, curie(event.source, event.id))
            return heard.happened  # where it has a version, that counts from now on
        return True

    def _apply_row(self, event: EntityEvent, message: Message, received: Received, *, prompt: bool) -> bool:
        """Of an entity that several rows may make, each known by the key of its messages.

        Raises:
            InvalidInput: with reason `id-clash`; the row is kept, and another one has this id, too. With
                reason `too-many`; nothing is kept.
        """
        name = row_name(message)
        node, known = self._known(event, received)
        row = self._rows.get(node, name)
        if row is None and not self._last.counts(name, message):
            return False  # it went before it came
        if row is None and isinstance(event, Upsert):
            self._rows.check_room(name)
        old = None if row is None else row.entity
        heard = self._words.hear(node_key(node) + name, old, _entity(event, message))
        if heard is None:
            return False
        if old is None and isinstance(event, Delete):
            received.miss(message, curie(event.source, event.id))
            return heard.happened
        if heard.happened or (old is not None and old.version != heard.entity.version):
            row = Row(heard.entity, since(heard.entity)) if row is None else row.follow(heard.entity)
            self._rows.put(node, name, row)
        rows = self._rows.first(node, 2)
        first = next(iter(rows.values())).entity
        if known is None or not _is_same(known, first):
            received.after[node] = first
            if prompt:
                received.prompt.add(node)
        others = [row.entity for other, row in rows.items() if other != name and not row.entity.deleted]
        if others and isinstance(event, Upsert):
            place = f"{others[0].topic}, partition {others[0].partition}, offset {others[0].offset}"
            raise InvalidInput(
                "id-clash",
                f"{curie(event.source, event.id)} is also the row in {place}, which has another key: use the "
                "key's columns in the id (`key_columns`), or set `ignore_key` if keys do not tell rows apart",
            )
        return True

    def _known(self, event: EntityEvent, received: Received) -> tuple[int, Entity | None]:
        """The node of an entity, and the entity so far. Raises InvalidInput if the node is another one's."""
        name = curie(event.source, event.id)
        node = node_of(name)
        if node not in received.before:
            received.before[node] = self._graph.entities([node])[0]
        known = received.after.get(node, received.before[node])
        if known is not None and curie(known.source, known.id) != name:
            raise InvalidInput("hash-collision", f"{name} has the same node as {known.source}:{known.id}")
        return node, known

    def _write(self, received: Received) -> dict[int, None]:
        """Steps 3 and 4: entities and edges to the store; all nodes whose entity or adjacency changed."""
        received.changed = dict.fromkeys(received.after)
        moved: dict[Edge, bool] = {}  # whether the head's own row names it
        for node, entity in received.after.items():
            self._graph.put(node, entity)
            before = received.before[node]
            if before is not None and (before.deleted, before.type) != (entity.deleted, entity.type):
                received.gone[node] = None
            old, new = _edges(received.before[node]), _edges(entity)
            for relation, target in sorted(old ^ new):
                moved[Edge(entity.source, entity.id, relation, target)] = (relation, target) in new
        moved |= self._joined(received)
        touched = dict(received.changed)
        changes: list[EdgeChange] = []
        for (edge, own), joined in zip(moved.items(), self._joins.named(moved), strict=True):
            head, tail = _head(edge), node_of(curie(edge.source, edge.tail))
            added = own or joined
            changes.append(EdgeChange(head, relation_of(edge.source, edge.relation), tail, added))
            changes.append(EdgeChange(tail, relation_of(edge.source, f"~{edge.relation}"), head, added))
            touched[tail] = None
        if changes:
            self._graph.connect(changes)
        return touched

    def _joined(self, received: Received) -> dict[Edge, bool]:
        """The edges that joins began or ceased to name, and whether the head's own row names them."""
        heads = dict.fromkeys(map(_head, received.joined))
        received.changed |= heads
        stored = dict(zip(heads, self._graph.entities(heads), strict=True))
        own = {node: _edges(entity) for node, entity in stored.items()}
        return {edge: (edge.relation, edge.tail) in own[_head(edge)] for edge in received.joined}


def _entity(event: EntityEvent, message: Message) -> Entity:
    """The entity as an event has it."""
    cause = message.cause
    where = (cause.topic, cause.partition, cause.offset, message.timestamp)
    if isinstance(event, Delete):
        return Entity(event.source, event.id, "", {}, {}, event.version, True, *where)
    return Entity(
        event.source, event.id, event.type, event.attributes, event.relations, event.version, False, *where
    )


def _placed(what: str, message: Message) -> str:
    cause = message.cause
    return f"{what[:500]} in {cause.topic}, partition {cause.partition}, offset {cause.offset}"


def _event(change: Change | UnreadableKey) -> EntityEvent | None:
    """What a change says of an entity."""
    event = change.event if isinstance(change, RowChange) else change
    return event if isinstance(event, Upsert | Delete) else None


def _is_same(one: Entity, other: Entity) -> bool:
    """Compared as they are written: in Python 1, 1.0 and true are equal."""
    return msgspec.msgpack.encode(one) == msgspec.msgpack.encode(other)


def _edges(entity: Entity | None) -> set[tuple[str, str]]:
    if entity is None:
        return set()
    return {(name, target) for name, targets in entity.relations.items() for target in targets}


def _head(edge: Edge) -> int:
    return node_of(curie(edge.source, edge.head))
