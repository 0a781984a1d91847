"""What a value is: text, number, date, duration, price, coordinate, code or list, recognised from the value.

A kind decides how a value is compared. Everything but text, codes and lists of them has a *measure*: one
float in the kind's base unit (numbers as they are, dates in days, durations in seconds, prices in units of
their currency), or three floats for a position (kilometres on the axes of a unit earth).
"""

import math
import re
from datetime import date
from enum import IntEnum
from functools import lru_cache

from index.entity import Scalar, Value

EARTH_RADIUS_KM = 6371.0
MAX_LIST_ITEMS = 32  # further elements of a list are not looked at
MAX_TEXT_CHARS = 1024  # of one text: what follows is not looked at
MAX_MEASURE_CHARS = 64  # longer texts are no numbers, dates, durations, prices or codes

Measure = float | tuple[float, float, float]


class Kind(IntEnum):
    """Stored in checkpoints: never renumber."""

    TEXT = 1
    NUMBER = 2
    DATE = 3
    DURATION = 4
    PRICE = 5
    COORDINATE = 6
    CODE = 7
    LIST = 8
    LATITUDE = 9  # half a coordinate: joined with the same entity's LONGITUDE
    LONGITUDE = 10


_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
_CURRENCY = r"(?:[$€£¥]|USD|EUR|GBP|JPY|CHF)"
_MONTHS = {"janfebmaraprmayjunjulaugsepoctnovdec"[3 * k : 3 * k + 3]: k + 1 for k in range(12)}
_MONTH = r"(?P<month>[A-Za-z]{3,9})\.?"

