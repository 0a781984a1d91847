"""What columns of change streams mean: dates sent as days, decimals as base64, and the like.

Kafka Connect names the meaning in the schema beside the payload. Without one, the mapping's `columns` name it
in the words of Avro's logical types: `date`, `timestamp-micros`, `decimal(2)`, ... An object that shows what
it is needs neither (`plain_struct`). Dates and times become ISO 8601 text.
Decimals become numbers, or text where a double does not hold them exactly. A value that does
not fit its type stays as it is, so that `2001-03-31` is understood under a mapping that says `date`, too;
but a text that is no JSON is refused where a mapping says `json`, and a position in another order where it
says `lon-lat` or `lat-lon`.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeGuard

import msgspec

from model.encoding.values import Kind, recognise
from stream.errors import InvalidInput
from stream.mapping.positions import as_point, is_geometry
from stream.mapping.row import check_depth
from stream.mapping.wkb import IN_DEGREES, from_wkb

EXACT_DIGITS = 15  # which a double keeps
MOST_BASE64, MOST_SCALE = 512, 999  # of a decimal; one with a scale of millions would take gigabytes as text
DIGITS = re.compile("[0-9]+")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND = {"millis": 1_000, "micros": 1_000_000, "nanos": 1_000_000_000}

# In place of a large value that an update did not touch: a text, and what other columns make of it.
UNAVAILABLE = "__debezium_unavailable_value"
_UNAVAILABLE_BYTES = UNAVAILABLE.encode()
_UNAVAILABLE_NUMBERS = list(_UNAVAILABLE_BYTES)  # arrays of numbers and of dates
_UNAVAILABLE_TEXTS = frozenset(
    {
        UNAVAILABLE,
        base64.b64encode(_UNAVAILABLE_BYTES).decode(),  # bytes
        _UNAVAILABLE_BYTES.hex(),
        "b68a35a7-17ad-35b3-af2a-ae46edb4545a",  # arrays of UUIDs: the one that Java names by these bytes
        *(json.dumps({UNAVAILABLE: UNAVAILABLE}, separators=(",", colon)) for colon in (":", ": ")),  # hstore
    }
)

Convert = Callable[[object], object]


def converter(logical: str) -> Convert:
    """The function for a type's name in a mapping.

    Raises:
        ValueError: there is no such type.
    """
    if match := re.fullmatch(r"decimal\((\d{1,3})(, ?base64)?\)", logical):
        return partial(decimal if match[2] else _decimal_or_digits, scale=int(match[1]))
    if logical not in _BY_NAME:
        raise ValueError(f"{logical!r} is none of {', '.join(_BY_NAME)}, decimal(SCALE[, base64])")
    return _BY_NAME[logical]


_STRICT = {
    "json",
    "lon-lat",
    "lat-lon",
    "wkb",
    "text",
}  # what they do not understand they refuse, or there is none


def is_plain(value: object, logical: str) -> bool:
    """Whether a value that its type left as it is says the same without it: `2001-03-31` under `date`."""
    value = plain_struct(value)
    if isinstance(value, list):
        return all(is_plain(item, logical) for item in value)
    if not isinstance(value, str | int | float) or logical in _STRICT:
        return True
    kind = recognise(value)
    if logical.startswith("decimal"):
        return kind is Kind.NUMBER
    return kind in (Kind.DATE, Kind.DURATION)


def is_unavailable(value: object) -> bool:
    """Whether a value stands for one that PostgreSQL's change stream left out, or has such a one in it."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, str):
            if part in _UNAVAILABLE_TEXTS:
                return True
        elif isinstance(part, list):
            if part == _UNAVAILABLE_NUMBERS:
                return True
            rest += part
        elif isinstance(part, dict):
            rest += part.keys()
            rest += part.values()
    return False


