"""The demo's data: two real, independent airport catalogues, with their shared codes withheld as the answers.

`airportsdata` and `airports-py` were compiled by different people. Airports with the same ICAO code are the
same: that is the answer to find. So no ICAO, IATA or local code, and no link with one inside, becomes a
column. Rows are numbered in an order that does not show the order in the package.

Everything here is a function of the two pinned packages: every run has the same rows, answers and changes.
"""

import csv
import gzip
import importlib.resources
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from stream.config import load_settings
from stream.errors import ConfigError
from stream.events import Delete, EntityEvent, curie
from stream.learning.known_links import uniform
from stream.mapping.language import SourceMapping
from stream.mapping.row import Row
from stream.mapping.row_mapper import RowMapper

LEFT, RIGHT = "airportsdata", "airportspy"
LEFT_FILE, RIGHT_FILE = "airportsdata.csv", "airportspy.jsonl"
LEFT_COLUMNS = ("name", "city", "subd", "country", "elevation", "lat", "lon", "tz")
RIGHT_COLUMNS = (
    *("airport", "latitude", "longitude", "elevation_ft", "type", "scheduled_service"),
    *("runway_length", "continent", "country_code", "time", "utc"),
)
NAME_COLUMN = {LEFT: "name", RIGHT: "airport"}
POSITION_COLUMNS = {LEFT: ("lat", "lon"), RIGHT: ("latitude", "longitude")}
COUNTRY_COLUMN = {LEFT: "country", RIGHT: "country_code"}

SMALL_COUNTRY = "DE"  # 479 and 474 airports, 439 in both, only every eighth under the same name
TRAIN_SHARE, VALID_SHARE = 0.4, 0.1
MOST_CHANGES = 100  # of each kind in the second act
KM_PER_DEGREE = 111.2

Part = Literal["train", "valid", "test"]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Catalogue:
    """One source's rows by id, and the codes that no event may show, ICAO first ("" when unknown)."""

    source: str
    rows: dict[str, Row]
    codes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class AirportChange:
    """A change of one airport in the second act. Without a row it is deleted."""

    kind: Literal["new", "renamed", "moved", "deleted", "returned"]
    source: str
    id: str
    row: Row | None


@dataclass(frozen=True)
class Scenario:
    """The demo's data: rows of the first act, changes of the second, and the withheld answers."""

    left: Catalogue
    right: Catalogue
    changes: list[AirportChange]
    answers: dict[Part, list[Pair]]

    def write(self, directory: Path) -> dict[str, SourceMapping]:
        """Writes the catalogues, `sameas.toml`, `links_train.csv`, `links_valid.csv`, `links_test.csv`."""
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / LEFT_FILE).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("row", *LEFT_COLUMNS))
            writer.writeheader()
            writer.writerows(self.left.rows.values())
        with (directory / RIGHT_FILE).open("wb") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in self.right.rows.values())
        (directory / "sameas.toml").write_bytes(_mapping_file().read_bytes())
        for part, pairs in self.answers.items():
            with (directory / f"links_{part}.csv").open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("left", "right"), *pairs])
        return load_settings(directory / "sameas.toml", environ={}).sources

    def final_rows(self) -> tuple[dict[str, Row], dict[str, Row]]:
        """Both sides' rows when every change has happened."""
        rows = {LEFT: dict(self.left.rows), RIGHT: dict(self.right.rows)}
        for change in self.changes:
            if change.row is None:
                del rows[change.source][change.id]
            else:
                rows[change.source][change.id] = change.row
        return rows[LEFT], rows[RIGHT]

    def first_answers(self, part: Part) -> list[Pair]:
        """The answers whose two airports are in the first act."""
        names = {curie(LEFT, i) for i in self.left.rows} | {curie(RIGHT, i) for i in self.right.rows}
        return [pair for pair in self.answers[part] if names.issuperset(pair)]

    def final_answers(self, part: Part) -> list[Pair]:
        """The answers whose two airports exist when every change has happened."""
        left, right = self.final_rows()
        names = {curie(LEFT, i) for i in left} | {curie(RIGHT, i) for i in right}
        return [pair for pair in self.answers[part] if names.issuperset(pair)]


def make_scenario(country: str | None = None) -> Scenario:
    """Both catalogues, or their airports of one country (two letters), split into first and second act.

    Raises:
        ConfigError: the packages are not installed, or no airport is in the country.
    """
    left, right = read_catalogues()
    if country is not None:
        left, right = _of_country(left, country), _of_country(right, country)
    by_code = {codes[0]: row_id for row_id, codes in right.codes.items() if codes[0]}
    pairs = [(i, by_code[codes[0]]) for i, codes in left.codes.items() if codes[0] in by_code]
    if not pairs:
        raise ConfigError(f"country {country!r}: no airport is in both catalogues; two letters such as DE")
    changes, held_back = _second_act(left, right, pairs)
    answers: dict[Part, list[Pair]] = {"train": [], "valid": [], "test": []}
    for left_id, right_id in pairs:
        answers[part_of(left_id)].append((curie(LEFT, left_id), curie(RIGHT, right_id)))
    return Scenario(_without(left, held_back), _without(right, held_back), changes, answers)


