"""The records that cross the border of sameas, and their validation.

Entity events and links come in; alignment records, alignment events and dead letters go out. Each is a
`msgspec.Struct`: decoding is validation, and the JSON Schema is generated from the same definition.
"""

import math
import re
from typing import Final, Literal

import msgspec

from index.entity import Value, Version
from stream.errors import InvalidInput

TOOL_VERSION: Final = "0.1.0"
UNREAD = b"\0unread: "  # before what stands in place of messages that cannot be read; no event begins so
MAX_EVENT_BYTES = 1_000_000  # Kafka's default message.max.bytes leaves a little for the batch header
MAX_ID_CHARS = 1_024
MAX_CURIE_CHARS = 64 + 1 + MAX_ID_CHARS
MAX_NAME_CHARS = 1_024  # of a type, an attribute, a relation or an author; all of them stand in records
MAX_NAMES = 1_000  # attributes, and relations, of an entity: the state keeps every name for good
# Raised by msgspec for bytes that are no such record: also for invalid UTF-8, and for deep nesting.
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
NOTHING = (b"", b"null", b'""')  # values that are there, and that nothing can be meant by
SOURCE_PATTERN = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_BAR_RE = re.compile(r"%((?:25)*7C)")
_ESCAPED_RE = re.compile(r"%25((?:25)*7C)")


class Upsert(msgspec.Struct, frozen=True, tag_field="op", tag="upsert", forbid_unknown_fields=True):
    """An entity's full state. Relations point at ids of the same source, which may arrive later or never."""

    source: str
    id: str
    type: str
    attributes: dict[str, Value] = {}
    relations: dict[str, list[str]] = {}
    version: Version | None = None


class Delete(msgspec.Struct, frozen=True, tag_field="op", tag="delete"):
    """An entity's end. Further fields of the deleted state are allowed and ignored."""

    source: str
    id: str
    version: Version | None = None


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict on one pair (topic `sameas.links`); a tombstone with the same key takes it back."""

    left: str
    right: str
    verdict: Literal["same", "different"] = "same"
    author: str = ""


class Cause(msgspec.Struct, frozen=True, order=True):
    """Where an input event stood: a Kafka offset, or a file's line number (partition 0)."""

    topic: str
    partition: int
    offset: int


class Message(msgspec.Struct, frozen=True):
    """One record as it came from a topic or a file, before anything was understood of it."""

    cause: Cause
    key: bytes | None
    value: bytes | None
    timestamp: float  # seconds since the epoch, as the broker recorded it
    retry_of: Cause | None = None  # the message of this topic that this one sends once more


class AttributeEvidence(msgspec.Struct, frozen=True):
    """Two attribute values that the model compared, with the share of its attention."""

    subject_attribute: str
    subject_value: Value
    object_attribute: str
    object_value: Value
    weight: float


class NeighbourEvidence(msgspec.Struct, frozen=True):
    """Two neighbours that the model compared, by relation and id, with the share of its attention."""

    subject_relation: str
    subject_neighbour: str
    object_relation: str
    object_neighbour: str
    weight: float


class Evidence(msgspec.Struct, frozen=True):
    """Why: the compared values and neighbours with the largest attention weights, largest first."""

    attributes: list[AttributeEvidence] = []
    neighbours: list[NeighbourEvidence] = []


class AlignmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The current truth about one pair: SSSOM 1.1 slots, then what sameas adds.

    `revision` is made of the offsets of the inputs that the pair rests on. Runs over the same log agree on
    it; it orders nothing, as a key that moves to another partition begins with small offsets again.
    """

    record_id: str
    subject_id: str
    subject_category: str = ""  # the entity's type; empty in records of earlier versions
    predicate_id: str = "owl:sameAs"
    object_id: str
    object_category: str = ""
    mapping_justification: str
    confidence: float
    calibrated: bool = True  # false: training had no links of this type, so that it only ranks
    mapping_tool: str = "sameas"
    mapping_tool_version: str
    mapping_date: str
    revision: int
    model: str
    cause: Cause
    evidence: Evidence


class Trigger(msgspec.Struct, frozen=True):
    """What made an alignment change, and the input that says so, null where none can be named."""

    kind: Literal["input", "neighbour", "candidate", "unknown", "promotion"]
    cause: Cause | None = None


class AlignmentEvent(AlignmentRecord, frozen=True, kw_only=True):
    """A change of the truth about one pair. A withdrawn pair shows its last confidence, and no evidence."""

    event: Literal["aligned", "revised", "withdrawn"]
    event_id: str
    trigger: Trigger | None = None  # null in events of earlier versions


EntityEvent = Upsert | Delete

_entity_decoder: msgspec.json.Decoder[EntityEvent] = msgspec.json.Decoder(Upsert | Delete)
_link_decoder = msgspec.json.Decoder(Link)


def curie(source: str, local_id: str) -> str:
    """`source:id`, an entity's name everywhere outside its own source."""
    return f"{source}:{local_id}"