def by_schema(schema: object, value: object) -> object:
    """The value as its Kafka Connect schema explains it. What the schema does not explain stays as it is."""
    if value is None or not isinstance(schema, Mapping):
        return value
    if isinstance(value, str | list) and is_unavailable(value):
        return UNAVAILABLE  # which dates, decimals and the like would hide
    name = schema.get("name")
    if name == "org.apache.kafka.connect.data.Decimal":
        parameters = schema.get("parameters")
        scale = str(parameters.get("scale")) if isinstance(parameters, Mapping) else ""
        return decimal(value, int(scale)) if re.fullmatch(r"-?\d{1,3}", scale) else value
    if convert := _BY_SCHEMA.get(str(name)):
        return convert(value)
    if schema.get("type") == "struct" and isinstance(value, Mapping):
        fields = _fields(schema)
        return {key: by_schema(fields.get(key), item) for key, item in value.items()}
    if schema.get("type") == "array" and isinstance(value, list):
        return [by_schema(schema.get("items"), item) for item in value]
    return value


def explained(schema: object) -> frozenset[str]:
    """The fields of a struct that the schema explains."""
    if not isinstance(schema, Mapping):
        return frozenset()
    return frozenset(name for name, field in _fields(schema).items() if field.get("name"))


def field_schema(schema: object, field: str) -> object:
    """The schema of one field of a struct, None if there is none."""
    return _fields(schema).get(field) if isinstance(schema, Mapping) else None


