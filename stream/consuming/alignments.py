"""The current alignments, or the log of alignment events."""

from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import msgspec

from stream.broker.folding import fold
from stream.broker.reading import Start, parse_date, read_on, read_topic
from stream.config import Settings
from stream.consuming.export import FORMATS
from stream.consuming.table import HEADER, row, withdrawn_row
from stream.errors import ConfigError, InvalidInput
from stream.events import UNDECODABLE, AlignmentEvent, AlignmentRecord, split_curie, unescape_bar

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


def follow(
    settings: Settings, *, log: bool, until_end: bool, start: Start, wanted: Filter, as_json: bool
) -> Generator[str, None, None]:
    """Lines to print: the current alignments and then their changes, or the log of events.

    The current alignments are folded by key before any is printed, so that all of them held when reading
    began. A pair that no longer passes the filter is printed as withdrawn, as if no longer aligned.
    """
    if not as_json:
        yield HEADER
    topic = settings.topics.alignment_events if log else settings.topics.alignments
    current: dict[bytes, Any] | None = None if log else {}
    view = _View(wanted, as_json)
    for record in read_on(settings, topic, start):
        if record is None:
            for known in (current or {}).values():
                yield from view.show(known)
            current = None
            if until_end:
                return
        elif log:
            event = decode_event(record)
            if wanted.wants(event):
                yield record.value.decode() if as_json else row(event.event, event)
        elif current is None:
            yield from view.show(record)
        else:
            fold(current, record.key, None if record.value is None else record)


class _View:
    """Lines for the current alignments that pass a filter, and for those that no longer do."""

    def __init__(self, wanted: Filter, as_json: bool) -> None:
        self._wanted = wanted
        self._as_json = as_json
        self._shown: dict[bytes, bool] = {}  # by key, whether the pair passed when last seen

    def show(self, record: Any) -> Iterator[str]:
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
        pair = [unescape_bar(name) for name in key.decode(errors="replace").split("|")]
        passed = self._shown.pop(key, len(pair) == 2 and self._wanted.wants_pair(*pair))
        if passed and len(pair) == 2:
            yield self._gone(*pair)

    def _gone(self, subject_id: str, object_id: str) -> str:
        if not self._as_json:
            return withdrawn_row(subject_id, object_id)
        gone = {"subject_id": subject_id, "object_id": object_id, "withdrawn": True}
        return msgspec.json.encode(gone).decode()


def export(settings: Settings, name: str, wanted: Filter) -> Generator[str, None, None]:
    """The current alignments as lines of one of `stream.consuming.export.FORMATS`."""
    records = (record for record in current_alignments(settings).values() if wanted.wants(record))
    yield from FORMATS[name](settings, records)


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


def current_alignments(settings: Settings) -> dict[str, AlignmentRecord]:
    """The alignment topic folded by key: what is aligned now. Raises BrokerError as `read_topic`."""
    current: dict[bytes, AlignmentRecord] = {}
    for record in read_topic(settings, settings.topics.alignments):
        fold(current, record.key, None if record.value is None else decode_record(record))
    return {key.decode(): record for key, record in current.items()}


def decode_record(record: Any) -> AlignmentRecord:
    """The alignment record in a Kafka record. Raises InvalidInput if it is none."""
    return _decode(_record, record)


def decode_event(record: Any) -> AlignmentEvent:
    """The alignment event in a Kafka record. Raises InvalidInput if it is none."""
    return _decode(_event, record)


def _decode(decoder: "msgspec.json.Decoder[_T]", record: Any) -> _T:
    try:
        return decoder.decode(record.value or b"")
    except UNDECODABLE as error:
        raise InvalidInput(
            "malformed", f"{record.topic}, partition {record.partition}, offset {record.offset}: {error}"
        ) from error
