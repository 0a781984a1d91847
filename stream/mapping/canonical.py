"""Canonical events as messages, and back."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stream.events import Cause, EntityEvent, Message, decode_entity_event


def as_messages(events: Iterable[EntityEvent]) -> Iterator[Message]:
    """Canonical messages, as if the events stood in one partition."""
    encode = msgspec.json.Encoder().encode
    for offset, event in enumerate(events):
        yield Message(Cause("events", 0, offset), None, encode(event), 0.0)


def decode_canonical(message: Message) -> Sequence[EntityEvent]:
    """What `as_messages` made."""
    return [decode_entity_event(message.key, message.value)]
