"""The current alignments, or the log of alignment events.

Who may write to these topics may write anything. A record that is none is skipped, counted, and the first one
named; `strict` ends with it. One that a later record has replaced is not looked at.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from stream import console
from stream.broker.folding import Partitions
from stream.broker.reading import Start, parse_date, read_on, read_topic
from stream.config import Settings
from stream.consuming.export import FORMATS
from stream.consuming.table import header, row, withdrawn_row
from stream.errors import ConfigError, InvalidInput
from stream.events import (
    UNDECODABLE,
    AlignmentEvent,
    AlignmentRecord,
    alignment_key,
    split_curie,
    unescape_bar,
)

_T = TypeVar("_T", bound=AlignmentRecord)
_record = msgspec.json.Decoder(AlignmentRecord)
_event = msgspec.json.Decoder(AlignmentEvent)


class Filter(msgspec.Struct, frozen=True):
    """Which alignments are wanted. An empty set wants all."""

    sources: frozenset[str] = frozenset()  # either side comes from one of them
    types: frozenset[str] = frozenset()  # either side is of one of them
    min_confidence: float = 0.0
    entities: frozenset[str] = frozenset()  # CURIEs; either side is one of them

    def wants(self, record: AlignmentRecord) -> bool:
        return (
            record.confidence >= self.min_confidence
            and (not self.types or bool({record.subject_category, record.object_category} & self.types))
            and self.wants_pair(record.subject_id, record.object_id)
        )

    def wants_pair(self, subject_id: str, object_id: str) -> bool:
        """Whether the pair is wanted, as far as the two names say."""
        pair = {subject_id, object_id}
        return (not self.entities or bool(pair & self.entities)) and (
            not self.sources or any(split_curie(name)[0] in self.sources for name in pair)
        )


class Skipped:
    """Records that cannot be read: told once, and how many there are where reading ends."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self.count = 0

    def skip(self, error: InvalidInput) -> None:
        """Takes note of a record. Raises its error if `strict`."""
        if self._strict:
            raise error
        self.count += 1
        if self.count == 1:
            console.log.warning(f"skipped a record that is none: {error}; further ones are only counted")

    def tell(self) -> None:
        if self.count > 1:
            console.log.warning(f"skipped {self.count:,} records in all")


def follow(
    settings: Settings,
    *,
    log: bool,
    until_end: bool,
    start: Start,
    wanted: Filter,
    as_json: bool,
    strict: bool = False,
) -> Generator[str, None, None]:
    """Lines to print: the current alignments and then their changes, or the log of events.

    The current alignments are folded by key before any is printed, so that all of them held when reading
    began. A pair that no longer passes the filter is printed as withdrawn, as if no longer aligned.

    Raises:
        BrokerError: as `read_topic`.
        InvalidInput: a record is none, if `strict`.
    """
    if not as_json:
        yield header()
    topic = settings.topics.alignment_events if log else settings.topics.alignments
    current = Partitions[Any]()
    has_ended = log
    view, skipped = _View(wanted, as_json), Skipped(strict=strict)

    def show(record: Any) -> Iterator[str]:
        try:
            yield from view.event(record) if log else view.record(record)
        except InvalidInput as error:
            skipped.skip(error)

    for record in read_on(settings, topic, start):
        if record is None:
            for known in current.newest().values():
                yield from show(known)
            current.clear()
            has_ended = True
            if until_end:
                skipped.tell()
                return
        elif has_ended:
            yield from show(record)
        else:
            current.fold(record, None if record.value is None else record)


class _View:
    """Lines for the alignments that pass a filter, and for those that no longer do."""

    def __init__(self, wanted: Filter, as_json: bool) -> None:
        self._wanted = wanted
        self._as_json = as_json
        self._shown: dict[bytes, bool] = {}  # by key, whether the pair passed when last seen

    def event(self, record: Any) -> Iterator[str]:
        """The line of an event. Raises InvalidInput."""
        event = decode_event(record)
        if self._wanted.wants(event):
            yield record.value.decode() if self._as_json else row(event.event, event)

    def record(self, record: Any) -> Iterator[str]:
        """The line of a current alignment, or of its end. Raises InvalidInput."""
        key = record.key or b""
        if record.value is not None:
            alignment = decode_record(record)
            passed = self._shown.get(key, False)
            self._shown[key] = self._wanted.wants(alignment)
            if self._shown[key]:
                yield record.value.decode() if self._as_json else row("same", alignment)
            elif passed:
                yield self._gone(alignment.subject_id, alignment.object_id)
            return
        pair = _pair(record)
        if self._shown.pop(key, self._wanted.wants_pair(*pair)):
            yield self._gone(*pair)

    def _gone(self, subject_id: str, object_id: str) -> str:
        if not self._as_json:
            return withdrawn_row(subject_id, object_id)
        gone = {"subject_id": subject_id, "object_id": object_id, "withdrawn": True}
        return msgspec.json.encode(gone).decode()


