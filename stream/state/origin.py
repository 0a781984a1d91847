"""Whether the broker's topics are those that a state was made of.

A state holds what it has applied of its input topics. From another topic, and from one that was cut back and
went on otherwise, it would skip the first messages, as applied already, and it would never know what only
the former messages had said.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kafka import TopicPartition

from index.errors import StateError
from stream.broker.reading import BOUNDS_SECONDS, POLL_MS, Bounds, as_message, bounds, open_consumer
from stream.broker.topics import Identity
from stream.config import Settings
from stream.engine.origin import Applied, Place, trace
from stream.errors import BrokerError

REBUILD: Final = "take another state.dir, or delete this one to rebuild it"
_HOW: Final = "a disk restored, an unclean election of a leader"


def check_topic_ids(
    state: str, known: Mapping[str, str], found: Mapping[str, Identity], topics: Iterable[str], remedy: str
) -> None:
    """These topics have to be the ones that the state knows.

    Args:
        state: what it is called.
        known: the ids of topics, as the state has them.
        found: the topics that the broker has now.
        remedy: what to do otherwise.

    Raises:
        StateError: a topic is gone, or another one has its name.
    """
    for topic in topics:
        if topic not in found:
            raise StateError(
                f"topic {topic}, which {state} was made with, does not exist any more; if it was deleted on "
                f"purpose, {remedy}"
            )
        if is_another(topic, known, found):
            raise StateError(
                f"topic {topic} is not the one that {state} was made with: it was deleted and created again "
                f"(its id is {found[topic].id}, not {known[topic]}), or this is another broker; {remedy}"
            )


def is_another(topic: str, known: Mapping[str, str], found: Mapping[str, Identity]) -> bool:
    """Whether another topic has this name now, as far as ids are known."""
    now = found[topic].id if topic in found else None
    return now is not None and known.get(topic, now) != now


def check_logs(settings: Settings, state: str, applied: Mapping[Place, Applied], remedy: str) -> Bounds:
    """Where these partitions begin and end, if they still hold what the state has applied.

    Compaction may have removed the last messages applied; where all of them are gone, nothing can be told.

    Args:
        state: what it is called.
        remedy: what to do otherwise.

    Raises:
        StateError: a partition ends before the last message applied, or has another message there.
        BrokerError: no broker, or no answer.
    """
    with open_consumer(settings) as consumer:
        found = bounds(consumer, [TopicPartition(*place) for place in applied])
        for tp, (_, end) in found.items():
            if end < applied[tp].following:
                raise StateError(
                    f"{state} has applied {tp.topic}, partition {tp.partition}, up to offset "
                    f"{applied[tp].following - 1}, but that ends at {end}: it was cut back ({_HOW}), or "
                    f"this is another broker; {remedy}"
                )
        starts = {
            tp: max(first, applied[tp].traces[0].offset)
            for tp, (first, _) in found.items()
            if applied[tp].traces and applied[tp].traces[-1].offset >= first
        }
        digests = _digests(consumer, starts, {tp: applied[tp].following for tp in starts})
        for tp in starts:
            for known in applied[tp].traces:
                if digests.get((tp, known.offset), known.digest) != known.digest:
                    raise StateError(
                        f"the message at offset {known.offset} of {tp.topic}, partition {tp.partition}, is "
                        f"not the one that {state} has applied: the topic was cut back ({_HOW}) and has gone "
                        f"on otherwise; {remedy}"
                    )
        return found


def _digests(
    consumer: Any, starts: Mapping[TopicPartition, int], stops: Mapping[TopicPartition, int]
) -> dict[tuple[TopicPartition, int], int]:
    """Of the messages from `starts` to `stops` (exclusive), by partition and offset."""
    digests: dict[tuple[TopicPartition, int], int] = {}
    consumer.assign(list(starts))
    for tp, start in starts.items():
        consumer.seek(tp, start)
    deadline = time.monotonic() + BOUNDS_SECONDS
    while waiting := [tp for tp in starts if consumer.position(tp) < stops[tp]]:
        for tp, records in consumer.poll(timeout_ms=POLL_MS).items():
            for record in records:
                if record.offset < stops[tp]:
                    digests[tp, record.offset] = trace(as_message(record)).digest
        if time.monotonic() > deadline:
            raise BrokerError(f"no answer to a fetch of {', '.join(sorted({tp.topic for tp in waiting}))}")
    return digests
