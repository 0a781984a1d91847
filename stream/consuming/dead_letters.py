"""Messages that could not be used: reading them, and sending them again to where they came from.

A dead letter has the original key and value. Its headers say at which stage and why it was refused,
and from which topic, partition and offset it came. After a crash one message may have two letters, which
count as one. A letter that was too large for a message was shortened, and cannot be sent again.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from stream.broker.producing import Record, produce
from stream.broker.reading import read_topic
from stream.broker.topics import input_specs
from stream.config import Settings
from stream.engine.interface import TRUNCATED


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused message, why it was refused, and where it stood."""

    key: bytes | None
    value: bytes | None
    reason: str
    stage: str
    message: str
    topic: str
    partition: int
    offset: int
    when: str  # it was refused; ISO 8601, UTC
    truncated: bool

    def to_json(self) -> bytes:
        """One line. Bytes that are not UTF-8 become {"base64": ...}."""
        shown = msgspec.structs.asdict(self)
        return msgspec.json.encode(shown | {"key": _text(self.key), "value": _text(self.value)})


class Selection(msgspec.Struct, frozen=True):
    """Which dead letters are chosen. An empty set chooses all."""

    reasons: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()
    offsets: frozenset[int] = frozenset()  # of the original messages

    def wants(self, letter: DeadLetter) -> bool:
        return all(
            not chosen or value in chosen
            for chosen, value in (
                (self.reasons, letter.reason),
                (self.topics, letter.topic),
                (self.offsets, letter.offset),
            )
        )


class Retry(NamedTuple):
    """Messages to send again, their number by topic and reason, and the number of others by obstacle."""

    records: list[Record]
    counts: Counter[tuple[str, str]]
    obstacles: Counter[str]


def read_dead_letters(settings: Settings, selection: Selection) -> Iterator[DeadLetter]:
    """The dead letters in the topic, one for each original message. Raises BrokerError as `read_topic`."""
    seen = set()
    for record in read_topic(settings, settings.topics.dead_letters):
        letter = _letter(record)
        place = (letter.topic, letter.partition, letter.offset)
        if selection.wants(letter) and place not in seen:
            seen.add(place)
            yield letter


def plan_retry(settings: Settings, letters: Iterable[DeadLetter]) -> Retry:
    """Sorts out what can be sent again: whole messages, to topics that a worker with these settings reads."""
    inputs = {spec.name for spec in input_specs(settings)}
    plan = Retry([], Counter(), Counter())
    for letter in letters:
        if letter.truncated:
            plan.obstacles["shortened, because they were too large for a message"] += 1
        elif letter.topic not in inputs:
            plan.obstacles[f"from {letter.topic}, which is no input in these settings"] += 1
        elif letter.key is None and letter.value is None:
            plan.obstacles["without key and value"] += 1
        else:
            plan.records.append((letter.topic, letter.key, letter.value))
            plan.counts[letter.topic, letter.reason] += 1
    return plan


def resend(settings: Settings, plan: Retry) -> int:
    """Produces the original messages. Returns their number. Raises BrokerError if one is not delivered."""
    return produce(settings, plan.records)


def _letter(record: Any) -> DeadLetter:
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    return DeadLetter(
        key=record.key,
        value=record.value,
        reason=headers.get("reason", "unknown"),
        stage=headers.get("stage", "unknown"),
        message=headers.get("message", ""),
        # a record of another program may lack these headers; then it stands for itself
        topic=headers.get("topic", record.topic),
        partition=_number(headers.get("partition"), record.partition),
        offset=_number(headers.get("offset"), record.offset),
        when=datetime.fromtimestamp(record.timestamp / 1000, UTC).isoformat(timespec="milliseconds"),
        truncated=TRUNCATED in headers,
    )


def _number(header: str | None, otherwise: int) -> int:
    # at most 18 digits: larger numbers are no offsets, and not every reader of JSON can hold them
    return int(header) if header is not None and re.fullmatch(r"[0-9]{1,18}", header) else otherwise


def _text(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
