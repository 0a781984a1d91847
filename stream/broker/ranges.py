"""Reading topics again: which part of them, and all of it in the order in which it was written.

Partitions are merged by the time of their next message, so that the order is a function of the topics and
not of how fast which broker answered.
"""

import heapq
import re
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from kafka import TopicPartition

from stream.broker.reading import POLL_MS, as_message, bounds, offsets_at, open_consumer, parse_date
from stream.broker.topics import existing_partitions, input_specs
from stream.config import Settings
from stream.errors import ConfigError
from stream.events import Message

MAX_DURATION: Final = timedelta(days=365_000)  # a moment that far back is still a date
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


class Range(msgspec.Struct, frozen=True):
    """Offsets `start` to `end` (exclusive) of one partition. Compaction may have left fewer messages."""

    topic: str
    partition: int
    start: int
    end: int


def parse_datetime(option: str, text: str) -> datetime:
    """ISO 8601; UTC where no offset is given.

    Raises:
        ConfigError: it is none.
    """
    try:
        return parse_date(text)
    except ValueError as error:
        raise ConfigError(
            f"{option} {text}: no date; write it as 2026-05-31T18:30:00 (UTC) or with +02:00"
        ) from error


def parse_duration(option: str, text: str) -> timedelta:
    """ISO 8601 in days, hours, minutes and seconds: PT6H, P1DT30M.

    Raises:
        ConfigError: it is none, or too long.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ConfigError(f"{option} {text}: no duration; write it as PT6H, P7D or P1DT30M")
    try:
        days, hours, minutes, seconds = (int(group or 0) for group in found.groups())
        duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (OverflowError, ValueError):  # also of thousands of digits
        duration = timedelta.max
    if duration > MAX_DURATION:
        raise ConfigError(f"{option} {text}: too long; at most P{MAX_DURATION.days}D")
    return duration


def find_ranges(settings: Settings, since: datetime | None, until: datetime | None) -> list[Range]:
    """What the input topics hold between two moments (`until` exclusive), or from the beginning to the end.

    Raises:
        BrokerError: no broker, or a topic is missing or may not be read.
    """
    counts = existing_partitions(settings, input_specs(settings))
    partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
    with open_consumer(settings) as consumer:
        found = bounds(consumer, partitions)

        starts, ends = (
            {} if moment is None else offsets_at(consumer, found, moment) for moment in (since, until)
        )
    ranges = []
    for tp in partitions:
        first, end = found[tp]
        start = starts.get(tp, first)
        ranges.append(Range(tp.topic, tp.partition, start, max(start, ends.get(tp, end))))
    return ranges


def read_ranges(settings: Settings, ranges: Sequence[Range]) -> Iterator[Message]:
    """All messages of the ranges; those of one partition by offset, partitions by the time of their next one.

    Raises:
        BrokerError: unreachable, or not allowed.
    """
    ends = {TopicPartition(part.topic, part.partition): part.end for part in ranges if part.start < part.end}
    fetched: dict[TopicPartition, deque[Message]] = {tp: deque() for tp in ends}
    heads: list[tuple[float, TopicPartition]] = []
    with open_consumer(settings) as consumer:
        consumer.assign(list(ends))
        for part in ranges:
            if part.start < part.end:
                consumer.seek(TopicPartition(part.topic, part.partition), part.start)
        awaited = set(ends)  # whose next message is not known
        while heads or awaited:
            if awaited:
                consumer.resume(*awaited)
                consumer.pause(*(tp for tp in ends if tp not in awaited))
                for tp, records in consumer.poll(timeout_ms=POLL_MS).items():
                    fetched[tp].extend(as_message(record) for record in records if record.offset < ends[tp])
                for tp in list(awaited):
                    if fetched[tp]:
                        heapq.heappush(heads, (fetched[tp][0].timestamp, tp))
                        awaited.discard(tp)
                    elif consumer.position(tp) >= ends[tp]:
                        awaited.discard(tp)
                continue
            _, tp = heapq.heappop(heads)
            yield fetched[tp].popleft()
            if fetched[tp]:
                heapq.heappush(heads, (fetched[tp][0].timestamp, tp))
            elif consumer.position(tp) < ends[tp]:
                awaited.add(tp)
