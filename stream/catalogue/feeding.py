"""Feeding: events into the entity topic, and deletions for entities that a full export no longer has."""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec

from stream.broker.folding import fold
from stream.broker.producing import Record, Report, produce
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics, to_produce
from stream.catalogue.account import Account
from stream.config import Settings
from stream.errors import ConfigError
from stream.events import UNDECODABLE, EntityEvent, encode, event_key


class _Op(msgspec.Struct):
    op: Literal["upsert", "delete"]


_op = msgspec.json.Decoder(_Op)


def feed_events(
    settings: Settings,
    events: Iterable[EntityEvent],
    progress: Report | None = None,
    settled: Report | None = None,
) -> int:
    """Produces events in order, keyed by entity. Returns their number once the broker has acknowledged all.

    Args:
        settled: is given the number of acknowledged events now and then, and after an interrupt.

    Raises:
        BrokerError: unreachable, no such topic, or an event was not delivered.
        InvalidInput: an event is too large for a message.
    """
    ensure_topics(settings, to_produce(settings, "entities"))
    topic = settings.topics.entities
    records = (Record(topic, event_key(event), encode(event)) for event in events)
    return produce(settings, records, progress, settled)


def present_entities(settings: Settings) -> Collection[bytes]:
    """The keys, `source:id`, of all entities in the entity topic that are not deleted. Raises BrokerError."""
    present: dict[bytes, Literal[True]] = {}
    for record in read_topic(settings, settings.topics.entities):
        is_gone = record.value is None or _is_delete(record.value)
        fold(present, record.key, None if is_gone else True)
    return present.keys()


def _is_delete(value: bytes) -> bool:
    try:
        return _op.decode(value).op == "delete"
    except UNDECODABLE:
        return False  # it became a dead letter; deleting its key does no harm


def gone(present: Iterable[bytes], account: Account, source: str | None) -> list[bytes]:
    """The keys of `present` that belong to a full export's sources and are not in it.

    Args:
        account: of the export.
        source: which it is of, if no entity were to say so.

    Raises:
        ConfigError: the export is empty, which is more likely a mistake.
    """
    if not account.entities:
        raise ConfigError("--delete-missing: no entity is in the files, which would delete everything")
    sources = account.sources if source is None else {source, *account.sources}
    own = tuple(f"{name}:".encode() for name in sources)
    return [
        key for key in present if key.startswith(own) and not account.exists(key.decode(errors="replace"))
    ]
