"""Sending refused messages once more, and never past what came since.

A topic's last word about a key is what a rebuilt state begins with, so an old message behind a newer one
would take the entity back in time for good. A message is therefore sent again only while it stands in its
topic, byte for byte, and nothing about the same key follows it. That also means that a letter brings nothing
into a topic that was not there: who may write letters has no more rights than that.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from kafka import TopicPartition

from stream.broker.producing import Record, produce
from stream.broker.ranges import Range, read_ranges
from stream.broker.reading import offsets_at, open_consumer, read_bounds, retry_header
from stream.broker.topics import existing_partitions, input_specs
from stream.changes import Change, JoinChange, LinkChange, RowChange, UnreadCell
from stream.config import Settings
from stream.consuming.dead_letters import DeadLetter
from stream.errors import BrokerError, InvalidInput
from stream.events import Cause, Message, alignment_key, curie
from stream.mapping.decoder import make_decoder

SETTLE_SECONDS = 60.0  # for transactions that are open while messages are sent
LOOK_SECONDS = 0.2

Place = tuple[str, int]  # topic, partition
Subject = tuple[str, bytes | None]  # topic, key or what stands for it


class Retry(NamedTuple):
    """What can be sent again, what stands in the way of the others, and how far the topics were looked at."""

    letters: list[DeadLetter]
    obstacles: dict[Cause, str]  # by the place of the letter's message
    ends: Mapping[Place, int]

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """How many are to be sent, by topic and reason."""
        return Counter((letter.topic, letter.reason) for letter in self.letters)


def plan_retry(settings: Settings, letters: Iterable[DeadLetter]) -> Retry:
    """Sorts out what can be sent again. Reads the topics concerned from the first of these messages on.

    Raises:
        BrokerError: unreachable, or the topics concerned may not be read and written.
    """
    letters = list(letters)
    inputs = {spec.name for spec in input_specs(settings)}
    subjects = _Subjects(settings)
    obstacles: dict[Cause, str] = {}
    candidates: dict[Cause, Subject] = {}
    for letter in letters:
        subject = subjects.of(Message(letter.place, letter.key, letter.value, 0.0))
        if letter.truncated:
            obstacles[letter.place] = "shortened, because they were too large for a message"
        elif letter.topic not in inputs:
            obstacles[letter.place] = f"from {letter.topic}, which is no input in these settings"
        elif subject[1] is None:
            obstacles[letter.place] = "without a key, and as unusable as before with these settings"
        else:
            candidates[letter.place] = subject
    history = _look(settings, candidates, subjects) if candidates else _History({}, {}, {})
    for letter in letters:
        place, topic, original = letter.place, letter.topic, history.originals.get(letter.place)
        if place not in candidates:
            continue
        if original is None or (original.key, original.value) != (letter.key, letter.value):
            obstacles[place] = f"no longer in {topic}, which so cannot say whether something newer came"
        elif _is_overtaken(original, history.last[candidates[place]]):
            obstacles[place] = f"overtaken by something newer in {topic}"
    sent = [letter for letter in letters if letter.place not in obstacles]
    return Retry(sent, obstacles, history.ends)


def checked(settings: Settings, letters: Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """The letters, with what keeps them from being sent again. Raises BrokerError as `plan_retry`."""
    letters = list(letters)
    obstacles = plan_retry(settings, letters).obstacles
    for letter in letters:
        yield msgspec.structs.replace(letter, obstacle=obstacles.get(letter.place))


def resend(settings: Settings, plan: Retry) -> int:
    """Produces the original bytes into the partitions that they came from; their number.

    What came between the look and the sending is sent once more behind it, until nothing has come.

    Raises:
        BrokerError: a message is not delivered, or the topics cannot be read.
    """
    subjects = _Subjects(settings)
    messages = [Message(letter.place, letter.key, letter.value, 0.0, letter.first) for letter in plan.letters]
    wanted = {subjects.of(message) for message in messages}
    deadline = time.monotonic() + SETTLE_SECONDS
    while messages:
        produce(settings, map(_again, messages))
        news, last = _since(settings, plan.ends, subjects, wanted)
        while wanted - last.keys():  # a transaction that is open hides the end of the topic
            if time.monotonic() > deadline:
                topics = ", ".join(sorted({topic for topic, _ in wanted}))
                raise BrokerError(
                    f"sent, but a transaction is open in {topics}; "
                    "whether it brings something newer is not known; look again when it has ended"
                )
            time.sleep(LOOK_SECONDS)
            news, last = _since(settings, plan.ends, subjects, wanted)
        messages = [
            message
            for subject, message in news.items()
            if last[subject] is not message and last[subject].retry_of != message.cause
        ]
    return len(plan.letters)


def _since(
    settings: Settings, ends: Mapping[Place, int], subjects: "_Subjects", wanted: Set[Subject]
) -> tuple[dict[Subject, Message], dict[Subject, Message]]:
    """The last message of each subject after the ends: of those that are no retries, and of all."""
    found = read_bounds(settings, ends)
    ranges = [Range(*place, end, found[TopicPartition(*place)][1]) for place, end in ends.items()]
    news: dict[Subject, Message] = {}
    last: dict[Subject, Message] = {}
    for message in read_ranges(settings, ranges):
        if (subject := subjects.of(message)) in wanted:
            last[subject] = message
            if message.retry_of is None:
                news[subject] = message
    return news, last


class _Subjects:
    """What messages are about: their key; without one, what these settings make of the value."""

    def __init__(self, settings: Settings) -> None:
        topics = settings.topics
        self._decode = make_decoder(settings.sources, topics.entities, topics.links)

    def of(self, message: Message) -> Subject:
        """None for what has no key and cannot be understood."""
        topic, key = message.cause.topic, message.key
        if key is None and message.value is not None:
            try:
                changes = self._decode(message)
            except InvalidInput:
                return topic, None
            key = _name(changes[-1]).encode() if changes else None  # the row's own entity is the last
        return topic, key


class _History(NamedTuple):
    originals: dict[Cause, Message]
    last: dict[Subject, dict[int, tuple[int, float]]]  # by partition the latest offset and time
    ends: dict[Place, int]


def _look(settings: Settings, letters: Mapping[Cause, Subject], subjects: _Subjects) -> _History:
    """What the topics say about the subjects, from where the letters' messages stand on.

    In other partitions, where a key may have gone when some were added, from the time of the oldest message.
    """
    starts: dict[Place, int] = {}
    for cause in letters:
        place = (cause.topic, cause.partition)
        starts[place] = min(cause.offset, starts.get(place, cause.offset))
    names = {topic for topic, _ in starts}
    specs = [
        msgspec.structs.replace(spec, access=("READ", "WRITE"))
        for spec in input_specs(settings)
        if spec.name in names
    ]
    counts = existing_partitions(settings, specs)
    found = read_bounds(settings, [(topic, n) for topic, count in counts.items() for n in range(count)])
    history = _History({}, {}, {(tp.topic, tp.partition): end for tp, (_, end) in found.items()})
    wanted = set(letters.values())

    def read(ranges: Mapping[Place, tuple[int, int]]) -> None:
        for message in read_ranges(settings, [Range(*place, *part) for place, part in ranges.items()]):
            cause = message.cause
            if cause in letters:
                history.originals[cause] = message
            if (subject := subjects.of(message)) in wanted:
                last = history.last.setdefault(subject, {})
                offset, moment = last.get(cause.partition, (-1, 0.0))
                last[cause.partition] = max(offset, cause.offset), max(moment, message.timestamp)

    own = {
        place: (max(start, found[TopicPartition(*place)][0]), history.ends[place])
        for place, start in starts.items()
        if place in history.ends
    }
    read(own)
    if history.originals and any(count > 1 for count in counts.values()):
        oldest = min(message.timestamp for message in history.originals.values())
        moment = datetime.fromtimestamp(min(max(oldest, 0.0), time.time()), UTC)
        with open_consumer(settings) as consumer:
            since = {(tp.topic, tp.partition): n for tp, n in offsets_at(consumer, found, moment).items()}
        stops = {place: own[place][0] if place in own else end for place, end in history.ends.items()}
        read({place: (start, stops[place]) for place, start in since.items() if start < stops[place]})
    return history


def _is_overtaken(original: Message, last: Mapping[int, tuple[int, float]]) -> bool:
    cause = original.cause
    return any(
        offset > cause.offset if partition == cause.partition else moment >= original.timestamp
        for partition, (offset, moment) in last.items()
    )


def _name(change: Change) -> str:
    if isinstance(change, LinkChange):
        return alignment_key(change.left, change.right)
    if isinstance(change, JoinChange):
        return change.row.hex()
    event = change.event if isinstance(change, RowChange) else change
    assert not isinstance(event, UnreadCell)  # they stand before the entity
    return curie(event.source, event.id)


def _again(message: Message) -> Record:
    cause = message.cause
    header = retry_header(message.retry_of or cause)
    return Record(cause.topic, message.key, message.value, cause.partition, [header])
