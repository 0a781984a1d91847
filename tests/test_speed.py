"""`make speed`: the catalogues that it is measured on, the arithmetic of its figures, and a tiny run."""

import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.speed import engine, material, report
from benchmarks.speed.__main__ import main
from benchmarks.speed.clocks import Part
from benchmarks.speed.load import delays, paced
from benchmarks.speed.report import Row
from benchmarks.speed.retrieval import recall
from benchmarks.speed.stream import news
from benchmarks.synthetic import OVERLAP, SHARES, TYPO, World, catalogue, links
from index.search.arrays import Pairs
from index.search.vectors import VectorIndex
from stream.demo.measuring import percentile

SIZE = 4_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(SIZE, seed=3)


def test_the_same_seed_makes_the_same_catalogues(world: World) -> None:
    again, other = World(SIZE, seed=3), World(SIZE, seed=4)
    for side in ("left", "right"):
        assert catalogue(world, side) == catalogue(again, side)
        assert catalogue(world, side) != catalogue(other, side)


def test_the_right_catalogue_does_not_depend_on_the_left_one_having_been_made() -> None:
    assert catalogue(World(500), "right") == catalogue(_after_left(World(500)), "right")


def _after_left(world: World) -> World:
    catalogue(world, "left")
    return world


def test_types_are_skewed_and_names_recur(world: World) -> None:
    left = catalogue(world, "left")
    types = Counter(entity.type for entity in left)
    for kind, share in SHARES.items():
        assert types[kind] / len(left) == pytest.approx(share, abs=0.03)
    titles = Counter(entity.attributes["title"] for entity in left if entity.type == "film")
    assert titles.most_common(1)[0][1] > 1
    words = Counter(word for title in titles for word in str(title).split())
    (_, first), (_, tenth) = words.most_common(10)[0], words.most_common(10)[9]
    assert first > tenth > 20 * sum(words.values()) / 19_200  # Zipf: far above an even share


def test_a_studio_is_a_hub(world: World) -> None:
    films = [entity for entity in catalogue(world, "left") if entity.type == "film"]
    studios = Counter(film.relations["studio"][0] for film in films)
    assert studios.most_common(1)[0][1] > len(films) / 50  # of 200 studios


def test_links_join_what_both_have_and_some_names_are_misspelt(world: World) -> None:
    left = {entity.id: entity for entity in catalogue(world, "left")}
    right = {entity.id: entity for entity in catalogue(world, "right")}
    pairs = [(a.partition(":")[2], b.partition(":")[2]) for a, b in links(world)]
    assert {a for a, _ in pairs} == left.keys() & right.keys()
    assert len(pairs) / len(left.keys() | right.keys()) == pytest.approx(OVERLAP, abs=0.03)
    assert len(left) == pytest.approx(SIZE * material.IN_ONE, rel=0.03)
    films = [(left[a], right[b]) for a, b in pairs if a.startswith("f")]
    changed = sum(one.attributes["title"] != other.attributes["name"] for one, other in films)
    assert changed / len(films) == pytest.approx(TYPO, abs=0.05)


