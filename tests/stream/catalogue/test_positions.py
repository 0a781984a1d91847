"""The order of latitude and longitude: proposed from a sample, and doubted where it looks wrong."""

import json
import random
import tomllib
from pathlib import Path

import msgspec
import pytest

from stream.catalogue.account import Account
from stream.catalogue.positions import Order, order_of
from stream.catalogue.proposing import propose
from stream.catalogue.reading import read_events
from stream.events import Upsert
from stream.mapping.language import SourceMapping

BERLIN, TOKYO = (52.5, 13.4), (35.7, 139.7)


@pytest.mark.parametrize(
    ("cells", "name", "order"),
    [
        ([[13.4, 52.5], [139.7, 35.7]], "coordinates", Order("lon-lat", False)),
        ([[52.5, 13.4], [35.7, 139.7]], "coordinates", Order("lat-lon", False)),
        ([[13.4, 52.5], [-122.4, 37.8, 12.0]], "geo", Order("lon-lat", False)),
        ([[13.4, 52.5], [9.9, 53.5]], "coordinates", Order("lon-lat", True)),
        ([[52.5, 13.4], [53.5, 9.9]], "latlng", Order("lat-lon", True)),
        (["52.5, 13.4", "53.5, 9.9"], "position", Order("lat-lon", True)),
        (["13.4 52.5", None, "9.9 53.5"], "lon_lat", Order("lon-lat", True)),
        (["139.7,35.7", "13.4,52.5"], "location", Order("lon-lat", False)),
        (["52,52 13,40", "53,55 9,99"], "geo", Order("lat-lon", True)),
        (["POINT(13.4 52.5)", "POINT(139.7 35.7)"], "geo", None),
        (["POINT(52.5 13.4)", "POINT(35.7 139.7)"], "geo", Order("lat-lon", False)),
        ([[80.2, 120.5], [60.0, 90.5]], "size", None),
        ([[13.4, 52.5], ["a", "b"]], "coordinates", None),
        ([[1_000.0, 2_000.0]], "coordinates", None),
        (["Berlin"], "place", None),
        ([], "place", None),
    ],
)
def test_the_order_is_seen_in_values_or_guessed_by_the_name(
    cells: list[object], name: str, order: Order | None
) -> None:
    assert order_of(cells, name) == order


def places(count: int, north: float, east: float, spread: float = 3.0) -> list[tuple[float, float]]:
    chance = random.Random(5)
    return [
        (north + chance.uniform(-spread, spread), east + chance.uniform(-spread, spread))
        for _ in range(count)
    ]


@pytest.mark.parametrize("around", [BERLIN, TOKYO, (-33.9, 151.2), (37.8, -122.4)])
def test_what_map_proposes_reads_any_form_of_a_place(tmp_path: Path, around: tuple[float, float]) -> None:
    rows = [
        {
            "id": n,
            "coordinates": [east, north],
            "latlon": f"{north:.5f}, {east:.5f}",
            "geometry": {"type": "Point", "coordinates": [east, north]},
            "wkt": f"SRID=4326;POINT({east} {north})",
        }
        for n, (north, east) in enumerate(places(60, *around))
    ]
    path = tmp_path / "stations.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    table = toml_of(path)
    assert table["columns"] == {"coordinates": "lon-lat", "latlon": "lat-lon"}
    events = [event for _, event in read_events("s", msgspec.convert(table, SourceMapping), Path())]
    for row, event in zip(rows, events, strict=True):
        assert isinstance(event, Upsert)
        assert event.attributes["coordinates"] == event.attributes["geometry"]
        assert event.attributes["wkt"] == row["wkt"]
        assert str(event.attributes["latlon"]).startswith("POINT(")


def toml_of(path: Path) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads(propose([path], "s").toml)["sources"]["s"]
    return table


def station(source: str, number: int, **attributes: object) -> Upsert:
    return Upsert(source, f"{number}", "station", attributes)  # type: ignore[arg-type]


def test_points_under_a_type_are_no_unread_cells(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": "1", "xy": "POINT(13.4 52.5)"}\n{"id": "2", "xy": [13.4, 52.5]}\n'
    )
    mapping = SourceMapping(file="a.jsonl", id="id", attributes=["xy"], columns={"xy": "lon-lat"})
    account = Account()
    events = [event for _, event in read_events("s", mapping, tmp_path, account=account)]
    assert {str(e.attributes["xy"]) for e in events if isinstance(e, Upsert)} == {"POINT(13.4 52.5)"}
    assert account.report().problems == {}


def test_positions_that_are_none_latitude_first_are_counted() -> None:
    account = Account()
    for number, (north, east) in enumerate([TOKYO, BERLIN, (-33.9, 151.2)]):
        account.take_event(
            station("a", number, xy=[east, north], lat=[east], lon=[north]), account.place("f", number + 1)
        )
    wrong = account.report().wrong_positions
    assert [(one.source, one.attribute, one.count) for one in wrong] == [("a", "xy", 2), ("a", "lat", 2)]
    assert account.report().problems == {"wrong_positions": 4}
    (line, _) = account.report().lines()
    assert line.startswith(
        "attribute xy of a: 2 begin with a number that is a longitude and no latitude, first 0 in f:1; "
    )


@pytest.mark.parametrize("north_first", [True, False])
def test_two_sources_on_different_continents(north_first: bool) -> None:
    account = Account()
    for number, (north, east) in enumerate(places(40, *BERLIN)):
        account.take_event(station("a", number, lat=north, lon=east), 0)
        account.take_event(station("b", number, xy=[north, east] if north_first else [east, north]), 0)
    turned = account.report().turned_positions
    assert [(one.type, one.sources, one.km_turned) for one in turned] == [("station", ["a", "b"], 0)] * (
        not north_first
    )
    warned = any("positions of type station: a and b are " in line for line in account.report().lines())
    assert warned != north_first


def test_sources_all_over_the_world_or_really_far_apart_are_not_doubted() -> None:
    account = Account()
    for number, (north, east) in enumerate(places(40, 0, 0, spread=80)):
        account.take_event(station("a", number, lat=north, lon=east), 0)
        account.take_event(station("b", number, xy=[north, east]), 0)
    for number, (north, east) in enumerate(places(40, *TOKYO)):
        account.take_event(station("c", number, lat=north, lon=east), 0)
    assert account.report().problems == {}