def export(
    settings: Settings, name: str, wanted: Filter, *, strict: bool = False
) -> Generator[Sequence[str], None, None]:
    """The current alignments as lines of one of `stream.consuming.export.FORMATS`, each in cells.

    Raises:
        BrokerError: as `read_topic`.
        InvalidInput: a record is none, if `strict`.
    """
    current = current_alignments(settings, strict=strict)
    yield from FORMATS[name](settings, (record for record in current.values() if wanted.wants(record)))


def parse_start(text: str) -> Start:
    """beginning, end, an offset, or a date in ISO 8601; UTC unless it says otherwise.

    Raises:
        ConfigError: the text is none of them.
    """
    if text in ("beginning", "end"):
        return "beginning" if text == "beginning" else "end"
    if text.isdecimal() and text.isascii() and len(text) < 19:
        return int(text)
    try:
        return parse_date(text)
    except ValueError:
        raise ConfigError(
            f"--offset {text}: beginning, end, an offset, or a date such as 2026-01-31 or 2026-01-31T12:00:00"
        ) from None


def current_alignments(settings: Settings, *, strict: bool = False) -> dict[str, AlignmentRecord]:
    """The alignment topic folded by key: what is aligned now.

    Raises:
        BrokerError: as `read_topic`.
        InvalidInput: a record is none, if `strict`.
    """
    current = Partitions[AlignmentRecord | InvalidInput]()
    for record in read_topic(settings, settings.topics.alignments):
        current.fold(record, None if record.value is None else _decoded_or_error(record))
    skipped = Skipped(strict=strict)
    alignments = {}
    for key, found in current.newest().items():
        if isinstance(found, InvalidInput):
            skipped.skip(found)
        else:
            alignments[key.decode()] = found
    skipped.tell()
    return alignments


def _decoded_or_error(record: Any) -> AlignmentRecord | InvalidInput:
    try:
        return decode_record(record)
    except InvalidInput as error:
        return InvalidInput(error.reason, str(error))  # the one that was raised holds the whole record


def decode_record(record: Any) -> AlignmentRecord:
    """The alignment record in a Kafka record.

    Raises:
        InvalidInput: it is none, or has the key of another pair.
    """
    alignment = _decode(_record, record)
    if record.key != alignment_key(alignment.subject_id, alignment.object_id).encode():
        raise _malformed(record, "the key is not that of its pair")
    return alignment


def decode_event(record: Any) -> AlignmentEvent:
    """The alignment event in a Kafka record. Raises InvalidInput if it is none."""
    return _decode(_event, record)


def _decode(decoder: "msgspec.json.Decoder[_T]", record: Any) -> _T:
    value = record.value or b""
    try:
        decoded = decoder.decode(value)
        value.decode()  # of fields that it does not know, the decoder does not say
        for name in (decoded.subject_id, decoded.object_id):
            split_curie(name)
    except (*UNDECODABLE, InvalidInput) as error:
        raise _malformed(record, str(error)) from error
    if not 0 <= decoded.confidence <= 1:
        raise _malformed(record, f"a confidence of {decoded.confidence}")
    return decoded


def _pair(record: Any) -> tuple[str, str]:
    """The names of the pair that a tombstone withdraws. Raises InvalidInput if its key names none."""
    try:
        subject_id, object_id = map(unescape_bar, (record.key or b"").decode().split("|"))
        for name in (subject_id, object_id):
            split_curie(name)
    except (ValueError, InvalidInput) as error:
        raise _malformed(record, f"the key names no pair: {error}") from error
    return subject_id, object_id


def _malformed(record: Any, problem: str) -> InvalidInput:
    place = f"{record.topic}, partition {record.partition}, offset {record.offset}"
    return InvalidInput("malformed", f"{place}: {problem}")