def test_the_file_of_messages_is_read_piece_by_piece(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    number = material.write(path, 50)
    read = [message for batch in material.batches(path, 16) for message in batch]
    assert [message.cause.offset for message in read] == list(range(number))
    sources = [b'"left"' in (message.value or b"") for message in read]
    assert sources[:20] == [True, False] * 10  # in turns


def test_a_goal_is_met_or_not_or_there_is_none() -> None:
    assert Row("g", "w", 3.0, "s", at_least=3).met is True
    assert Row("g", "w", 2.9, "s", at_least=3).met is False
    assert Row("g", "w", 2.9, "s", at_most=3).met is True
    assert Row("g", "w", 3.1, "s", at_most=3).met is False
    assert Row("g", "w", 3.1, "s").met is None
    assert Row("g", "w", None, "s", at_most=3).met is None


def test_a_line_shows_figure_goal_and_verdict() -> None:
    line = report.line(Row("engine", "CPU", 412.3, "us an entity", at_most=350, note="k=7"))
    assert line.split() == ["engine", "CPU", "412", "<=", "350", "not", "met", "us", "an", "entity;", "k=7"]
    assert "-" in report.line(Row("peers", "dedupe", None, "ms", note="not installed")).split()


def test_medians_keep_what_they_are_medians_of() -> None:
    runs = [[Row("g", "w", value, "s", note=str(value))] for value in (5.0, 1.0, 2.0)]
    (row,) = report.median_rows(runs)
    assert (row.value, row.runs, row.note) == (2.0, [5.0, 1.0, 2.0], "2.0")
    assert report.median_rows([[Row("g", "w", None, "s")]])[0].value is None


PARTS = [
    Part("10", 10, 1.0, 1.0, {"retrieve": 300e-6, "score": 100e-6}, {}),
    Part("20", 10, 1.0, 1.0, {"retrieve": 600e-6, "score": 200e-6}, {}),
    Part("backlog", 0, 1.0, 1.0, {"score": 200e-6}, {}),
]


def test_the_picture_stacks_stages_and_shares_the_backlog_out() -> None:
    lines = report.picture(PARTS).splitlines()
    assert lines[1] == "R=retrieve  r=score"
    bars = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert bars["20"] == ["R" * 45 + "r" * 15, "80"]
    assert bars["10"] == ["R" * 22 + "r" * 8, "40"]  # as long as its sum: 30 of 60
    assert bars["backlog"][-1] == "10"  # 200 us over 20 entities
    assert bars["all"][-1] == "70"  # 1,400 us over 20 entities


def test_the_svg_is_well_formed_and_as_wide_as_its_bars() -> None:
    root = ElementTree.fromstring(report.svg(PARTS))
    longest = [float(rect.get("width", 0)) for rect in root.iter() if rect.get("y") == str(2 * 22 + 8)]
    assert sum(longest) == pytest.approx(640)


def test_rates_are_between_the_batches_next_to_the_numbers() -> None:
    times = [(0, 0.0), (100, 1.0), (200, 3.0), (300, 7.0)]
    assert engine._rate(times, 100, 200) == 50
    assert engine._rate(times, 190, 310) == 25


def test_delays_count_from_when_an_event_was_due() -> None:
    """A stall of a second delays all that were due meanwhile, though they were sent later."""
    due = {offset: offset / 10 for offset in range(20)}
    arrivals = [(offset, max(at, 1.0)) for offset, at in due.items()]  # nothing comes before second 1
    waits = delays(due, arrivals)
    assert sorted(waits, reverse=True)[:10] == pytest.approx([1000 - 100 * offset for offset in range(10)])
    assert percentile(waits, 0.5) == pytest.approx(0)
    assert percentile(waits, 0.9) == pytest.approx(800)


def test_only_the_first_arrival_of_a_sent_event_counts() -> None:
    assert delays({7: 1.0, 8: 1.0}, [(7, 3.0), (7, 2.0), (5, 2.0)]) == [1000]


def test_an_open_loop_does_not_wait_for_slow_sends() -> None:
    def slow() -> str:
        time.sleep(0.02)
        return "sent"

    sent = paced([slow] * 5, rate=1000)
    assert sent.results == ["sent"] * 5
    assert [due - sent.due[0] for due in sent.due] == pytest.approx([0, 0.001, 0.002, 0.003, 0.004])
    assert all(at >= due for at, due in zip(sent.at, sent.due, strict=True))


def test_news_are_new_records_and_misspelt_known_ones_in_turns() -> None:
    right = catalogue(World(300), "right")
    known, new = right[:-20], right[-20:]
    first = list(islice(news(known, new), 60))
    assert first[:40:2] == new
    by_id = {event.id: event for event in known}
    for event in [*first[1:40:2], *first[40:]]:
        assert event.relations == by_id[event.id].relations
    assert first == list(islice(news(known, new), 60))
    names = [
        (next(iter(e.attributes.values())), next(iter(by_id[e.id].attributes.values()))) for e in first[40:]
    ]
    assert sum(one != other for one, other in names) > 15


def test_recall_counts_what_an_exact_search_finds_and_forgives_ties() -> None:
    vectors = np.array([[10, 0], [9, 0], [8, 0], [8, 1], [1, 0], [0, 0]], np.int8)  # slot 0 asks
    others = np.array([1, 2, 3, 4], np.int32)

    def found(*members: int, k: int = 2, floor: int = 50) -> tuple[int, int]:
        pairs = Pairs(np.zeros(len(members), np.int32), np.array(members, np.int32))
        return recall(VectorIndex, vectors, np.zeros(1, np.int32), others, pairs, k, floor)

    assert found(1, 2) == found(1, 3) == (2, 2)
    assert found(1, 4) == (1, 2)
    assert found(2, 3) == (1, 2)  # both are second best
    assert found(1, 2, 3, k=4) == (3, 3)  # the fourth is below the floor
    assert found(1, 2, k=4) == (2, 3)


@pytest.mark.slow
def test_a_tiny_run_measures_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, drawing = tmp_path / "speed.json", tmp_path / "stages.svg"
    small = ["-n", "150", "-k", "3", "--batch", "32"]
    assert main([*small, "--only", "engine", "--json", str(table), "--picture", str(drawing)]) == 0
    result = json.loads(table.read_text())
    assert result["settings"]["n"] == 150 and result["versions"]["numpy"]
    rows = {row["what"]: row for row in result["rows"]}
    assert rows["throughput"]["value"] > 0 and rows["throughput"]["at_least"] in (3000, 4000)
    assert rows["alignments"]["value"] > 30
    assert rows["pairs scored"]["value"] > 1
    printed = capsys.readouterr().out
    assert "goal" in printed and "R=receive" in printed
    assert drawing.read_text().startswith("<svg")