def part_of(left_id: str) -> Part:
    """The part that an answer belongs to, by a hash of the left id."""
    draw = uniform("part", left_id)
    if draw < TRAIN_SHARE:
        return "train"
    return "valid" if draw < TRAIN_SHARE + VALID_SHARE else "test"


def change_events(
    changes: Iterable[AirportChange], sources: Mapping[str, SourceMapping], known: Iterable[EntityEvent] = ()
) -> Iterator[EntityEvent]:
    """The second act as entity events, in order. Cities and the like come only if `known` lacks them."""
    seen = {(event.source, event.id) for event in known}
    mappers = {source: RowMapper(source, sources[source]) for source in (LEFT, RIGHT)}
    for change in changes:
        if change.row is None:
            yield Delete(change.source, change.id)
        else:
            *made, own = mappers[change.source].upserts(change.row)
            for entity in made:
                if (name := (entity.source, entity.id)) not in seen:
                    seen.add(name)
                    yield entity
            yield own


def read_catalogues() -> tuple[Catalogue, Catalogue]:
    """Both packages' airports, numbered neutrally, without codes and links.

    Raises:
        ConfigError: the packages are not installed.
    """
    try:
        import airportsdata

        packed = (importlib.resources.files("airports") / "data" / "airports.gz").read_bytes()
    except ImportError as error:
        raise ConfigError(f"the demo's data is missing ({error}): pip install 'sameas[demo]'") from error
    left = list(airportsdata.load("ICAO").values())
    right = json.loads(gzip.decompress(packed))
    codes: dict[str, set[str]] = defaultdict(set)  # of an airport, from both catalogues, by ICAO
    for airport in (*left, *right):
        airport["icao"] = str(airport["icao"])
        codes[airport["icao"]] |= _codes(airport)
    codes[""].clear()
    return (
        _catalogue(LEFT, LEFT_COLUMNS, left, codes),
        _catalogue(RIGHT, RIGHT_COLUMNS, right, codes),
    )


def _catalogue(
    source: str, columns: tuple[str, ...], airports: list[dict[str, object]], codes: Mapping[str, set[str]]
) -> Catalogue:
    order = sorted(range(len(airports)), key=lambda i: uniform(source, str(i)))
    rows: dict[str, Row] = {}
    known = {}
    for number, index in enumerate(order, 1):
        airport, row_id = airports[index], str(number)
        icao = str(airport["icao"])
        hidden = codes[icao] | _codes(airport)
        row: dict[str, object] = {"row": row_id} | {c: _no_link(airport[c]) for c in columns}
        name = NAME_COLUMN[source]
        row[name] = without_codes(str(row[name]), hidden)
        rows[row_id] = row
        known[row_id] = (icao, *sorted(hidden - {icao}))
    return Catalogue(source, rows, known)


def without_codes(name: str, codes: Iterable[str]) -> str:
    """A name without the airport's own codes: 'Brooklands EGLB' would show the answer."""
    for code in codes:
        if code in name:
            name = re.sub(rf"\(?\b{re.escape(code)}\b\)?", " ", name)
    return " ".join(name.split())


def _no_link(cell: object) -> object:
    return "" if isinstance(cell, str) and "://" in cell else cell  # one city is a link


def _codes(airport: Mapping[str, object]) -> set[str]:
    return {str(code) for key in ("icao", "iata", "lid") if (code := airport.get(key))}


def _of_country(catalogue: Catalogue, country: str) -> Catalogue:
    column = COUNTRY_COLUMN[catalogue.source]
    keep = {row_id: row for row_id, row in catalogue.rows.items() if row[column] == country}
    return Catalogue(catalogue.source, keep, {row_id: catalogue.codes[row_id] for row_id in keep})


def _without(catalogue: Catalogue, held_back: set[Pair]) -> Catalogue:
    rows = {i: row for i, row in catalogue.rows.items() if (catalogue.source, i) not in held_back}
    return Catalogue(catalogue.source, rows, catalogue.codes)


