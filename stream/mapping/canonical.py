"""Canonical events as messages, and back."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from stream.events import Cause, EntityEvent, Message, decode_entity_event


def as_messages(events: Iterable[EntityEvent]) -> Iterator[Message]:
    """The events as messages of one partition."""
    encode = msgspec.json.Encoder().encode
    for offset, event in enumerate(events):
        yield Message(Cause("events", 0, offset), None, encode(event), 0.0)


def decode_canonical(message: Message) -> Sequence[EntityEvent]:
    """The event of a message from `as_messages`."""
    return [decode_entity_event(message.key, message.value)]
