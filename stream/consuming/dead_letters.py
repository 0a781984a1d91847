"""Messages that could not be used.

A dead letter has the original key and value. Its headers say at which stage and why it was refused,
and from which topic, partition and offset it came. A message that was sent again and is refused again gets
another letter, which names the place of the first; and after a crash one message may have two. Of all
letters that go back to one message only the newest counts.
"""

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from stream.broker.reading import read_topic
from stream.config import Settings
from stream.engine.interface import RETRY_OF, TRUNCATED
from stream.events import Cause


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
    when: str | None  # it was refused; ISO 8601, UTC. None for a time that no calendar has
    truncated: bool
    retry_of: Cause | None = None  # where the message stood before it was sent again
    obstacle: str | None = None  # what keeps it from being sent again, where that was looked at

    @property
    def place(self) -> Cause:
        """Where the refused message stands."""
        return Cause(self.topic, self.partition, self.offset)

    @property
    def first(self) -> Cause:
        """Where it stood first: the same for all letters that go back to one message."""
        return self.retry_of or self.place

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
            not chosen or chosen & values
            for chosen, values in (
                (self.reasons, {letter.reason}),
                (self.topics, {letter.topic}),
                (self.offsets, {letter.offset, letter.first.offset}),
            )
        )


def read_dead_letters(settings: Settings, selection: Selection) -> Iterator[DeadLetter]:
    """The dead letters in the topic, one for each original message. Raises BrokerError as `read_topic`.

    It reads the topic twice, as all letters may be larger than memory: which is the newest, and what it says.
    """
    newest: dict[Cause, tuple[int, tuple[int, int]]] = {}  # by first place: offset, and where the letter is
    for record in read_topic(settings, settings.topics.dead_letters):
        letter = _letter(record)
        if letter.first not in newest or letter.offset > newest[letter.first][0]:
            newest[letter.first] = letter.offset, (record.partition, record.offset)
    for record in read_topic(settings, settings.topics.dead_letters):
        letter = _letter(record)
        _, place = newest.get(letter.first, (0, None))
        if place == (record.partition, record.offset) and selection.wants(letter):
            yield letter


def _letter(record: Any) -> DeadLetter:
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value is not None}
    # what somebody else put there has no such headers or others in their place; then it stands for itself
    topic = headers.get("topic", record.topic)
    partition, colon, offset = headers.get(RETRY_OF, "").partition(":")
    first = Cause(topic, _number(partition, -1), _number(offset, -1)) if colon else None
    return DeadLetter(
        key=record.key,
        value=record.value,
        reason=headers.get("reason", "unknown"),
        stage=headers.get("stage", "unknown"),
        message=headers.get("message", ""),
        topic=topic,
        partition=_number(headers.get("partition"), record.partition),
        offset=_number(headers.get("offset"), record.offset),
        when=_date(record.timestamp),
        truncated=TRUNCATED in headers,
        retry_of=first if first is not None and min(first.partition, first.offset) >= 0 else None,
    )


def _number(header: str | None, otherwise: int) -> int:
    # at most 18 digits: larger numbers are no offsets, and not every reader of JSON can hold them
    return int(header) if header is not None and re.fullmatch(r"[0-9]{1,18}", header) else otherwise


def _date(milliseconds: int) -> str | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def _text(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