def _second_act(
    left: Catalogue, right: Catalogue, pairs: list[Pair]
) -> tuple[list[AirportChange], set[Pair]]:
    """The changes in their order, and the (source, id) of airports that are first seen in them."""
    each = min(MOST_CHANGES, len(pairs) // 10)
    drawn = sorted(pairs, key=lambda pair: uniform("second act", pair[0]))[: 4 * each]
    # Either side changes, in turn.
    sides = [(left, pair[0]) if n % 2 else (right, pair[1]) for n, pair in enumerate(drawn)]
    new, renamed, moved, deleted = (sides[n * each : (n + 1) * each] for n in range(4))
    changes = [AirportChange("new", c.source, i, c.rows[i]) for c, i in new]
    changes += [AirportChange("renamed", c.source, i, _rename(c, i)) for c, i in renamed]
    changes += [AirportChange("moved", c.source, i, _move(c, i)) for c, i in moved]
    changes += [AirportChange("deleted", c.source, i, None) for c, i in deleted]
    changes.sort(key=lambda change: uniform("order", change.source, change.id))
    changes += [AirportChange("returned", c.source, i, c.rows[i]) for c, i in deleted[: each // 4]]
    return changes, {(c.source, i) for c, i in new}


def _rename(catalogue: Catalogue, row_id: str) -> Row:
    """A new name as airports get them: without the last word, or with 'Airport' if there is only one."""
    row, column = catalogue.rows[row_id], NAME_COLUMN[catalogue.source]
    first, _, last = str(row[column]).rpartition(" ")
    return {**row, column: first if first else f"{last} Airport"}


def _move(catalogue: Catalogue, row_id: str) -> Row:
    """A position two kilometres to the north, as if the reference point had been surveyed again."""
    row, (latitude, _) = catalogue.rows[row_id], POSITION_COLUMNS[catalogue.source]
    return {**row, latitude: round(float(str(row[latitude])) + 2 / KM_PER_DEGREE, 6)}


@dataclass(frozen=True)
class Accuracy:
    """For left entities with an answer: precision = right / predicted, recall = right / answers."""

    precision: float
    recall: float
    f1: float


def accuracy(predicted: Mapping[str, str], answers: Iterable[Pair]) -> Accuracy:
    """Compares at most one prediction for each left entity with its answer.

    Predictions for left entities without an answer among these are not counted: it is unknown whether the
    other catalogue has the airport under another code or not at all.
    """
    truth = dict(answers)
    made = [predicted[left] == right for left, right in truth.items() if left in predicted]
    precision = sum(made) / len(made) if made else 0.0
    recall = sum(made) / len(truth) if truth else 0.0
    both = precision + recall
    return Accuracy(precision, recall, 2 * precision * recall / both if both else 0.0)


def same_name(scenario: Scenario, part: Part) -> Accuracy:
    """The baseline that predicts the right airport of the same name (any case), if there is exactly one."""
    left, right = scenario.final_rows()
    by_name: dict[str, list[str]] = defaultdict(list)
    for row_id, row in right.items():
        by_name[str(row[NAME_COLUMN[RIGHT]]).casefold()].append(row_id)
    predicted = {}
    for row_id, row in left.items():
        name = str(row[NAME_COLUMN[LEFT]]).casefold()
        if name and len(namesakes := by_name.get(name, [])) == 1:
            predicted[curie(LEFT, row_id)] = curie(RIGHT, namesakes[0])
    return accuracy(predicted, scenario.final_answers(part))


def nearest_position(scenario: Scenario, part: Part) -> Accuracy:
    """The baseline that predicts the right airport whose position is nearest on the sphere."""
    left, right = scenario.final_rows()
    answers = scenario.final_answers(part)
    asked = [name for name, _ in answers]
    right_ids = list(right)
    there = _on_sphere([right[i] for i in right_ids], *POSITION_COLUMNS[RIGHT])
    here = _on_sphere([left[name.partition(":")[2]] for name in asked], *POSITION_COLUMNS[LEFT])
    predicted = {}
    for start in range(0, len(asked), 512):
        nearest = (here[start : start + 512] @ there.T).argmax(axis=1)
        for name, index in zip(asked[start : start + 512], nearest, strict=True):
            predicted[name] = curie(RIGHT, right_ids[index])
    return accuracy(predicted, answers)


BASELINES: dict[str, Callable[[Scenario, Part], Accuracy]] = {
    "same name": same_name,
    "nearest position": nearest_position,
}


def _on_sphere(rows: list[Row], latitude: str, longitude: str) -> np.ndarray:
    """Unit vectors (N, 3); the largest inner product is the shortest way."""
    degrees = np.array([(float(str(row[latitude])), float(str(row[longitude]))) for row in rows])
    lat, lon = np.radians(degrees.reshape(-1, 2)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _mapping_file() -> Traversable:
    return importlib.resources.files("stream.demo") / "airports.toml"
