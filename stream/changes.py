"""What a message changes: an entity, a link, rows of a join. A decoder makes changes of messages."""

from collections.abc import Callable, Collection, Sequence

import msgspec

from stream.events import EntityEvent, Link, Message


class RowChange(msgspec.Struct, frozen=True):
    """What a row says whose message has a key that is more, or something else, than its entity's id.

    So the key tells rows with one id apart, and names the row where it does not show the id.
    """

    event: EntityEvent


class LinkChange(msgspec.Struct, frozen=True):
    """A person's verdict on a pair, None when it is taken back."""

    left: str
    right: str
    link: Link | None


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """A relation between two entities of one source."""

    source: str
    head: str
    relation: str
    tail: str


class JoinChange(msgspec.Struct, frozen=True):
    """What a row of a join table says now: one relation, or nothing any more.

    `row` tells rows of one topic apart; two rows may say the same.
    """

    row: bytes
    edge: Edge | None


class UnreadCell(msgspec.Struct, frozen=True):
    """A filled cell of a row that its type, or a path into it, could not read. It changes nothing."""

    what: str  # the column, and why


Change = EntityEvent | RowChange | LinkChange | JoinChange | UnreadCell


class RowChanges(list[Change]):
    """What the rows of a message mean.

    Attributes:
        table: from which they came, where an envelope says it.
        own: the ids of the rows' own entities; others are made of their cells.
    """

    table: str = ""
    own: Collection[str] = ()


class SnapshotRow(RowChanges):
    """What a row of a snapshot means: it was there before the stream, as were those that come with it."""


# Turns one message into the changes that it means, or raises InvalidInput.
Decoder = Callable[[Message], Sequence[Change]]