def split_curie(name: str) -> tuple[str, str]:
    """The source and the local id of a CURIE.

    Raises:
        InvalidInput: there is no source before a colon, or no id after it, or it is not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of a command line or a file
        raise InvalidInput("bad-id", f"{name[:80]!r} is not UTF-8") from None
    source, colon, local_id = name.partition(":")
    if not colon:
        raise InvalidInput("bad-id", f"{name[:80]!r} is not of the form source:id")
    check_identity(source, local_id)
    return source, local_id


def check_identity(source: str, local_id: str) -> None:
    """Raises InvalidInput unless `source:local_id` can name an entity."""
    if not SOURCE_PATTERN.fullmatch(source):
        raise InvalidInput(
            "bad-id", f"source {source[:80]!r}: 1 to 64 letters, digits, '_', '.' or '-' are allowed"
        )
    if not 0 < len(local_id) <= MAX_ID_CHARS:
        raise InvalidInput("bad-id", f"id {local_id[:80]!r}: 1 to {MAX_ID_CHARS} characters are allowed")


def check_name(what: str, name: str) -> None:
    """Raises InvalidInput (`too-long`) for a name that would not fit into a record."""
    if len(name) > MAX_NAME_CHARS:
        raise InvalidInput(
            "too-long", f"{what} {name[:80]!r}...: {len(name):,} characters; {MAX_NAME_CHARS:,} are allowed"
        )


def check_count(what: str, count: int, most: int, remedy: str = "") -> None:
    """Raises InvalidInput (`too-many`) for more than `most`."""
    if count > most:
        raise InvalidInput("too-many", f"{count:,} {what}; {most:,} are allowed{remedy}")


def check_relation(name: str) -> None:
    """Raises InvalidInput for a name that begins with '~': the graph calls a relation so at its tail.

    Or for one that would not fit into a record.
    """
    check_name("relation", name)
    if name.startswith("~"):
        raise InvalidInput("bad-relation", f"relation {name[:80]!r}: a name must not begin with '~'")


def alignment_key(subject_id: str, object_id: str) -> str:
    """`subject|object`, each as `escape_bar` writes it, so that two pairs never share a key."""
    return f"{escape_bar(subject_id)}|{escape_bar(object_id)}"


def escape_bar(name: str) -> str:
    """A bar as %7C, and what looks like an escaped bar with one more 25: %7C as %257C, that as %25257C."""
    return _BAR_RE.sub(r"%25\1", name).replace("|", "%7C")


def unescape_bar(text: str) -> str:
    """The name that `escape_bar` made this text of."""
    return _ESCAPED_RE.sub(r"%\1", text.replace("%7C", "|"))


def decode_entity_event(key: bytes | None, value: bytes | None) -> EntityEvent:
    """A canonical entity event; no value is a tombstone, which the key names.

    Raises:
        InvalidInput: with reason `too-large`, `malformed`, `bad-key`, or as `check_entity_event`.
    """
    if value is None:
        name = _text(key)
        if name.startswith(('"', "{", "Struct{")):
            raise InvalidInput("bad-key", f"the key {name[:80]!r} has to be source:id as plain text")
        source, local_id = split_curie(name)
        return Delete(source=source, id=local_id)
    check_bytes(value)
    try:
        event = _entity_decoder.decode(value)
    except UNDECODABLE as error:
        raise InvalidInput("malformed", str(error)) from error
    check_entity_event(event)
    return event


def check_bytes(value: bytes) -> None:
    """Raises InvalidInput for a value that is too large, that is there and says nothing, or was not read."""
    if value.startswith(UNREAD):
        raise InvalidInput("too-large", value.removeprefix(UNREAD).decode(errors="replace"))
    if len(value) < 8 and value.strip() in NOTHING:
        raise InvalidInput(
            "malformed",
            f"the value is {value.decode() or 'empty'}; a message that deletes has no value at all",
        )
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidInput("too-large", f"{len(value)} bytes; {MAX_EVENT_BYTES} are allowed")


def check_entity_event(event: EntityEvent) -> None:
    """What the types cannot say: identity, finite numbers, 64-bit versions, names of relations, and bounds.

    Raises:
        InvalidInput: with reason `bad-id`, `bad-version`, `not-finite`, `bad-relation`, `too-long` or
            `too-many`.
    """
    check_identity(event.source, event.id)
    if event.version is not None and not -(2**63) <= event.version < 2**63:
        raise InvalidInput("bad-version", f"version {event.version} does not fit into 64 bits")
    if isinstance(event, Delete):
        return
    check_name("type", event.type)
    check_count("attributes", len(event.attributes), MAX_NAMES)
    check_count("relations", len(event.relations), MAX_NAMES)
    for name, value in event.attributes.items():
        check_name("attribute", name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                raise InvalidInput("not-finite", f"attributes.{name}: {item} is not a finite number")
            if isinstance(item, int) and not -(2**63) <= item < 2**64:
                raise InvalidInput("not-finite", f"attributes.{name}: the number does not fit into 64 bits")
    for name, targets in event.relations.items():
        check_relation(name)
        for target in targets:
            if not 0 < len(target) <= MAX_ID_CHARS:
                raise InvalidInput("bad-id", f"relations.{name}: an id has 1 to {MAX_ID_CHARS} characters")


def decode_link(key: bytes | None, value: bytes | None) -> tuple[str, str, Link | None]:
    """The pair and the verdict, None when it is taken back (key `left|right` and no value).

    Raises:
        InvalidInput: the record is no link, it is too large, or the two names are of one source.
    """
    if value is None:
        left, bar, right = _text(key).partition("|")
        if not bar:
            raise InvalidInput("malformed", "a link's tombstone has the key left|right")
        left, right, verdict = unescape_bar(left), unescape_bar(right), None
    else:
        check_bytes(value)
        try:
            verdict = _link_decoder.decode(value)
        except UNDECODABLE as error:
            raise InvalidInput("malformed", str(error)) from error
        check_name("author", verdict.author)
        left, right = verdict.left, verdict.right
        check_key(key, alignment_key(left, right), alignment_key(right, left))
    if split_curie(left)[0] == split_curie(right)[0]:
        raise InvalidInput("malformed", f"{left} and {right} are of one source; a link joins two sources")
    return left, right, verdict


def _text(key: bytes | None) -> str:
    if key is None:
        raise InvalidInput("malformed", "neither key nor value")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("malformed", f"the key is not UTF-8: {error}") from error


def check_key(key: bytes | None, *expected: str) -> None:
    """Raises InvalidInput (`bad-key`) for a key other than one of those by which its record is known.

    Compaction keeps one record of each key, and a tombstone deletes what has its key.
    """
    if key is not None and key not in map(str.encode, expected):
        shown = key[:80].decode(errors="replace")
        raise InvalidInput(
            "bad-key", f"the key is {shown!r}; this message's key has to be {expected[0][:200]}"
        )


def encode(event: EntityEvent) -> bytes:
    """The event as a message value.

    Raises:
        InvalidInput: with reason `too-large`.
    """
    value = msgspec.json.encode(event)
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidInput(
            "too-large",
            f"{curie(event.source, event.id)}: {len(value):,} bytes; a message may have {MAX_EVENT_BYTES:,}",
        )
    return value


def event_key(event: EntityEvent) -> bytes:
    """The key of an entity event's message."""
    return curie(event.source, event.id).encode()
