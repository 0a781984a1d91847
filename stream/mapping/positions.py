"""Places on the earth as cells have them: GeoJSON, WKT, pairs of numbers in either order.

All become the WKT text `POINT(13.4 52.5)`, longitude first, which is compared as a position.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

import msgspec

from model.encoding.values import degrees, on_sphere

GEOMETRIES: Final = frozenset(
    {"Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"}
)
PAIR_CHARS: Final = 64  # the most that two angles with minutes and seconds take
DIGITS: Final = 6  # of the degrees of a centre: a tenth of a metre
# Between two numbers, the surest first: a comma may also be in a number.
_SEPARATORS: Final = (";", ", ", ",", " ")
_NUMBER: Final = re.compile(r"([+-]?\d{1,3}(?:[.,]\d+)?)°?([NSEW]?)")
_BEFORE_LETTER: Final = re.compile(r" (?=[°NSEW])")
_MINUTES: Final = re.compile(
    r"""(\d{1,3})° ?(\d{1,2}(?:[.,]\d+)?) ?['′’](?: ?(\d{1,2}(?:[.,]\d+)?) ?(?:["″”]|''|′′))? ?([NSEW]?)"""
)
_LETTERS_FIRST: Final = re.compile(r"([NSEW]) ?([^NSEW]+?)[ ,;]*([NSEW]) ?([^NSEW]+)")
_EMPTY: Final = re.compile(r"(?i)(?:[a-z0-9=]{1,16};)?point(?: z| m| zm)? empty")


def is_geometry(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether an object is a geometry of GeoJSON, which says longitude first (RFC 7946)."""
    if not isinstance(value, Mapping) or "coordinates" not in value:
        return False
    kind = value.get("type")
    return isinstance(kind, str) and kind in GEOMETRIES


def as_point(value: object, *, latitude: int) -> object:
    """A cell as a position, several as a list; None where there is none.

    Args:
        latitude: its place in a pair of numbers, 0 or 1; of WKT, too, which some write latitude first.

    Raises:
        ValueError: it is no position in this order.
    """
    if is_geometry(value):
        return centre(value["coordinates"], latitude)
    if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        points = (as_point(item, latitude=latitude) for item in value)
        return [point for point in points if point is not None] or None
    if isinstance(value, str):
        text = " ".join(value.split())
        if not text or _EMPTY.fullmatch(text):
            return None
        if text.startswith("{"):
            return _of_json(text, latitude)
        return _point(numbers_of(text, latitude=latitude), latitude, text)
    if isinstance(value, list) and all(item is None for item in value):
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return as_point("; ".join(value), latitude=latitude)
    return _point(value, latitude)


def _of_json(text: str, latitude: int) -> object:
    """GeoJSON as a table's cell holds it. Raises ValueError."""
    try:
        value = msgspec.json.decode(text)
        if is_geometry(value):
            return as_point(value, latitude=latitude)
    except (msgspec.DecodeError, RecursionError):
        pass
    return _point(None, latitude, text)


def centre(coordinates: object, latitude: int) -> str | None:
    """The point of a geometry's coordinates; of one with several the middle of them on the sphere."""
    points = list(_points(coordinates, latitude))
    if len(points) < 2:
        return points[0] if points else None
    places = [on_sphere(*place) for point in points if (place := degrees(point)) is not None]
    x, y, z = (math.fsum(axis) for axis in zip(*(place for place in places if place), strict=True))
    middle = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))
    return "POINT({} {})".format(*(round(angle, DIGITS) for angle in middle))


def _points(coordinates: object, latitude: int) -> Iterator[str]:
    if isinstance(coordinates, list) and not any(isinstance(item, list) for item in coordinates):
        if coordinates:
            yield _point(coordinates, latitude)
    elif isinstance(coordinates, list):
        for item in coordinates:
            yield from _points(item, latitude)
    elif coordinates is not None:
        yield _point(coordinates, latitude)


def _point(pair: object, latitude: int, text: str = "") -> str:
    """Two numbers, or three with a height, as a point.

    Raises:
        ValueError: they are none; quotes the `text` that they were in.
    """
    order = "[longitude, latitude]" if latitude else "[latitude, longitude]"
    if isinstance(pair, list) and len(pair) in (2, 3):
        north, east = pair[latitude], pair[1 - latitude]
        if all(isinstance(n, int | float) and not isinstance(n, bool) for n in (north, east)):
            if on_sphere(north, east):
                return f"POINT({east} {north})"
            raise ValueError(f"{pair} is no {order}: {north} is no latitude or {east} no longitude")
    raise ValueError(f"{str(text or pair)[:80]} is no {order}")


def numbers_of(text: str, *, latitude: int = 0) -> list[float] | None:
    """The numbers of a text such as `52.52, 13.40`, `52,52 13,40`, `POINT(13.4 52.5)` or `33°52′S 151°13′E`.

    Args:
        latitude: the place of the first of two numbers whose letters say which is which.
    """
    if (place := degrees(text)) and "(" in text:
        return [*reversed(place)]
    inside = text[1:-1].strip() if text[:1] + text[-1:] in ("[]", "()") else text
    if len(inside) <= PAIR_CHARS:
        if pair := _LETTERS_FIRST.fullmatch(inside):
            inside = f"{pair[2].strip()}{pair[1]}; {pair[4].strip()}{pair[3]}"
        inside = _MINUTES.sub(_in_degrees, inside)
    inside = _BEFORE_LETTER.sub("", inside)
    for separator in _SEPARATORS:
        parts = [_NUMBER.fullmatch(part.strip()) for part in inside.split(separator)]
        if len(parts) not in (2, 3) or None in parts:
            continue
        found = [(float(part[1].replace(",", ".")), part[2]) for part in parts if part]
        numbers = [-number if letter and letter in "SW" else number for number, letter in found]
        letters = "".join(letter for _, letter in found)
        if not letters:
            return numbers
        if re.fullmatch("[NS][EW]|[EW][NS]", letters):
            return numbers if (letters[0] in "NS") == (latitude == 0) else numbers[::-1]
    return None


def _in_degrees(angle: re.Match[str]) -> str:
    """Degrees, minutes and seconds as degrees, with the letter behind them."""
    degree, minutes, seconds = (float((part or "0").replace(",", ".")) for part in angle.groups()[:3])
    if minutes >= 60 or seconds >= 60:
        return angle[0]
    return f"{round(degree + minutes / 60 + seconds / 3600, DIGITS)}{angle[4]}"
