"""What a cell says: a text, an id, a number or nothing."""

import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from index.entity import Scalar, Value, Version
from stream.errors import InvalidInput
from stream.mapping.column_types import EPOCH, EXACT_DIGITS, Convert, is_unavailable, plain_struct
from stream.mapping.gone import FLAGS, SUSPECT, other_envelope, says_gone
from stream.mapping.language import Attribute, Join, Table
from stream.mapping.positions import is_geometry
from stream.mapping.row import Row, cell

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]+)?")
COMMA_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,2}(\.[0-9]{3})+|[1-9][0-9]*)(,[0-9]+)?")
WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0")
WHOLE_VERSION = re.compile(r"([+-]?[0-9]{1,19})(\.0+)?")
ISO_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FIRST_TIME = 1e8  # seconds since 1970: what is less and has a fraction is no time
EXACT_WHOLE = 2**53  # the first whole number with a neighbour that a double has not


class Cells:
    """Reads the cells of rows, as one mapping says. Blank, null, NaN and spellings of nothing are nothing."""

    def __init__(self, rows: Table | Join) -> None:
        columns = rows.all_columns()
        self._outermost = dict.fromkeys([*columns, *(column.partition(".")[0] for column in columns)])
        self._deleted, self._may_be_event = rows.deleted, rows.envelope != "none"
        self._number = comma_number if rows.decimal == "," else _number
        self._null = frozenset(rows.null)
        self._as_written = {name for name, logical in rows.columns.items() if logical == "text"}

    def check_available(self, row: Row) -> None:
        """Checks, before anything else is made of them, that no column in use holds a placeholder.

        Raises:
            InvalidInput: with reason `unavailable-value`.
        """
        for column in self._outermost:
            if isinstance(value := row.get(column), str | list | dict) and is_unavailable(value):
                raise InvalidInput(
                    "unavailable-value",
                    f"{column}: the change stream left out a large value that did not change; set REPLICA "
                    "IDENTITY FULL for the table, or do not map the column",
                )

    def is_blank(self, value: object) -> bool:
        """Whether a cell says nothing, whatever is read from it."""
        if isinstance(value, str):
            text = value.strip()
            return not text or text in self._null
        return value is None or value != value or value in ([], {})

    def is_gone(self, row: Row, *, is_bare: bool = True) -> bool:
        """Whether a row says that it is gone.

        Args:
            is_bare: it came without an envelope that would say so.

        Raises:
            InvalidInput: with reason `bad-value`, or `other-envelope` for what looks like an event of a
                change stream.
        """
        if self._deleted is not None:
            return says_gone(self.find(row, self._deleted), self._deleted, self._null)
        if not is_bare or not self._may_be_event or SUSPECT.isdisjoint(row):
            return False
        if any(says_gone(row[name], name, self._null) for name in FLAGS.intersection(row)):
            return True
        if problem := other_envelope(row):
            raise InvalidInput("other-envelope", problem)
        return False

    def find(self, row: Row, column: str) -> object:
        """The cell at a column or path.

        Raises:
            InvalidInput: with reason `bad-value`; the path leads into a text or number.
        """
        if column in row:
            return row[column]
        try:
            return cell(row, column, self._null)
        except InvalidInput as error:
            raise InvalidInput(error.reason, f"{column}: {error}") from None

    def typed(self, row: Row, columns: Mapping[str, Convert], explained: Collection[str]) -> Row:
        """The row, with columns read as the types that the mapping gives them, if the row itself does not.

        Raises:
            InvalidInput: with reason `bad-value`; a text is no JSON, or a pair no position, where the type
                says so.
        """
        if not columns:
            return row
        typed = dict(row)
        for name, convert in columns.items():
            value = None if name in explained else self.find(typed, name)
            if value is None or (isinstance(value, str) and not self.text(value, name)):
                continue
            try:
                typed[name] = convert(value)
            except ValueError as error:
                raise InvalidInput("bad-value", f"{name}: {error}") from error
        return typed

    def text(self, value: object, column: str, reason: str = "bad-value") -> str:
        """A cell as stripped text, empty if it says nothing.

        Raises:
            InvalidInput: with `reason` for all but text and whole numbers.
        """
        value = plain_struct(value)
        if isinstance(value, str):
            text = value.strip()
            return "" if text in self._null else text
        if value is None or _is_nan(value):
            return ""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_WHOLE:
            return str(int(value))
        raise InvalidInput(
            reason, f"{column}: text or a whole number is expected, not {type(value).__name__}"
        )

    def identifier(self, value: object, column: str, reason: str = "bad-value") -> str:
        """A cell as the text of an id, where 12.0 means 12: tools write it so where a column has gaps."""
        text = self.text(value, column, reason)
        if text.endswith(".0") and column not in self._as_written and (match := WHOLE.fullmatch(text)):
            return match[1]
        return text

    def version(self, value: object, column: str) -> Version | None:
        """A cell as a version, None if it says nothing: a whole number, or a time.

        A time is an ISO 8601 text, which counts in microseconds since 1970, or a number with a fraction, as
        of seconds since 1970. Smaller numbers with a fraction are refused: 1.10 may be older or newer than
        1.9.

        Raises:
            InvalidInput: with reason `bad-version`.
        """
        value = plain_struct(value)
        if isinstance(value, str):
            text = value.strip()
            if not text or text in self._null:
                return None
            found = _order(text)
        else:
            if value is None or _is_nan(value):
                return None
            found = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if isinstance(found, float) and found.is_integer() and abs(found) < EXACT_WHOLE:
            return int(found)
        if found is None or (isinstance(found, float) and abs(found) < FIRST_TIME):
            raise InvalidInput("bad-version", f"{column}: {value!r:.80} is neither a whole number nor a time")
        return found

    def attribute(self, value: object, attribute: Attribute) -> Value | None:
        """A cell as an attribute, None if it says nothing. Raises InvalidInput."""
        if isinstance(value, str) and attribute.separator:
            value = value.split(attribute.separator)
        if not isinstance(value, list):
            return self._scalar(value, attribute)
        values = [scalar for item in value if (scalar := self._scalar(item, attribute)) is not None]
        return values or None

    def _scalar(self, value: object, attribute: Attribute) -> Scalar | None:
        value = plain_struct(value)
        if isinstance(value, str):
            text = self.text(value, attribute.column)
            if not text:
                return None
            number = None if attribute.kind == "text" else self._number(text)
            if number is None and attribute.kind == "number":
                raise InvalidInput("bad-value", f"{attribute.column}: {text[:80]!r} is not a number")
            return text if number is None else number
        if value is None or _is_nan(value):
            return None
        if isinstance(value, bool | int | float):
            return str(value) if attribute.kind == "text" else value
        expected = "text, number, boolean or a list is"
        if is_geometry(value):
            expected = "coordinates of longitude and latitude, in degrees, are"
        raise InvalidInput(
            "bad-value", f"{attribute.column}: {expected} expected, not {type(value).__name__}"
        )


def _order(text: str) -> Version | None:
    """The number that a text is as a version, None if it is none: of a time the microseconds since 1970."""
    if ISO_TIME.match(text):
        try:
            moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        except ValueError:
            return None
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(
            microseconds=1
        )
    if match := WHOLE_VERSION.fullmatch(text):
        return int(match[1])
    return float(text) if NUMBER.fullmatch(text) else None


def _is_nan(value: object) -> bool:
    return value != value


def _number(text: str) -> int | float | None:
    match = NUMBER.fullmatch(text)
    if not match or len(match[1]) > EXACT_DIGITS:
        return None
    if not match[2] and not match[3]:
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else None


def comma_number(text: str) -> int | float | None:
    """The number that a text with a decimal comma is: 1.234,5 is 1234.5. None if it is no number."""
    text = text.strip()
    return _number(text.replace(".", "").replace(",", ".")) if COMMA_NUMBER.fullmatch(text) else None
