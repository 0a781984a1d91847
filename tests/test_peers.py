"""`make peers`: what all peers are given, how they are judged, and what they install."""

import csv
from pathlib import Path

import pytest

from benchmarks.environments import ToolError, run
from benchmarks.peers import movies
from benchmarks.peers.__main__ import HERE, PEERS, compared, main, pins
from benchmarks.peers.ours import Figures


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two films a side."""
    folder = tmp_path / "movies"
    folder.mkdir()
    tables = {
        "dbpedia": [
            {
                "id": "1",
                "title": "Amélie!",
                "starring": "Audrey Tautou, Mathieu K",
                "writer": "",
                "editor": "",
            },
            {"id": "2", "title": "", "starring": "", "writer": "Jane Doe", "editor": ""},
        ],
        "imdb": [
            {
                "id": "7",
                "title": "Amelie (2001) (I)",
                "actor_name": "Tautou, Audrey (I)",
                "director_name": "",
                "year": "2001",
            },
            {"id": "8", "title": "Heat", "actor_name": "", "director_name": "Mann, Michael", "year": "1995"},
        ],
        "links_test": [{"left": "dbpedia:1", "right": "imdb:7"}],
        "links_valid": [{"left": "dbpedia:2", "right": "imdb:8"}],
    }
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return tmp_path


def test_both_sides_are_written_alike(data: Path) -> None:
    left, right = movies.read(data)
    assert left[0] == ("dbpedia:1", "amelie", "", ["audrey tautou", "mathieu k"])
    assert right[0] == ("imdb:7", "amelie", "2001", ["audrey tautou"])
    assert left[1].text == "jane doe" and right[1].text == "heat 1995 michael mann"


def test_each_record_is_matched_once_best_first() -> None:
    pairs = [("a", "x", 0.9), ("b", "x", 0.8), ("b", "y", 0.3), ("a", "y", 0.95), ("c", "y", 0.1)]
    assert movies.one_to_one(pairs) == {"a": ("y", 0.95), "b": ("x", 0.8)}


def test_f1_counts_missing_answers_and_the_threshold() -> None:
    gold = {"a": "x", "b": "y", "c": "z"}
    matched = {"a": ("x", 0.9), "b": ("z", 0.8), "d": ("y", 0.9)}
    assert movies.f1(matched, gold, 0.0) == pytest.approx(2 * 1 / (2 + 3))
    assert movies.f1(matched, gold, 0.85) == pytest.approx(2 * 1 / (1 + 3))
    assert movies.f1({}, gold, 0.0) == 0


def test_the_threshold_comes_from_the_valid_links(data: Path) -> None:
    right = [("dbpedia:2", "imdb:8", 0.4), ("dbpedia:1", "imdb:7", 0.6)]
    assert movies.judged(data, right) == 1
    assert movies.judged(data, [("dbpedia:2", "imdb:8", 0.7), ("dbpedia:1", "imdb:7", 0.6)]) == 0


def test_single_records_are_timed_but_the_first(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movies, "held_out", lambda _: ["dbpedia:1"] * 3)
    asked: list[str] = []

    def answer(movie: movies.Movie) -> str:
        asked.append(movie.name)
        return "imdb:7"

    figures = movies.one_by_one(data, answer)
    assert len(asked) == 3 and figures["single_hits"] == 1
    assert isinstance(figures["single_ms"], list) and len(figures["single_ms"]) == 2


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer != "sameas"])
def test_every_package_of_a_peer_is_pinned_and_none_is_torch(peer: str) -> None:
    names = pins(peer)
    assert all("==" in name for name in names)
    assert not [name for name in names if name.lower().startswith(("torch", "nvidia", "triton"))]
    assert (HERE / f"{peer}_peer.py").exists()


def test_a_peer_that_cannot_run_says_why(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first >&2\necho no such thing >&2\nexit 3\n")
    python.chmod(0o700)
    with pytest.raises(ToolError, match=r"^faiss: no such thing$"):
        run("faiss", python, ["x"], 10)
    python.write_text("#!/bin/sh\nexec sleep 30\n")
    with pytest.raises(ToolError, match="not done after 0 s"):
        run("faiss", python, ["x"], 0.2)


def test_ours_is_compared_with_each_peer() -> None:
    ours = Figures(batch_seconds=2.0, records=100, f1=0.7, single_ms=[1.0, 3.0, 2.0], single_hits=1.0)
    peer = Figures(batch_seconds=1.0, records=100, f1=0.6, single_ms=[300.0], single_hits=1.0)
    rows = {row.what: row for row in compared({"sameas": ours, "splink": peer})}
    assert rows["batch, records/s"].value == 0.5 and rows["batch, records/s"].met is False
    assert rows["one record, faster"].value == 150 and rows["one record, faster"].met is True
    assert rows["F1"].value == pytest.approx(0.1)
    assert [row.goal for row in compared({"sameas": ours, "faiss": peer})] == ["", "", ""]


def test_missing_data_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1
    assert "DATA=DIRECTORY" in capsys.readouterr().err
