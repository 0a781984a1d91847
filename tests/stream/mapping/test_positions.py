"""Places: every usual way of writing one is read as the same point, and what is none is refused."""

import base64
import json
import math
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.encoding.values import Kind, degrees, recognise
from stream.errors import InvalidInput
from stream.events import Upsert
from stream.mapping.column_types import by_schema, converter, plain_struct
from stream.mapping.language import Attribute, SourceMapping
from stream.mapping.positions import as_point
from stream.mapping.row_mapper import RowMapper
from stream.mapping.wkb import from_wkb, is_wkb


@pytest.mark.parametrize(
    ("cell", "latitude", "point"),
    [
        ([13.4, 52.5], 1, "POINT(13.4 52.5)"),
        ([52.5, 13.4], 0, "POINT(13.4 52.5)"),
        ([13, -52, 34.5], 1, "POINT(13 -52)"),
        ([-122.4, 37.8], 1, "POINT(-122.4 37.8)"),
        ([-33.86, 151.21], 0, "POINT(151.21 -33.86)"),
        ("52.52, 13.40", 0, "POINT(13.4 52.52)"),
        ("139.69 35.69", 1, "POINT(139.69 35.69)"),
        ("[13.4,52.5]", 1, "POINT(13.4 52.5)"),
        ("(52.5; 13.4)", 0, "POINT(13.4 52.5)"),
        ("52,520008 13,404954", 0, "POINT(13.404954 52.520008)"),
        ("52,520008, 13,404954", 0, "POINT(13.404954 52.520008)"),
        ("33.86 S, 151.21 E", 0, "POINT(151.21 -33.86)"),
        ("33.86 S, 151.21 E", 1, "POINT(151.21 -33.86)"),
        ("122.4° W 37.8° N", 0, "POINT(-122.4 37.8)"),
        ("52°30'N 13°24'E", 0, "POINT(13.4 52.5)"),
        ("33° 51′ 36″ S, 151° 12′ 36.0″ E", 1, "POINT(151.21 -33.86)"),
        ("N52.5 E13.4", 1, "POINT(13.4 52.5)"),
        ("W 0° 7.656', N 51.5", 0, "POINT(-0.1276 51.5)"),
        (["52.5", " 13.4 "], 0, "POINT(13.4 52.5)"),
        (["52,5", "13,4"], 0, "POINT(13.4 52.5)"),
        ('{"type": "Point", "coordinates": [13.4, 52.5]}', 1, "POINT(13.4 52.5)"),
        ("POINT(13.4 52.5)", 1, "POINT(13.4 52.5)"),
        ("point (52.5 13.4)", 0, "POINT(13.4 52.5)"),
        ("SRID=4326;POINT Z (13.4 52.5 34)", 1, "POINT(13.4 52.5)"),
        ("POINT EMPTY", 1, None),
        (" ", 1, None),
        ([None, None], 1, None),
        ([[13.4, 52.5], [14.4, 51.5]], 1, ["POINT(13.4 52.5)", "POINT(14.4 51.5)"]),
        ({"type": "Point", "coordinates": [13.4, 52.5, 34]}, 1, "POINT(13.4 52.5)"),
        ({"type": "Point", "coordinates": [52.5, 13.4]}, 0, "POINT(13.4 52.5)"),
        ({"type": "Point", "coordinates": []}, 1, None),
        ({"type": "LineString", "coordinates": [[-10, 0], [10, 0]]}, 1, "POINT(0.0 0.0)"),
        (
            {"type": "Polygon", "coordinates": [[[178, -1], [-178, -1], [-178, 1], [178, 1]]]},
            1,
            "POINT(180.0 0.0)",
        ),
    ],
)
def test_cells_as_points(cell: object, latitude: int, point: object) -> None:
    assert as_point(cell, latitude=latitude) == point


