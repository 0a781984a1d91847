"""What a message of a change stream says of rows: which are there now, and which are gone.

Debezium's envelopes, CockroachDB's and plain rows are told apart here; those of some other change streams are
read where the mapping names them (`envelope`). Each reader gives the rows as their table has them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from stream.errors import InvalidInput
from stream.mapping.debezium import (
    GONE,
    ReceivedRow,
    as_object,
    emptied,
    envelope_row,
    is_envelope,
    row_of,
    table_of,
    unwrapped,
)
from stream.mapping.language import Envelope
from stream.mapping.row import Row, decode_object

COCKROACH = {"after", "before", "updated", "mvcc_timestamp", "key", "topic"}


def changed_rows(value: bytes | None, envelope: Envelope) -> Sequence[ReceivedRow]:
    """What a message says of rows; nothing if it speaks of none.

    Raises:
        InvalidInput: with reason `too-large`, `too-deep`, `malformed` or `unsupported-op`.
    """
    if value is None:
        return [GONE]
    message, schema = unwrapped(decode_object(value))
    if message is None:
        return [GONE]
    message = as_object(message, "payload")
    if envelope in READERS:
        return _from_table(READERS[envelope].read(message), message)
    if envelope == "none":
        return [row_of(message, schema)]
    if is_envelope(message):
        row = envelope_row(message, schema)
        return _from_table([] if row is None else [row], message)
    if "after" in message and message.keys() <= COCKROACH:
        after = message["after"]
        return [GONE if after is None else row_of(as_object(after, "after"), None)]
    if message.keys() == {"resolved"}:  # CockroachDB's: so far everything was sent
        return []
    return [row_of(message, schema, is_bare=True)]


def _from_table(rows: Iterable[ReceivedRow], event: Row) -> list[ReceivedRow]:
    """The rows, with the table that their event names."""
    table = table_of(event)
    return [msgspec.structs.replace(row, table=table) if table else row for row in rows]


def recognise(row: Row) -> Envelope | None:
    """The envelope of which a row is a change event; None if it is none of those that can be named."""
    return next((name for name, reader in READERS.items() if reader.recognise(row)), None)


# --- change streams whose events carry the whole row


class Reader(NamedTuple):
    """How the events of a change stream are recognised and read."""

    title: str
    recognise: Callable[[Row], bool]
    read: Callable[[Row], Iterator[ReceivedRow]]


def _is_maxwell(event: Row) -> bool:
    kind, data = event.get("type"), event.get("data")
    if not isinstance(kind, str) or not isinstance(data, dict | None):
        return False
    if kind in ("insert", "update", "delete"):
        return isinstance(data, dict) and ("table" in event or event.keys() <= {"type", "data", "old"})
    return "database" in event and re.fullmatch("(bootstrap|table|database)-[a-z]+", kind) is not None


def _read_maxwell(event: Row) -> Iterator[ReceivedRow]:
    kind = event.get("type")
    if kind in ("insert", "bootstrap-insert", "update", "delete"):
        yield from _changed(kind, event.get("data"), event.get("old"))
    elif kind in ("table-drop", "database-drop"):
        raise emptied(kind, event.get("table"))
    elif not isinstance(kind, str) or not kind.startswith(("bootstrap-", "table-", "database-")):
        raise _unknown("type", kind)


def _is_canal(event: Row) -> bool:
    data = event.get("data")
    if not isinstance(event.get("type"), str) or not isinstance(data, list | None):
        return False
    if event.keys() <= {"type", "data", "old"}:
        return isinstance(data, list) and str(event["type"]) in ("INSERT", "UPDATE", "DELETE")
    return "isDdl" in event or "mysqlType" in event


def _read_canal(event: Row) -> Iterator[ReceivedRow]:
    kind = event.get("type")
    if kind in ("TRUNCATE", "ERASE"):
        raise emptied(kind, event.get("table"))
    if event.get("isDdl") is True or kind in ("TIDB_WATERMARK", "QUERY", "INIT_DDL"):
        return
    if kind not in ("INSERT", "UPDATE", "DELETE", "INIT"):
        raise _unknown("type", kind)
    data, old = event.get("data"), event.get("old")
    if not isinstance(data, list):
        raise InvalidInput("malformed", "data: a list of rows is expected")
    for number, row in enumerate(data):
        before = old[number] if isinstance(old, list) and number < len(old) else None
        yield from _changed(kind.casefold(), row, before)


def _is_dms(event: Row) -> bool:
    about = event.get("metadata")
    return (
        isinstance(about, dict) and "operation" in about and ("record-type" in about or "table-name" in about)
    )


def _read_dms(event: Row) -> Iterator[ReceivedRow]:
    about = as_object(event.get("metadata"), "metadata")
    kind = about.get("operation")
    if kind in ("load", "insert", "update", "delete"):
        yield from _changed(kind, event.get("data"), event.get("before-image"))
    elif kind in ("drop-table", "truncate-table"):
        raise emptied(kind, about.get("table-name"))
    elif about.get("record-type") == "data":
        raise _unknown("metadata.operation", kind)


def _is_goldengate(event: Row) -> bool:
    return event.get("op_type") in ("I", "U", "D", "T") and not event.keys().isdisjoint(
        ("op_ts", "current_ts", "pos", "before", "after")
    )


def _read_goldengate(event: Row) -> Iterator[ReceivedRow]:
    """Of the operation's format, with images before and after, and of the row's."""
    kind = event.get("op_type")
    if kind == "T":
        raise emptied(kind, event.get("table"))
    if kind not in ("I", "U", "D"):
        raise _unknown("op_type", kind)
    if event.keys().isdisjoint(("before", "after")):
        yield ReceivedRow(event, is_gone=kind == "D")
    elif kind == "D":
        yield from _changed("delete", _given(event.get("before")), None)
    else:
        yield from _changed("update", _given(event.get("after")), event.get("before"))


def _given(image: object) -> object:
    """The image without the columns that GoldenGate says it has no value of."""
    if not isinstance(image, dict):
        return image
    return {name: value for name, value in image.items() if image.get(f"{name}_isMissing") is not True}


def _changed(kind: str, row: object, before: object) -> Iterator[ReceivedRow]:
    """A row with an operation; what it was before need only have the columns that changed."""
    columns = as_object(row, "the row")
    if kind == "delete":
        yield ReceivedRow(columns, is_gone=True)
    else:
        old = {**columns, **before} if isinstance(before, dict) else None
        yield ReceivedRow(columns, before=old, snapshot=kind in ("load", "bootstrap-insert", "init"))


def _unknown(path: str, kind: object) -> InvalidInput:
    return InvalidInput(
        "unsupported-op", f"{path} {kind!r:.40}: an operation that the envelope does not have"
    )


READERS: dict[Envelope, Reader] = {
    "maxwell": Reader("Maxwell", _is_maxwell, _read_maxwell),
    "canal": Reader("Canal or TiCDC", _is_canal, _read_canal),
    "dms": Reader("AWS DMS", _is_dms, _read_dms),
    "goldengate": Reader("Oracle GoldenGate", _is_goldengate, _read_goldengate),
}
