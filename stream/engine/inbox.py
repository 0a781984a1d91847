"""Steps 1 to 3: what messages mean, which of them still count, and the graph after them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from index.entity import Entity, node_of, relation_of
from index.graph import EdgeChange, GraphStore
from index.store import Store
from stream.changes import Change, Decoder, Edge, JoinChange, LinkChange, SnapshotRow
from stream.engine.interface import RETRY_OF, Counts, Output
from stream.engine.joins import JoinStore
from stream.engine.links import LinkStore
from stream.engine.origin import Origin
from stream.engine.pairs import PairId
from stream.engine.words import EntityWords
from stream.errors import InvalidInput
from stream.events import Cause, Delete, EntityEvent, Message, curie

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

    def miss(self, message: Message, what: str) -> None:
        """A deletion names what never came. If that comes still, the word kept of the deletion decides."""
        cause, counts = message.cause, self.topics[message.cause.topic]
        counts.absent += 1
        if not counts.first_absent:
            place = f"{cause.topic}, partition {cause.partition}, offset {cause.offset}"
            counts.first_absent = f"{what[:500]} in {place}"

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
        self._words = EntityWords(store)
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
        decoded: list[tuple[Message, Sequence[Change]]] = []
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
            if not isinstance(event, LinkChange | JoinChange)
            for name in [curie(event.source, event.id)]
        }
        received.before = dict(zip(names, self._graph.entities(names), strict=True))
        for message, events in decoded:
            try:
                prompt = not isinstance(events, SnapshotRow)
                applied = [self._apply(event, message, received, prompt=prompt) for event in events]
            except InvalidInput as error:
                received.refuse(message, "apply", error)
                continue
            counts = received.topics[message.cause.topic]
            if any(applied) or not events:
                counts.applied += 1
            else:
                counts.stale += 1
        return received

    def _apply(self, event: Change, message: Message, received: Received, *, prompt: bool) -> bool:
        """Puts the entity's new state into `received.after`; False if the event is stale, or changes nothing
        because what it deletes never came."""
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
        name = curie(event.source, event.id)
        node = node_of(name)
        old = received.after.get(node, received.before[node])
        if old is not None and curie(old.source, old.id) != name:
            raise InvalidInput("hash-collision", f"{name} has the same node as {old.source}:{old.id}")
        heard = self._words.hear(node, old, _entity(event, message))
        if heard is None:
            return False
        if heard.happened:
            received.after[node] = heard.entity
            if prompt:
                received.prompt.add(node)
        elif old is not None and old.version != heard.entity.version:
            received.after[node] = heard.entity  # its cause, and so its alignments, stay as they are
        if old is None and isinstance(event, Delete):
            received.miss(message, name)
            return heard.happened  # where it has a version, that counts from now on
        return True

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


def _edges(entity: Entity | None) -> set[tuple[str, str]]:
    if entity is None:
        return set()
    return {(name, target) for name, targets in entity.relations.items() for target in targets}


def _head(edge: Edge) -> int:
    return node_of(curie(edge.source, edge.head))
