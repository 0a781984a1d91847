"""A row: a mapping of column to value, and the cells in it."""

from collections.abc import Mapping, Sequence

import msgspec

from stream.errors import InvalidInput
from stream.events import MAX_EVENT_BYTES, UNDECODABLE

Row = Mapping[str, object]

_object_decoder = msgspec.json.Decoder(dict[str, object])


def cell(row: Row, column: str) -> object:
    """A cell by its column, or by a path into nested ones: `address.city`. None if there is none.

    A path that leads through a list takes every element: `cast.name`.
    """
    if column in row or "." not in column:
        return row.get(column)
    first, _, rest = column.partition(".")
    return _inside(row.get(first), rest)


def _inside(value: object, path: str) -> object:
    if isinstance(value, Mapping):
        return cell(value, path)
    if isinstance(value, list):
        found = [_inside(item, path) for item in value]
        return [item for part in found for item in (part if isinstance(part, list) else [part])]
    return None


def missing_columns(required: Sequence[str], row: Row) -> str:
    """A line that names the required columns that a row lacks, and those it has; empty if it lacks none.

    Of a path to a nested column only the outermost one has to be there.
    """
    missing = [column for column in required if column not in row and column.partition(".")[0] not in row]
    if not missing:
        return ""
    return f"no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, row))}"


def decode_object(text: bytes) -> dict[str, object]:
    """A JSON object.

    Raises:
        InvalidInput: with reason `too-large` or `malformed`.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise InvalidInput("too-large", f"{len(text)} bytes; {MAX_EVENT_BYTES} are allowed")
    try:
        return _object_decoder.decode(text)
    except UNDECODABLE as error:
        raise InvalidInput("malformed", str(error)) from error


def is_unicode(cell: str) -> bool:
    """Whether text can be encoded. Surrogates, which stand for bytes that are not UTF-8, cannot."""
    if cell.isascii():
        return True
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
