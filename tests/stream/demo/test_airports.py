"""The demo's data: nothing of the withheld answers shows, and every run has the same."""

import csv
import itertools
import re
from pathlib import Path

import msgspec
import pytest

from stream.catalogue.reading import read_events
from stream.demo.airports import (
    BASELINES,
    LEFT,
    RIGHT,
    SMALL_COUNTRY,
    Scenario,
    accuracy,
    change_events,
    make_scenario,
    part_of,
    without_codes,
)
from stream.errors import ConfigError
from stream.events import Delete, EntityEvent, Upsert
from stream.mapping.language import SourceMapping


@pytest.fixture(scope="module")
def whole() -> Scenario:
    return make_scenario()


@pytest.fixture(scope="module")
def small() -> Scenario:
    return make_scenario(SMALL_COUNTRY)


def all_events(scenario: Scenario, directory: Path) -> list[EntityEvent]:
    sources: dict[str, SourceMapping] = scenario.write(directory)
    events: list[EntityEvent] = []
    for source, mapping in sources.items():
        for _, event in read_events(source, mapping, directory):
            assert isinstance(event, Upsert | Delete), event
            events.append(event)
    return [*events, *change_events(scenario.changes, sources)]


def test_the_catalogues_are_whole(whole: Scenario) -> None:
    left, right = whole.final_rows()
    deleted = [c for c in whole.changes if c.kind == "deleted"]
    returned = [c for c in whole.changes if c.kind == "returned"]
    assert len(left) + len(right) == 28_298 + 18_771 - len(deleted) + len(returned)
    assert sum(map(len, whole.answers.values())) == 13_308


def test_no_code_and_no_link_enters_an_event(whole: Scenario, tmp_path: Path) -> None:
    codes = {LEFT: whole.left.codes, RIGHT: whole.right.codes}
    seen = 0
    for event in all_events(whole, tmp_path):
        text = msgspec.json.encode(event).decode()
        assert "http" not in text and "www." not in text
        if isinstance(event, Upsert) and event.type == "airport":
            seen += 1
            assert event.id.isdecimal()
            words = {
                word
                for value in event.attributes.values()
                if isinstance(value, str)
                for word in re.findall(r"\w+", value)
            }
            assert words.isdisjoint(filter(None, codes[event.source][event.id])), event
    assert seen > 28_298 + 18_771


def test_row_numbers_do_not_follow_the_codes(whole: Scenario) -> None:
    for catalogue in (whole.left, whole.right):
        by_number = [codes[0] for _, codes in sorted(catalogue.codes.items(), key=lambda item: int(item[0]))]
        rising = sum(a < b for a, b in itertools.pairwise(by_number))
        assert 0.48 < rising / len(by_number) < 0.52


@pytest.mark.parametrize(
    ("name", "codes", "expected"),
    [
        ("Brooklands EGLB", {"EGLB"}, "Brooklands"),
        ("Overberg (FAOB)", {"FAOB", "OVG"}, "Overberg"),
        ("OERG", {"OERG"}, ""),
        ("Ufa International", {"UFA"}, "Ufa International"),
        ("SPBX Field", {"SPB"}, "SPBX Field"),
    ],
)
def test_own_codes_are_taken_out_of_names(name: str, codes: set[str], expected: str) -> None:
    assert without_codes(name, codes) == expected


def test_every_run_is_the_same(small: Scenario) -> None:
    assert make_scenario(SMALL_COUNTRY) == small


def test_small_has_some_hundred_airports_and_a_second_act(small: Scenario) -> None:
    assert 300 < len(small.left.rows) < 2_000
    assert 300 < len(small.right.rows) < 2_000
    assert len(small.answers["test"]) > 100
    kinds = [change.kind for change in small.changes]
    assert {"new", "renamed", "moved", "deleted", "returned"} == set(kinds)
    assert 100 < len(kinds) < 500


def test_new_airports_are_held_back_and_deleted_ones_return_last(small: Scenario) -> None:
    rows = {LEFT: small.left.rows, RIGHT: small.right.rows}
    gone: set[tuple[str, str]] = set()
    for change in small.changes:
        name = (change.source, change.id)
        assert (change.id in rows[change.source]) == (change.kind != "new")
        if change.kind == "deleted":
            gone.add(name)
        elif change.kind == "returned":
            gone.remove(name)
        elif change.kind in ("renamed", "moved"):
            assert change.row != rows[change.source][change.id]
    assert gone


def test_answers_are_split_by_the_left_id_and_follow_the_changes(small: Scenario, tmp_path: Path) -> None:
    small.write(tmp_path)
    for part, pairs in small.answers.items():
        assert all(part_of(left.partition(":")[2]) == part for left, _ in pairs)
        with (tmp_path / f"links_{part}.csv").open(encoding="utf-8", newline="") as file:
            assert [(row["left"], row["right"]) for row in csv.DictReader(file)] == pairs
    assert 0 < len(small.final_answers("test")) < len(small.answers["test"])


def test_an_airport_of_which_another_row_names_the_city_first_is_the_same(
    small: Scenario, tmp_path: Path
) -> None:
    states: dict[tuple[str, str], Upsert] = {}
    for event in all_events(small, tmp_path):
        if isinstance(event, Upsert) and event.type != "airport":
            assert states.setdefault((event.source, event.id), event) == event


def test_accuracy_counts_only_entities_with_an_answer() -> None:
    answers = [("l:1", "r:1"), ("l:2", "r:2"), ("l:3", "r:3"), ("l:4", "r:4")]
    found = accuracy({"l:1": "r:1", "l:2": "r:9", "l:99": "r:3"}, answers)
    assert (found.precision, found.recall) == (0.5, 0.25)
    assert found.f1 == pytest.approx(1 / 3)
    assert accuracy({}, answers).f1 == 0.0
    assert accuracy({}, []).recall == 0.0


def test_baselines(whole: Scenario) -> None:
    name, position = (baseline(whole, "test") for baseline in BASELINES.values())
    assert name.precision > 0.9 and 0.3 < name.recall < 0.5
    assert 0.85 < position.f1 < 0.95


def test_an_unknown_country_is_named() -> None:
    with pytest.raises(ConfigError, match="'Atlantis'"):
        make_scenario("Atlantis")
