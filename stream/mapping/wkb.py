"""Places in the binary form of databases: WKB, also PostGIS' EWKB, in hexadecimal, base64 or bytes.

PostGIS exports a geometry as hexadecimal EWKB, Debezium sends WKB in base64, and GeoParquet holds WKB.
"""

import base64
import binascii
import math
import re
import struct
from typing import Final

from stream.mapping.positions import centre

HEX: Final = re.compile(r"0[01](?:[0-9A-Fa-f]{2}){8,}")
RAW: Final = ("\0", "\1")  # how bytes begin; of Parquet's those that happen to be UTF-8 come as text
POINT, POLYGON, MULTI = 1, 3, (4, 5, 6)  # kinds; 2 is a line
IN_DEGREES: Final = {0, 4258, 4269, 4326, 4979}  # systems of coordinates; 0 says nothing
_HAS_Z, _HAS_M, _HAS_SYSTEM = 0x80000000, 0x40000000, 0x20000000


def is_wkb(value: object) -> bool:
    """Whether a value, as an export has it, is a geometry of WKB; base64 is not recognised."""
    if isinstance(value, str) and not HEX.fullmatch(value) and not value.startswith(RAW):
        return False
    try:
        return from_wkb(value) is not None
    except ValueError:
        return False


def from_wkb(value: object) -> object:
    """The geometry's point, or the middle of its points; None if it has none. WKT is left as it is.

    Raises:
        ValueError: it is no WKB, or not in degrees.
    """
    if isinstance(value, str) and "(" in value:
        return value
    raw = value if isinstance(value, bytes) else _decoded(value)
    try:
        coordinates, end = _geometry(raw, 0)
    except (struct.error, KeyError, IndexError):
        raise ValueError(f"{str(value)[:80]} is no WKB") from None
    if end != len(raw):
        raise ValueError(f"{str(value)[:80]} is no WKB: {len(raw) - end} bytes are left")
    return centre(coordinates, 1)


def _decoded(value: object) -> bytes:
    if isinstance(value, str):
        if value.startswith(RAW):
            return value.encode()
        try:
            return bytes.fromhex(value) if HEX.fullmatch(value) else base64.b64decode(value, validate=True)
        except binascii.Error:
            pass
    raise ValueError(f"{str(value)[:80]} is no WKB")


def _geometry(raw: bytes, at: int, *, is_part: bool = False) -> tuple[list[object], int]:
    """The coordinates of the geometry that begins here, as GeoJSON nests them, and where it ends.

    Raises:
        ValueError: it is of an unknown kind, or not in degrees.
        struct.error, KeyError, IndexError: the bytes are none.
    """
    order = {0: ">", 1: "<"}[raw[at]]
    (kind,) = struct.unpack_from(f"{order}I", raw, at + 1)
    at += 5
    size = 2 + bool(kind & _HAS_Z) + bool(kind & _HAS_M)
    if kind & _HAS_SYSTEM:
        (system,) = struct.unpack_from(f"{order}I", raw, at)
        at += 4
        if system not in IN_DEGREES:
            raise ValueError(f"the SRID {system} is not in degrees; ST_Transform(..., 4326) is")
    thousands, kind = divmod(kind & 0x0FFFFFFF, 1000)
    size += (0, 1, 1, 2)[thousands]

    def points(count: int, at: int) -> tuple[list[object], int]:
        found: list[object] = []
        for _ in range(count):
            x, y = struct.unpack_from(f"{order}{size}d", raw, at)[:2]
            at += 8 * size
            found += [] if math.isnan(x) else [[x, y]]
        return found, at

    if kind == POINT:
        return points(1, at)
    if not POINT < kind <= MULTI[-1] or (is_part and kind in MULTI):
        raise ValueError(f"WKB of the kind {kind}; a point, line, polygon or several of them are expected")
    (count,) = struct.unpack_from(f"{order}I", raw, at)
    at += 4
    if kind not in (POLYGON, *MULTI):
        return points(count, at)
    found: list[object] = []
    for _ in range(count):
        if kind == POLYGON:
            (length,) = struct.unpack_from(f"{order}I", raw, at)
            inside, at = points(length, at + 4)
        else:
            inside, at = _geometry(raw, at, is_part=True)
        found.append(inside)
    return found, at