# All take time linear in the text, whatever it is: no two neighbours may share out a run of blanks.
_NUMBER_RE = re.compile(_NUMBER)
_PRICE_RE = re.compile(rf"{_CURRENCY}\s*(?P<a>{_NUMBER})|(?P<b>{_NUMBER})\s*{_CURRENCY}")
_CLOCK_RE = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):([0-5]\d)(\.\d+)?")
_UNITS_RE = re.compile(
    r"(?i)P?T?(?=\d)(?:(\d+)\s*h(?:ours?|rs?)?\s*)?(?:(\d+)\s*m(?:in(?:ute)?s?\.?)?\s*)?(?:(\d+)\s*s(?:ec(?:ond)?s?\.?)?)?"
)
_DATE_RES = (
    re.compile(r"(?P<year>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<day>\d{1,2})(?:[T ]\d\d:\d\d.*)?"),
    re.compile(r"(?P<day>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<year>\d{4})"),
    re.compile(rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[-\s]\s*{_MONTH}(?:\s*[-,]|\s)\s*(?P<year>\d{{4}}|\d\d)"),
    re.compile(rf"{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:\s*,)?\s+(?P<year>\d{{4}})"),
)
_COORDINATE_RE = re.compile(r"([+-]?\d{1,2}\.\d+)(?:\s*[,;]|[^\S ]* )\s*([+-]?\d{1,3}\.\d+)")
_DEGREE = r"[+-]?[\d.]+(?:e[+-]?\d{1,3})?"
_POINT_RE = re.compile(  # WKT, PostGIS's EWKT, GeoSPARQL's literal; a height or measure may follow
    r"(?i)(?:srid=(?P<srid>\d{1,9});|<(?P<crs>[^<>\s]{1,100})>\s*)?point(?:\s*zm?|\s*m)?\s*\("
    rf"\s*(?P<x>{_DEGREE})\s+(?P<y>{_DEGREE})(?:\s+{_DEGREE}){{0,2}}\s*\)"
)
_POINT_STARTS = ("point", "srid=", "<http")
_IN_DEGREES = frozenset(
    {"4326", "4979", "4258", "4269"}
)  # by EPSG: WGS 84 in two and three dimensions, ETRS89, NAD83
_CODE_RE = re.compile(r"(?=[^\s]*\d)[A-Za-z0-9][A-Za-z0-9_./:\-]{1,31}")
_WORD_RE = re.compile(r"[a-z]+")
_LATITUDES = frozenset({"lat", "latitude"})
_LONGITUDES = frozenset({"lon", "lng", "long", "longitude"})


def recognise(value: Value) -> Kind:
    """The kind of one value by itself, without its key."""
    if isinstance(value, list):
        return Kind.COORDINATE if position(value) else Kind.LIST
    if isinstance(value, bool):
        return Kind.TEXT
    if isinstance(value, int | float):
        return Kind.NUMBER if measure(Kind.NUMBER, value) is not None else Kind.TEXT
    text = value.strip()
    if len(text) > MAX_MEASURE_CHARS:
        is_point = text[:5].casefold() in _POINT_STARTS and position(text)
        return Kind.COORDINATE if is_point else Kind.TEXT
    return _recognise_text(text)


@lru_cache(maxsize=4096)
def recognise_key(name: str) -> Kind | None:
    """LATITUDE or LONGITUDE for attribute names that say so (`lat`, `latitude_deg`, `geo.lng`)."""
    words = set(_WORD_RE.findall(name.casefold()))
    if words & _LATITUDES:
        return Kind.LATITUDE
    return Kind.LONGITUDE if words & _LONGITUDES else None


def single_degree(name: str, value: Value) -> Value:
    """A latitude or longitude out of a list of one, as RDF has it. Any other value as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 and recognise_key(name) else value


def measure(kind: Kind, value: Scalar) -> float | None:
    """The value in its kind's base unit, None when the value is not of this kind."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if kind in (Kind.DATE, Kind.COORDINATE, Kind.TEXT, Kind.CODE):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return _measure_text(kind, value.strip()) if len(value) <= MAX_MEASURE_CHARS else None


def find_dates(text: str) -> list[float]:
    """The dates inside a text, in days."""
    found = [_days_of(match) for pattern in _DATE_RES for match in pattern.finditer(text)]
    return [days for days in found if days is not None]


def position(value: Value) -> tuple[float, float, float] | None:
    """A coordinate as x, y, z in kilometres; None when the value is none."""
    place = degrees(value)
    return on_sphere(*place) if place else None


def degrees(value: Value) -> tuple[float, float] | None:
    """The latitude and longitude that a value says, which may be out of their range; None when it says none.

    They are two floats in a list or in a text, latitude first, or a point of WKT, longitude first.
    """
    if isinstance(value, str):
        text = value.strip()
        if len(text) > MAX_TEXT_CHARS:
            return None
        if match := _COORDINATE_RE.fullmatch(text):
            return float(match[1]), float(match[2])
        if match := _POINT_RE.fullmatch(text):
            return _degrees_of(match)
    elif isinstance(value, list) and len(value) == 2:
        a, b = value
        if isinstance(a, float) and isinstance(b, float):
            return a, b
    return None


def on_sphere(latitude: float, longitude: float) -> tuple[float, float, float] | None:
    """Degrees to kilometres on three axes: near is near, at the poles and at the date line too."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 360):
        return None
    phi, theta = math.radians(latitude), math.radians(longitude)
    flat = EARTH_RADIUS_KM * math.cos(phi)
    return flat * math.cos(theta), flat * math.sin(theta), EARTH_RADIUS_KM * math.sin(phi)


def _degrees_of(point: re.Match[str]) -> tuple[float, float] | None:
    """Latitude and longitude; None in another reference system. That of an EPSG URI is latitude first."""
    x, y = _float(point["x"]), _float(point["y"])
    system = point["crs"] or point["srid"] or "4326"
    code = system.rpartition("/")[2]
    if x is None or y is None or code not in (*_IN_DEGREES, "CRS84"):
        return None
    return (x, y) if point["crs"] and code != "CRS84" else (y, x)


@lru_cache(maxsize=4096)
def _recognise_text(text: str) -> Kind:
    if not any(map(str.isdigit, text)):
        return Kind.TEXT
    if _NUMBER_RE.fullmatch(text):
        leading_zero = len(text) > 1 and text[0] == "0" and text.isdigit()
        return Kind.CODE if leading_zero or len(text) > 18 else Kind.NUMBER
    if position(text):
        return Kind.COORDINATE
    for kind in (Kind.PRICE, Kind.DURATION, Kind.DATE):
        if _measure_text(kind, text) is not None:
            return kind
    return Kind.CODE if _CODE_RE.fullmatch(text) else Kind.TEXT


def _measure_text(kind: Kind, text: str) -> float | None:
    match kind:
        case Kind.NUMBER | Kind.LATITUDE | Kind.LONGITUDE:
            return _float(text)
        case Kind.PRICE:
            found = _PRICE_RE.fullmatch(text)
            return _float(found["a"] or found["b"] or "") if found else _float(text)
        case Kind.DURATION:
            return _seconds(text)
        case Kind.DATE:
            return _days(text)
        case _:
            return None


def _float(text: str) -> float | None:
    if not text or not _NUMBER_RE.fullmatch(text):
        return None
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _seconds(text: str) -> float | None:
    if match := _CLOCK_RE.fullmatch(text):
        hours, minutes, seconds, fraction = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(fraction or 0)
    match = _UNITS_RE.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def _days(text: str) -> float | None:
    for pattern in _DATE_RES:
        if match := pattern.fullmatch(text):
            break
    else:
        return None
    return _days_of(match)


def _days_of(match: re.Match[str]) -> float | None:
    parts = match.groupdict()
    year, day = int(parts["year"]), int(parts["day"])
    if len(parts["year"]) == 2:
        year += 1900 if year >= 69 else 2000  # as POSIX strptime does
    month = int(parts["m"]) if parts.get("m") else _MONTHS.get(parts["month"][:3].lower(), 0)
    if month > 12 >= day:
        month, day = day, month
    try:
        return float(date(year, month, day).toordinal())
    except ValueError:
        return None