@pytest.mark.parametrize("latitude", [0, 1])
@pytest.mark.parametrize(
    "cell",
    [
        "Berlin",
        "52.5",
        "1,2,3,4",
        [1.0],
        [1.0, "x"],
        [True, False],
        [500.0, 1000.0],
        52.5,
        "SRID=3857;POINT(1 2)",
        {"type": "Point", "coordinates": "x"},
        {"type": "Polygon", "coordinates": [[[1, 2], [3]]]},
        "5 N, 6 N",
        "N5 N6",
        "52°70'N 13°24'E",
        "52°30'N",
        '{"type": "Point"}',
        '{"type": "Point", "coordinates": [1]}',
        '{"type": "Polygon", "coordinates": ' + "[" * 5000 + "]" * 5000 + "}",
        "{",
        ["a", "b"],
        ["1", "2", "3", "4"],
    ],
)
def test_what_is_no_position_is_refused(cell: object, latitude: int) -> None:
    with pytest.raises(ValueError, match=r"is no \["):
        as_point(cell, latitude=latitude)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_any_place_is_the_same_in_either_order(north: float, east: float) -> None:
    points = {
        as_point([north, east], latitude=0),
        as_point([east, north], latitude=1),
        as_point({"type": "Point", "coordinates": [east, north]}, latitude=1),
    }
    (point,) = points
    assert isinstance(point, str) and degrees(point) == (north, east)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda part: st.lists(part, max_size=3))
)
def test_any_cell_is_a_position_or_refused(cell: Any) -> None:
    geometry = {"type": "MultiPolygon", "coordinates": cell}
    for value in (cell, str(cell), geometry, json.dumps(geometry)):
        try:
            as_point(value, latitude=1)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("POINT(-101.4 38.7)", (38.7, -101.4)),
        ("point zm (1.5 2.5 3 4)", (2.5, 1.5)),
        ("POINTM(1 2 3)", (2.0, 1.0)),
        (
            "SRID=4326;POINT Z (13.404954123456789 52.520008123456789 34.123456)",
            (52.520008123456789, 13.404954123456789),
        ),
        ("<http://www.opengis.net/def/crs/OGC/1.3/CRS84> POINT(13.4 52.5)", (52.5, 13.4)),
        ("<http://www.opengis.net/def/crs/EPSG/0/4326> POINT(52.5 13.4)", (52.5, 13.4)),
        ("POINT(1e1 -5.0E0)", (-5.0, 10.0)),
        ("SRID=3857;POINT(10 50)", None),
        ("<http://www.opengis.net/def/crs/EPSG/0/3857> POINT(10 50)", None),
        ("POINT(2000 5000)", None),
    ],
)
def test_points_of_wkt_are_recognised(value: str, place: tuple[float, float] | None) -> None:
    assert recognise(value) is (Kind.TEXT if place is None else Kind.COORDINATE)
    assert place is None or degrees(value) == place


GEOMETRY: dict[str, object] = {"type": "Point", "coordinates": [13.4, 52.5]}


def mapped(row: dict[str, object], column: str, **columns: str) -> Upsert:
    table = SourceMapping(topic="t", id="id", attributes={"place": Attribute(column)}, columns=dict(columns))
    (own,) = RowMapper("s", table).upserts({"id": "1", **row})
    return own


def test_geojson_says_its_order_itself() -> None:
    place = {"place": "POINT(13.4 52.5)"}
    assert mapped({"geometry": GEOMETRY}, "geometry").attributes == place
    assert mapped({"geometry": GEOMETRY}, "geometry.coordinates").attributes == place
    assert mapped({"f": [{"geometry": GEOMETRY}] * 2}, "f.geometry").attributes == {
        "place": ["POINT(13.4 52.5)"] * 2
    }
    assert mapped({"geometry": None}, "geometry.coordinates").attributes == {}
    turned: dict[str, object] = {"geometry": {"type": "Point", "coordinates": [52.5, 13.4]}}
    assert mapped(turned, "geometry.coordinates", **{"geometry.coordinates": "lat-lon"}).attributes == place
    with pytest.raises(
        InvalidInput, match="geometry: coordinates of longitude and latitude, in degrees, are expected"
    ):
        mapped({"geometry": {"type": "Point", "coordinates": [3_500_000.0, 5_800_000.0]}}, "geometry")


def test_a_column_has_the_order_that_the_mapping_says() -> None:
    place = {"place": "POINT(13.4 52.5)"}
    assert mapped({"xy": [13.4, 52.5]}, "xy", xy="lon-lat").attributes == place
    assert mapped({"a": {"xy": "13.4 52.5"}}, "a.xy", **{"a.xy": "lon-lat"}).attributes == place
    assert mapped({"xy": " NULL "}, "xy", xy="lon-lat").attributes == {}
    assert mapped({"xy": [13.4, 52.5]}, "xy").attributes == {"place": [13.4, 52.5]}  # latitude first
    with pytest.raises(InvalidInput, match=r"xy: \[139\.7, 35\.7\] is no \[latitude, longitude\]") as refused:
        mapped({"xy": [139.7, 35.7]}, "xy", xy="lat-lon")
    assert refused.value.reason == "bad-value"


