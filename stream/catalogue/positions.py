"""In which order positions are written: a guess from a sample, and what looks wrong in what was read."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Final, NamedTuple

import msgspec

from model.encoding.values import EARTH_RADIUS_KM, Kind, degrees, on_sphere, recognise_key
from stream.catalogue.report import TurnedPositions, WrongPositions
from stream.events import Upsert
from stream.mapping.positions import numbers_of
from stream.mapping.wkb import is_wkb

ENOUGH: Final = 0.95  # of a column's cells that are pairs, so that it has positions
LON_LAT, LAT_LON = "lon-lat", "lat-lon"
FEWEST: Final = 10  # places of one type and source, so that their middle says something
REGION: Final = 0.1  # the largest spread of a region, some 50 degrees across
FAR_KM: Final = 1500
_BEGINNINGS: Final = frozenset("+-0123456789PpSs<")  # of texts that may be positions
_NAMES: Final = re.compile(r"(?i)coord|geo|gps|wgs|loc|pos|point|place|centre|center|lat|lo?ng?")
_LAT_FIRST: Final = re.compile(r"(?i)lat.*lo?ng?")
_LON_FIRST: Final = re.compile(r"(?i)lo?ng?.*lat")


class Order(NamedTuple):
    """A type for `columns`, and whether no value speaks for it, but only what is usual."""

    type: str
    is_guess: bool


def order_of(cells: Iterable[object], name: str) -> Order | None:
    """How a column's cells say latitude and longitude: in WKB, or in which order.

    The order is known by what is beyond 90, or else guessed by the name.

    None where they are no positions, or points of WKT, whose usual order needs no type; or where the name
    says that the column has one of the two.
    """
    if recognise_key(name) and not (_LAT_FIRST.search(name) or _LON_FIRST.search(name)):
        return None
    cells = [cell for cell in cells if cell is not None]
    if cells and all(map(is_wkb, cells)):
        return Order("wkb", is_guess=False)
    pairs = [numbers_of(cell) if isinstance(cell, str) else cell for cell in cells]
    places = [pair for pair in pairs if isinstance(pair, list) and _is_place(pair)]
    if not _NAMES.search(name) or not places or len(places) < ENOUGH * len(cells):
        return None
    are_wkt = any(isinstance(cell, str) and "(" in cell for cell in cells)
    beyond = [any(abs(place[at]) > 90 for place in places) for at in (0, 1)]
    if beyond[0] != beyond[1]:
        return None if are_wkt and beyond[0] else Order(LON_LAT if beyond[0] else LAT_LON, is_guess=False)
    if are_wkt:
        return None
    are_texts = any(isinstance(cell, str) for cell in cells)  # people write latitude first, GeoJSON does not
    by_name = _LAT_FIRST.search(name) or (are_texts and not _LON_FIRST.search(name))
    return Order(LAT_LON if by_name else LON_LAT, is_guess=True)


def _is_place(pair: list[object]) -> bool:
    """Whether two numbers, or three with a height, can be degrees in one of the orders."""
    numbers = [n for n in pair[:2] if isinstance(n, int | float) and not isinstance(n, bool)]
    if len(pair) not in (2, 3) or len(numbers) < 2:
        return False
    a, b = numbers
    return bool(on_sphere(a, b) or on_sphere(b, a))


class _Middle(msgspec.Struct):
    """The middle of many places on the sphere, from the sum of their axes in kilometres."""

    count: int = 0
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0

    def add(self, place: tuple[float, float, float]) -> None:
        self.count += 1
        self.x, self.y, self.z = self.x + place[0], self.y + place[1], self.z + place[2]

    @property
    def spread(self) -> float:
        """0 where all are in one place, 1 where they are everywhere."""
        return 1 - math.hypot(self.x, self.y, self.z) / (EARTH_RADIUS_KM * max(1, self.count))

    def distance(self, other: "_Middle") -> float:
        """In kilometres."""
        cosine = self.x * other.x + self.y * other.y + self.z * other.z
        norms = math.hypot(self.x, self.y, self.z) * math.hypot(other.x, other.y, other.z)
        return EARTH_RADIUS_KM * math.acos(max(-1.0, min(1.0, cosine / norms))) if norms else 0.0


class Positions:
    """Reads along, and finds positions that look as if latitude and longitude had changed places."""

    def __init__(self) -> None:
        self._wrong: dict[tuple[str, str], WrongPositions] = {}  # by source and attribute
        # by type and source: as they are read, and turned round
        self._middles: defaultdict[str, dict[str, tuple[_Middle, _Middle]]] = defaultdict(dict)

    def take(self, entity: Upsert, place: Callable[[], str]) -> None:
        """An entity, and where it stands."""
        halves: dict[Kind, float] = {}
        for name, value in entity.attributes.items():
            if isinstance(value, list) and len(value) == 1:
                (value,) = value
            if isinstance(value, int | float):
                if half := recognise_key(name):
                    halves[half] = value
                    if half is Kind.LATITUDE and 90 < abs(value) <= 360:
                        self._note(entity, name, place)
            elif (isinstance(value, list) or value[:1] in _BEGINNINGS) and (found := degrees(value)):
                if on_sphere(*found):
                    self._add(entity, found)
                elif on_sphere(*found[::-1]):
                    self._note(entity, name, place)
        if len(halves) == 2:
            self._add(entity, (halves[Kind.LATITUDE], halves[Kind.LONGITUDE]))

    def wrong(self) -> list[WrongPositions]:
        """What is no position as it is read, and would be one the other way round; the most first."""
        return sorted(self._wrong.values(), key=lambda wrong: -wrong.count)

    def turned(self) -> list[TurnedPositions]:
        """The types of which two sources are far apart, and near if one of them is turned round."""
        found = []
        for kind, by_source in self._middles.items():
            for (left, (one, one_turned)), (right, (other, other_turned)) in combinations(
                by_source.items(), 2
            ):
                km, turned = one.distance(other), min(one.distance(other_turned), one_turned.distance(other))
                are_regions = (
                    max(one.spread, other.spread) <= REGION and min(one.count, other.count) >= FEWEST
                )
                if are_regions and km > FAR_KM and turned < km / 10:
                    found.append(TurnedPositions(kind, [left, right], round(km), round(turned)))
        return found

    def _note(self, entity: Upsert, name: str, place: Callable[[], str]) -> None:
        key = entity.source, name
        if key not in self._wrong:
            self._wrong[key] = WrongPositions(source=entity.source, attribute=name)
        self._wrong[key].add(entity.id, place())

    def _add(self, entity: Upsert, found: tuple[float, float]) -> None:
        if not on_sphere(*found):
            return
        middles = self._middles[entity.type]
        if entity.source not in middles:
            middles[entity.source] = _Middle(), _Middle()
        for middle, pair in zip(middles[entity.source], (found, found[::-1]), strict=True):
            if place := on_sphere(*pair):
                middle.add(place)
