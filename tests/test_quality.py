"""`make quality` on small catalogues that it has never heard of."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.catalogues import FILMS, catalogues
from benchmarks.quality.__main__ import main
from benchmarks.quality.datasets import read_dataset
from stream.errors import ConfigError

MAPPING = """
folder = "films"
links = {train = "train.csv", valid = "valid.csv", test = "test.csv"}
sources.left.file = "left.jsonl"
sources.right.file = "right.jsonl"
"""
PAIRS = """
folder = "films"
pairs = {train = "pairs.csv", valid = "pairs.csv"}
type = "film"
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one set and its mapping file, `films.toml`."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "films"
    folder.mkdir()
    (data / "films.toml").write_text(MAPPING)
    events = catalogues()
    for source in ("left", "right"):
        lines = [msgspec.json.encode(event) for event in events if event.source == source]
        (folder / f"{source}.jsonl").write_bytes(b"\n".join(lines))
    parts = {"train": range(60), "valid": range(60, 90), "test": range(90, FILMS), "wrong": range(5)}
    for part, numbers in parts.items():
        with (folder / f"{part}.csv").open("w", newline="") as file:
            write = csv.writer(file).writerow
            write(["left", "right"])
            for number in numbers:
                write([f"left:f{number}", f"right:f{number + 1 if part == 'wrong' else number}"])
    return data


def quality(data: Path, name: str, *arguments: str) -> list[dict[str, Any]]:
    """The rows of a run."""
    table = data / "table.json"
    common = ["--data", str(data), "--dataset", str(data / name), "--seeds", "1", "--json", str(table)]
    assert main([*common, *arguments]) == 0
    rows: list[dict[str, Any]] = json.loads(table.read_text())
    return rows


def test_a_mapping_file_adds_a_data_set(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = quality(films, "films.toml", "-k", "3", "--model", "full", "--model", "boosting")
    assert [(row["set"], row["model"], row["seed"]) for row in rows] == [
        ("films", "full", 0),
        ("films", "boosting", 0),
    ]
    for row in rows:
        assert row["links"] == 30
        assert row["f1"] > 0.9
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:4] == ["set", "model", "seeds", "seconds"]
    assert [line.split()[:2] for line in printed[1:]] == [["films", "full"], ["films", "boosting"]]


def test_splink_is_a_baseline(films: Path) -> None:
    (row,) = quality(films, "films.toml", "--model", "splink")
    assert row["links"] == 30
    assert row["f1"] > 0.9


def test_other_links_are_tested(films: Path) -> None:
    wrong = films / "films" / "wrong.csv"
    (row,) = quality(films, "films.toml", "-k", "3", "--model", "boosting", "--test-links", str(wrong))
    assert row["links"] == 5
    assert row["f1"] < 0.2


def test_labelled_pairs_are_judged_one_by_one(films: Path) -> None:
    (films / "pairs.toml").write_text(PAIRS)
    by_name = {(event.source, event.id): event for event in catalogues()}
    with (films / "films" / "pairs.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["id", "label", "left_title", "right_title"])
        for number in range(60):
            for other in (number, (number + 7) % 60):
                titles = [
                    by_name[side, f"f{n}"].attributes["title"]
                    for side, n in (("left", number), ("right", other))
                ]
                write([2 * number, int(number == other), *titles])
    rows = quality(films, "pairs.toml", "--model", "full")
    assert rows[0]["links"] == 60
    assert not rows[0]["one_to_one"]
    assert rows[0]["retrieval_recall"] == 1
    assert rows[0]["f1"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--dataset", "fils"], "no data set fils"),
        (["--dataset", "movies"], "is not there; DATA="),
        (["--dataset", "papers", "--model", "best"], "no model best"),
        (["--test-links", "x.csv"], "belongs to one data set"),
    ],
)
def test_mistakes_are_told_in_a_line(
    films: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["--data", str(films), *arguments]) == 1
    assert problem in capsys.readouterr().err


def test_a_wrong_mapping_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('folder = "."\nlink = 1\n')
    with pytest.raises(ConfigError, match="link"):
        read_dataset(str(file), tmp_path)