def wkb(
    kind: int, *numbers: float, order: str = "<", system: int | None = None, counts: tuple[int, ...] = ()
) -> bytes:
    """A geometry of one part."""
    kind |= 0 if system is None else 0x20000000
    head = struct.pack(f"{order}BI", order == "<", kind)
    more = [*(() if system is None else (system,)), *counts]
    return head + struct.pack(f"{order}{len(more)}I{len(numbers)}d", *more, *numbers)


BERLIN = wkb(1, 13.4, 52.5)
AREA = wkb(3, 0, 0, 2, 0, 2, 2, 0, 2, counts=(1, 4))
WKB = [
    (BERLIN, "POINT(13.4 52.5)"),
    (wkb(1, 13.4, 52.5, order=">"), "POINT(13.4 52.5)"),
    (wkb(1, 13.4, 52.5, system=4326), "POINT(13.4 52.5)"),
    (wkb(0x80000001, 13.4, 52.5, 34.0, system=4326), "POINT(13.4 52.5)"),
    (wkb(1001, 13.4, 52.5, 34.0), "POINT(13.4 52.5)"),
    (wkb(3001, 13.4, 52.5, 34.0, 1.0), "POINT(13.4 52.5)"),
    (wkb(1, 2.0, 0.0), "POINT(2.0 0.0)"),  # bytes that are UTF-8
    (wkb(2, -10, 0, 10, 0, counts=(2,)), "POINT(0.0 0.0)"),
    (AREA, "POINT(1.0 1.0)"),
    (wkb(4, counts=(2,)) + wkb(1, -10, 0) + wkb(1, 10, 0), "POINT(0.0 0.0)"),
    (wkb(6, counts=(1,)) + AREA, "POINT(1.0 1.0)"),
    (wkb(1, math.nan, math.nan), None),
    (wkb(4, counts=(0,)), None),
]


@pytest.mark.parametrize(("raw", "point"), WKB)
def test_wkb_in_every_form(raw: bytes, point: str | None) -> None:
    forms: list[object] = [raw, raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode()]
    forms += [raw.decode()] if raw.isascii() else []
    for form in forms:
        found = converter("wkb")(form)
        assert found == point or (found is not None and point == on_degrees(found))
    assert is_wkb(raw) == is_wkb(raw.hex()) == (point is not None)
    sent = {"wkb": base64.b64encode(raw).decode(), "srid": 4326}
    assert plain_struct(sent) == by_schema({"name": "io.debezium.data.geometry.Geometry"}, sent)
    assert plain_struct(sent) == from_wkb(raw)


def on_degrees(point: object) -> str:
    """The point, to one digit."""
    x, y = re.findall(r"[-\d.]+", str(point))
    return f"POINT({float(x):.1f} {float(y):.1f})"


@pytest.mark.parametrize(
    "value",
    [
        "Berlin",
        "",
        12,
        BERLIN[:-1],
        BERLIN + b"\0",
        wkb(1, 1489199.0, 6894699.0, system=3857),
        wkb(1, 1489199.0, 6894699.0),
        wkb(7, counts=(1,)) + BERLIN,
        wkb(9, 1.0),
        wkb(4, counts=(2**32 - 1,)) + BERLIN,
        wkb(5, counts=(1,)) * 40,
    ],
)
def test_what_is_no_wkb_is_refused(value: object) -> None:
    assert not is_wkb(value)
    with pytest.raises(ValueError, match=r"WKB|SRID|\[longitude, latitude\]"):
        from_wkb(value)
    mapper = RowMapper("s", SourceMapping(id="id", attributes=["at"], columns={"at": "wkb"}))
    if value != "":
        with pytest.raises(InvalidInput, match=r"^at: "):
            mapper.upserts({"id": 1, "at": value})


@given(st.sampled_from([raw for raw, _ in WKB]), st.integers(0, 40), st.binary(max_size=9), st.booleans())
def test_no_bytes_end_the_program(raw: bytes, at: int, other: bytes, cut: bool) -> None:
    mixed = raw[:at] + other + (b"" if cut else raw[at + len(other) :])
    try:
        assert from_wkb(mixed) is None or str(from_wkb(mixed)).startswith("POINT(")
    except ValueError:
        assert not is_wkb(mixed)
