"""Row changes as catalogues publish them: Debezium envelopes and plain JSON rows, reduced to row or deletion.

A deletion is an envelope with `op: d`, its tombstone, or a lone tombstone; all three say the same. Only the
message's key says which row is deleted, as `before` depends on the table's REPLICA IDENTITY. Where a Kafka
Connect schema comes with the payload, values are read as it says (`stream/mapping/column_types.py`).
"""

import re
from collections.abc import Mapping

import msgspec

from stream.errors import InvalidInput, UnreadableKey
from stream.mapping.column_types import by_schema, explained, field_schema
from stream.mapping.row import check_depth, decode_object

DELETED = "__deleted"  # which Debezium's own flattening of envelopes may write in place of a tombstone
JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what no text has
ROW_OPERATIONS = ("c", "u", "r")  # create, update, read (snapshot)


class ReceivedRow(msgspec.Struct, frozen=True):
    """A row as its schema, if there is one, explains it."""

    columns: Mapping[str, object]
    explained: frozenset[str] = frozenset()  # the columns that the schema explained
    snapshot: bool = False  # whether a snapshot read it
    raw: Mapping[str, object] | None = None  # the columns before that, where there is a schema


def changed_row(value: bytes | None) -> ReceivedRow | None:
    """The row's new state, None when the message deletes it.

    Raises:
        InvalidInput: with reason `too-large`, `too-deep`, `malformed` or `unsupported-op`.
    """
    if value is None:
        return None
    message, schema = _unwrapped(decode_object(value))
    if message is None:
        return None
    message = _object(message, "payload")
    if not _is_envelope(message):
        return None if message.get(DELETED) in (True, "true") else _row(message, schema)
    operation = message["op"]
    if operation == "d":
        return None
    if operation not in ROW_OPERATIONS:
        raise InvalidInput("unsupported-op", f"op {operation!r}: c, u, r or d is expected")
    return _row(_object(message.get("after"), "after"), field_schema(schema, "after"), operation == "r")


def key_row(key: bytes | None, id_columns: tuple[str, ...]) -> ReceivedRow:
    """The columns of a message's key, which is a JSON object, wrapped or not, or the bare id.

    Raises:
        InvalidInput: with reason `no-key` if there is none, or `too-deep`.
        UnreadableKey: the id columns are not in it.
    """
    if key is None:
        raise InvalidInput(
            "no-key", "a deletion without a key does not say which row; give the table a primary key"
        )
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = ""
    if BINARY.search(text) or (key and not text):
        raise UnreadableKey(
            "no-key",
            f"the key {key[:80]!r} is no text; set key.converter (or the producer's serializer) to one that "
            f"writes JSON or text, such as {JSON_CONVERTER}",
        )
    try:
        message = msgspec.json.decode(key)
    except (msgspec.DecodeError, RecursionError):
        message = text  # a bare id such as tt0133093
        if text.startswith("Struct{"):
            raise UnreadableKey(
                "no-key",
                f"the key {text[:200]} is what StringConverter makes of an object; set key.converter to "
                f"{JSON_CONVERTER}",
            ) from None
    check_depth(message)
    decoded, schema = _unwrapped(message)
    if isinstance(decoded, dict):
        missing = [column for column in id_columns if column not in decoded]
        if missing:
            raise UnreadableKey(
                "no-key", f"the key {text[:200]} has no column {', '.join(map(repr, missing))}"
            )
        return _row(decoded, schema)
    if len(id_columns) != 1:
        raise UnreadableKey("no-key", f"the key {text[:200]} is no object with {', '.join(id_columns)}")
    if schema is not None and isinstance(decoded, int):
        return ReceivedRow({id_columns[0]: decoded})
    # Numbers and words such as 12 or null are ids as they are written, not as JSON reads them.
    return ReceivedRow({id_columns[0]: decoded if isinstance(decoded, str) else text})


def _unwrapped(message: object) -> tuple[object, object]:
    """A message without the wrapper that carries its schema, and the schema."""
    if isinstance(message, dict) and message.keys() == {"schema", "payload"}:
        return message["payload"], message["schema"]
    return message, None


def _row(columns: dict[str, object], schema: object, snapshot: bool = False) -> ReceivedRow:
    if schema is None:
        return ReceivedRow(columns, snapshot=snapshot)
    return ReceivedRow(_object(by_schema(schema, columns), "row"), explained(schema), snapshot, columns)


def _is_envelope(message: Mapping[str, object]) -> bool:
    return "op" in message and ("after" in message or "before" in message)


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput("malformed", f"{name}: an object is expected")
    return value
