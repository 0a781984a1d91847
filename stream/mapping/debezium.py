"""Debezium's envelopes, the rows in them, and the keys of messages.

A deletion is an envelope with `op: d`, its tombstone, or a lone tombstone; all three say the same. Only the
message's key says which row is deleted, as `before` depends on the table's REPLICA IDENTITY. Where a Kafka
Connect schema comes with the payload, values are read as it says (`stream/mapping/column_types.py`).
"""

import re
from collections.abc import Mapping

import msgspec

from stream.errors import InvalidInput, UnreadableKey
from stream.mapping.column_types import by_schema, explained, field_schema
from stream.mapping.row import check_depth

JSON_CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what no text has
ABOUT = ("source", "metadata")
TABLE_NAMES = ("db", "schema", "schema-name", "table", "collection", "table-name")
ROW_OPERATIONS = ("c", "u", "r")  # create, update, read (snapshot)


class ReceivedRow(msgspec.Struct, frozen=True):
    """What a message says of a row: its state, as the schema explains it, or that it is gone."""

    columns: Mapping[str, object]
    explained: frozenset[str] = frozenset()  # the columns that the schema explained
    snapshot: bool = False  # whether a snapshot read it
    raw: Mapping[str, object] | None = None  # the columns before that, where there is a schema
    before: Mapping[str, object] | None = None  # what the row was, where the message says it
    is_gone: bool = False
    is_by_key: bool = False  # the row is gone that the message's key names; there are no columns
    table: str = ""  # from which it came, where the message says it
    is_bare: bool = False  # whether it came without an envelope, so that it may say itself that it is gone


GONE = ReceivedRow({}, is_gone=True, is_by_key=True)


def is_envelope(message: Mapping[str, object]) -> bool:
    """Whether a message is one of Debezium's envelopes."""
    return "op" in message and (
        "after" in message or "before" in message or isinstance(message.get("source"), dict)
    )


def envelope_row(message: Mapping[str, object], schema: object) -> ReceivedRow | None:
    """The row of an envelope; None for what says nothing of rows.

    Raises:
        InvalidInput: with reason `malformed` or `unsupported-op`.
    """
    operation = message["op"]
    if operation == "d":
        return GONE
    if operation == "m":  # written by pg_logical_emit_message, as for a heartbeat
        return None
    if operation == "t":
        raise emptied("TRUNCATE", table_of(message))
    if operation not in ROW_OPERATIONS:
        raise InvalidInput("unsupported-op", f"op {operation!r:.40}: c, u, r or d is expected")
    after = as_object(message.get("after"), "after")
    return row_of(after, field_schema(schema, "after"), snapshot=operation == "r")


def table_of(event: Mapping[str, object]) -> str:
    """The table that a change event names, with its database and schema; empty if it names none."""
    about = next((inside for name in ABOUT if isinstance(inside := event.get(name), dict)), None)
    if about is None:  # beside which there may be the row's own columns
        names = [event.get("database"), event.get("table")]
    else:
        names = [about.get(name) for name in TABLE_NAMES]
    return ".".join(name for name in names if isinstance(name, str))


def emptied(how: object, table: object) -> InvalidInput:
    """Why the message of a TRUNCATE or a DROP is refused."""
    shown = f"the table {table}"[:200] if table else "the table"
    return InvalidInput(
        "unsupported-op",
        f"{how} emptied {shown}, and its entities stay: send a tombstone for each key in the topic; "
        "another time use DELETE FROM, which sends a deletion of each row",
    )


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
    decoded, schema = unwrapped(message)
    if isinstance(decoded, dict):
        missing = [column for column in id_columns if column not in decoded]
        if missing:
            raise UnreadableKey(
                "no-key", f"the key {text[:200]} has no column {', '.join(map(repr, missing))}"
            )
        return row_of(decoded, schema)
    if len(id_columns) != 1:
        raise UnreadableKey("no-key", f"the key {text[:200]} is no object with {', '.join(id_columns)}")
    if schema is not None and isinstance(decoded, int):
        return ReceivedRow({id_columns[0]: decoded})
    # Numbers and words such as 12 or null are ids as they are written, not as JSON reads them.
    return ReceivedRow({id_columns[0]: decoded if isinstance(decoded, str) else text})


def unwrapped(message: object) -> tuple[object, object]:
    """A message without the wrapper that carries its schema, and the schema."""
    if isinstance(message, dict) and message.keys() == {"schema", "payload"}:
        return message["payload"], message["schema"]
    return message, None


def row_of(
    columns: dict[str, object], schema: object, *, snapshot: bool = False, is_bare: bool = False
) -> ReceivedRow:
    """A row that is there, as its schema explains it."""
    if schema is None:
        return ReceivedRow(columns, snapshot=snapshot, is_bare=is_bare)
    row = as_object(by_schema(schema, columns), "row")
    return ReceivedRow(row, explained(schema), snapshot, columns, is_bare=is_bare)


def as_object(value: object, name: str) -> dict[str, object]:
    """The value. Raises InvalidInput (`malformed`) if it is no JSON object."""
    if not isinstance(value, dict):
        hint = ""
        if isinstance(value, str) and value.startswith("{"):
            hint = "; MongoDB's connector writes text: use its transformation ExtractNewDocumentState"
        raise InvalidInput("malformed", f"{name}: an object is expected{hint}")
    return value
