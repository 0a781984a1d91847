"""A row: a mapping of column to value, and the cells in it."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from stream.errors import InvalidInput
from stream.events import UNDECODABLE, check_bytes
from stream.mapping.positions import is_geometry

Row = Mapping[str, object]

MAX_DEPTH = 64  # of lists and objects in each other; what walks through them calls itself
NAN = re.compile(rb'("(?:[^"\\]|\\.)*+"?)|\bNaN\b')  # strings, and what stands outside of them
KEY = re.compile(rb'"[ \t\r\n]*:')

_object_decoder = msgspec.json.Decoder(dict[str, object])


def cell(row: Row, column: str, null: Collection[str] = ()) -> object:
    """A cell by its column, or by a path into nested ones: `address.city`. None if there is none.

    A path that leads through a list takes every element: `cast.name`. One to the `coordinates` of GeoJSON
    gives their geometry, which says what they are.

    Args:
        null: spellings of nothing, where a path may end early.

    Raises:
        InvalidInput: with reason `bad-value`; a path leads into a text or number.
    """
    if column in row or "." not in column:
        return row.get(column)
    first, _, rest = column.partition(".")
    return _inside(row.get(first), rest, null)


def _inside(value: object, path: str, null: Collection[str]) -> object:
    if isinstance(value, Mapping):
        return value if path == "coordinates" and is_geometry(value) else cell(value, path, null)
    if isinstance(value, list):
        found = [_inside(item, path, null) for item in value]
        return [item for part in found for item in (part if isinstance(part, list) else [part])]
    text = value.strip() if isinstance(value, str) else ""
    is_nothing = not text or text in null if isinstance(value, str) else value is None or value != value
    if is_nothing:
        return None
    raise InvalidInput(
        "bad-value", f"an object with {path!r} is expected, not {str(value)[:80]!r}; is it JSON (`columns`)?"
    )


def leads_nowhere(value: object, path: str) -> bool:
    """Whether an object inside of a cell has something, and nothing of the name that a path gives it."""
    if isinstance(value, list):
        return any(leads_nowhere(item, path) for item in value)
    if not isinstance(value, Mapping) or not value or path in value:
        return False
    first, _, rest = path.partition(".")
    return first not in value or leads_nowhere(value[first], rest)


def missing_columns(required: Sequence[str], row: Row) -> str:
    """A line that names the required columns that a row lacks, and those it has; empty if it lacks none.

    Of a path to a nested column only the outermost one has to be there.
    """
    missing = [column for column in required if column not in row and column.partition(".")[0] not in row]
    if not missing:
        return ""
    return f"no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, row))}"


def repeated_columns(mapped: Iterable[str], names: Sequence[str]) -> str:
    """A line that says which mapped column is several times among a file's columns; empty if none is."""
    for column in mapped:
        name = column if column in names else column.partition(".")[0]
        numbers = [str(number) for number, other in enumerate(names, 1) if other == name]
        if len(numbers) > 1:
            return (
                f"{len(numbers)} columns are called {name!r}, numbers {' and '.join(numbers)}; "
                "give each a name of its own"
            )
    return ""


def decode_object(text: bytes) -> dict[str, object]:
    """A JSON object. NaN, which is no JSON but what Python and pandas write, is null.

    Raises:
        InvalidInput: with reason `too-large`, `too-deep` or `malformed`.
    """
    check_bytes(text)
    try:
        try:
            found = _object_decoder.decode(text)
        except msgspec.DecodeError:
            if b"NaN" not in text:
                raise
            text = NAN.sub(lambda match: match[1] or b"null", text)
            found = _object_decoder.decode(text)
        if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
            check_depth(found)
        check_keys(text, found)
    except RecursionError:
        raise _too_deep() from None
    except UNDECODABLE as error:
        if text.startswith(b"\0"):
            raise InvalidInput(
                "malformed",
                "this is binary, as Avro with a registry or TiCDC's open protocol; set value.converter "
                "to JsonConverter, or TiCDC's protocol to canal-json",
            ) from error
        raise InvalidInput("malformed", str(error)) from error
    return found


def check_depth(value: object) -> None:
    """Raises InvalidInput (`too-deep`) where lists and objects are nested deeper than `MAX_DEPTH`."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for nested in level
            for item in (nested.values() if nested.__class__ is dict else nested)
            if item.__class__ is dict or item.__class__ is list  # faster than isinstance
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> InvalidInput:
    return InvalidInput("too-deep", f"lists and objects are nested deeper than {MAX_DEPTH}")


def check_keys(text: bytes, found: dict[str, object]) -> None:
    """Checks that no key is twice in an object of a JSON text, where only the last would be left of them.

    Args:
        found: what the text was decoded to. It has as many keys as the text has colons behind quotes, unless
            there are such colons inside of strings; only then is the text read once more.

    Raises:
        InvalidInput: with reason `malformed`.
    """
    if text.count(b":") == len(found):
        return
    is_spaced = b" :" in text or b"\t:" in text or b"\n:" in text or b"\r:" in text
    colons = len(KEY.findall(text)) if is_spaced else text.count(b'":')
    if colons > len(found) and colons > _count_keys(found):
        json.loads(text, object_pairs_hook=_unique)


def _count_keys(value: dict[str, object] | list[object]) -> int:
    """The keys of an object and of all that are in it."""
    count, items = (len(value), value.values()) if isinstance(value, dict) else (0, iter(value))
    for item in items:
        if item.__class__ is dict or item.__class__ is list:  # faster than isinstance
            count += _count_keys(cast("dict[str, object]", item))
    return count


def _unique(pairs: list[tuple[str, object]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput("malformed", f"the key {twice[:80]!r} is twice in an object")


def is_unicode(cell: str) -> bool:
    """Whether text can be encoded. Surrogates, which stand for bytes that are not UTF-8, cannot."""
    if cell.isascii():
        return True
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