def _fields(schema: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    fields = schema.get("fields")
    if not isinstance(fields, list):
        return {}
    return {str(field["field"]): field for field in fields if isinstance(field, Mapping) and "field" in field}


def decimal(value: object, scale: int) -> object:
    """The decimal in base64 of its unscaled number, two's complement, big endian."""
    if not isinstance(value, str) or len(value) > MOST_BASE64 or abs(scale) > MOST_SCALE:
        return value
    try:
        unscaled = int.from_bytes(base64.b64decode(value, validate=True), "big", signed=True)
    except (binascii.Error, ValueError):
        return value
    digits = tuple(map(int, str(abs(unscaled))))  # exact, whatever the context's precision
    return plain_decimal(Decimal((int(unscaled < 0), digits, -scale)))


def _decimal_or_digits(value: object, scale: int) -> object:
    """Digits are the number itself, as `decimal.handling.mode = string` sends it.

    As base64 four of them, or eight, would be a large negative number.
    """
    return value if isinstance(value, str) and DIGITS.fullmatch(value) else decimal(value, scale)


def plain_decimal(value: Decimal) -> int | float | str:
    """A number where a double keeps all its digits, else text."""
    if not value.is_finite():
        return str(value)
    if len("".join(map(str, value.as_tuple().digits)).strip("0")) > EXACT_DIGITS:
        return f"{value:f}"
    return int(value) if value == value.to_integral_value() else float(value)


def plain_struct(value: object) -> object:
    """The number or the position that an object is where Connect writes no schemas; else the value itself.

    `{"scale": 1, "value": "fQ=="}`, a NUMERIC without a scale of its own, is 12.5, `{"x": 1.5, "y": 2, ...}`
    is POINT(1.5 2), and so is `{"type": "Point", "coordinates": [1.5, 2]}`.
    """
    if isinstance(value, dict):  # quicker than Mapping
        if is_geometry(value):
            try:
                return as_point(value, latitude=1)
            except ValueError:
                return value
        if value.keys() == {"scale", "value"}:
            return _variable_decimal(value)
        if value.keys() == {"wkb", "srid"}:
            return _geometry(value)
        if {"x", "y"} <= value.keys() <= {"x", "y", "wkb", "srid"}:
            return _point(value)
    return value


def plain_duration(value: timedelta) -> str:
    """The duration in ISO 8601: PT2H16M5S."""
    seconds = value.total_seconds()
    whole = abs(int(seconds))
    fraction = abs(seconds) - whole
    last = f"{whole % 60 + fraction:g}"
    sign = "-" if seconds < 0 else ""
    return f"{sign}PT{whole // 3600}H{whole % 3600 // 60}M{last}S"


def _days(value: object) -> object:
    if not _is_whole(value):
        return value
    try:
        return (EPOCH + timedelta(days=value)).date().isoformat()
    except OverflowError:
        return value  # beyond the calendar: PostgreSQL's infinity


def _timestamp(value: object, per_second: int) -> object:
    if not _is_whole(value):
        return value
    try:
        moment = EPOCH + timedelta(seconds=value // per_second)
    except OverflowError:
        return value
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z" if moment.year >= 1000 else moment.isoformat()


def _time(value: object, per_second: int) -> object:
    if not _is_whole(value) or not 0 <= value // per_second <= 86_400:
        return value
    return f"{EPOCH + timedelta(seconds=value // per_second):%H:%M:%S}"


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _duration(value: object) -> object:
    if not _is_whole(value):
        return value
    try:
        return plain_duration(timedelta(microseconds=value))
    except OverflowError:
        return value


def _json(value: object) -> object:
    """The decoded JSON.

    Raises:
        ValueError: a text is none.
        InvalidInput: with reason `too-deep`.
    """
    if not isinstance(value, str):
        return value
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"{value[:80]!r} is no JSON: {error}") from error
    check_depth(found)
    return found


def _json_or_text(value: object) -> object:
    try:
        return _json(value)
    except (ValueError, InvalidInput):
        return value


def _variable_decimal(value: object) -> object:
    """A value that does not fit stays, also where its scale would take gigabytes."""
    if not isinstance(value, Mapping) or not isinstance(value.get("scale"), int):
        return value
    unscaled = value.get("value")
    number = decimal(unscaled, value["scale"])
    return value if number is unscaled else number


def _set(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


def _point(value: object) -> object:
    if not isinstance(value, Mapping) or not {"x", "y"} <= value.keys():
        return value
    return f"POINT({value['x']} {value['y']})"


def _geometry(value: object) -> object:
    """A value that is in no degrees, or of another kind, stays."""
    if not isinstance(value, Mapping) or value.get("srid") not in (None, *IN_DEGREES):
        return value
    try:
        return from_wkb(value.get("wkb"))
    except ValueError:
        return value


_BY_NAME: dict[str, Convert] = {
    "date": _days,
    **{f"timestamp-{unit}": partial(_timestamp, per_second=n) for unit, n in PER_SECOND.items()},
    **{f"time-{unit}": partial(_time, per_second=n) for unit, n in PER_SECOND.items()},
    "duration-micros": _duration,
    "json": _json,
    "lon-lat": partial(as_point, latitude=1),
    "lat-lon": partial(as_point, latitude=0),
    "wkb": from_wkb,
    "text": lambda value: value,
}
_BY_SCHEMA: dict[str, Convert] = {
    "org.apache.kafka.connect.data.Date": _BY_NAME["date"],
    "org.apache.kafka.connect.data.Time": _BY_NAME["time-millis"],
    "org.apache.kafka.connect.data.Timestamp": _BY_NAME["timestamp-millis"],
    "io.debezium.time.Date": _BY_NAME["date"],
    "io.debezium.time.Time": _BY_NAME["time-millis"],
    "io.debezium.time.MicroTime": _BY_NAME["time-micros"],
    "io.debezium.time.NanoTime": _BY_NAME["time-nanos"],
    "io.debezium.time.Timestamp": _BY_NAME["timestamp-millis"],
    "io.debezium.time.MicroTimestamp": _BY_NAME["timestamp-micros"],
    "io.debezium.time.NanoTimestamp": _BY_NAME["timestamp-nanos"],
    "io.debezium.time.MicroDuration": _BY_NAME["duration-micros"],
    "io.debezium.data.Json": _json_or_text,
    "io.debezium.data.VariableScaleDecimal": _variable_decimal,
    "io.debezium.data.EnumSet": _set,
    "io.debezium.data.geometry.Point": _point,
    "io.debezium.data.geometry.Geometry": _geometry,
    "io.debezium.data.geometry.Geography": _geometry,
}
