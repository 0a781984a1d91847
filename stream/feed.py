"""Producing entity events: from files to the entity topic. What is in the files: `stream/catalogue.py`."""

from collections.abc import Iterable

from stream.broker.producing import Progress, produce
from stream.broker.topics import ensure_topics, to_produce
from stream.config import Settings
from stream.events import EntityEvent, encode, event_key


def feed_events(
    settings: Settings,
    events: Iterable[EntityEvent],
    progress: Progress | None = None,
    settled: Progress | None = None,
) -> int:
    """Produces events in order, keyed by entity; their number, when the broker has acknowledged all.

    Args:
        settled: is told now and then, and when it is interrupted, how many the broker has acknowledged.

    Raises:
        BrokerError: unreachable, no such topic, or an event was not delivered.
        InvalidInput: an event is too large for a message.
    """
    ensure_topics(settings, to_produce(settings, "entities"))
    topic = settings.topics.entities
    records = ((topic, event_key(event), encode(event)) for event in events)
    return produce(settings, records, progress, settled)
