"""`make quality` on small catalogues that it has never heard of."""

import csv
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import benchmarks.quality
from benchmarks.catalogues import FILMS, catalogues
from benchmarks.quality import boosting, deepmatcher_baseline, sentences, versions
from benchmarks.quality.__main__ import main
from benchmarks.quality.datasets import read_dataset
from benchmarks.quality.task import Task, make_task
from model.encoding.encoder import Encoder
from stream.errors import ConfigError
from stream.learning.workspace import Workspace

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
    assert printed[0].split()[:4] == ["set", "model", "seeds", "CPU"]
    assert [line.split()[:2] for line in printed[1:]] == [["films", "full"], ["films", "boosting"]]


def test_in_the_open_some_have_no_partner(films: Path) -> None:
    models = ("--model", "full", "--model", "splink")
    for row in quality(films, "films.toml", "-k", "3", "--world", "open", *models):
        assert row["world"] == "open"
        assert 12 <= int(row["links"]) <= 24  # of 30
        assert row["f1"] > 0.9


def test_generated_versions_of_a_work_look_alike_and_are_in_one_part() -> None:
    entities, links = versions.catalogues()
    assert (entities, links) == versions.catalogues()
    by_name = {(entity.source, entity.id): entity for entity in entities}
    parts = {left.partition("-")[0]: part for part in links for left, _ in links[part]}
    assert {parts[left.partition("-")[0]] == part for part in links for left, _ in links[part]} == {True}
    assert set(parts.values()) == {"train", "valid", "test"}
    later = [entity for entity in by_name.values() if entity.source == "left" and entity.id.endswith("-1")]
    alike = [
        (first, entity)
        for entity in later
        if (first := by_name.get(("left", entity.id.replace("-1", "-0")))) is not None
    ]
    assert len(alike) > 1000
    for first, entity in alike:
        assert first.relations["songwriter"] == entity.relations["songwriter"]
        assert first.attributes["year"] != entity.attributes["year"]
    assert sum(first.attributes["title"] == entity.attributes["title"] for first, entity in alike) > 500


def test_splink_is_a_baseline(films: Path) -> None:
    (row,) = quality(films, "films.toml", "--model", "splink")
    assert row["links"] == 30
    assert row["f1"] > 0.9


def test_other_links_are_tested(films: Path) -> None:
    wrong = films / "films" / "wrong.csv"
    (row,) = quality(films, "films.toml", "-k", "3", "--model", "boosting", "--test-links", str(wrong))
    assert row["links"] == 5
    assert row["f1"] < 0.2


@pytest.fixture(scope="module")
def pairs(films: Path) -> Path:
    """The same with labelled pairs, `pairs.toml`."""
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
    return films


def test_labelled_pairs_are_judged_one_by_one(pairs: Path) -> None:
    rows = quality(pairs, "pairs.toml", "--model", "full")
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


def test_what_fails_does_not_lose_the_rows_of_the_others(
    films: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(task: Task, seed: int) -> None:
        raise ZeroDivisionError("no pairs")

    monkeypatch.setattr(boosting, "boosting", broken)
    table = films / "failing.json"
    sets = ["--dataset", "fils", "--dataset", str(films / "films.toml")]
    models = ["--model", "boosting", "--model", "splink"]
    assert main(["--data", str(films), *sets, *models, "--seeds", "1", "--json", str(table)]) == 1
    assert [row["model"] for row in json.loads(table.read_text())] == ["splink"]
    said = capsys.readouterr()
    assert "films            boosting     failed: ZeroDivisionError: no pairs" in said.out
    assert "no data set fils" in said.err


def executable(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def test_deepmatcher_takes_the_python_that_pyenv_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "3.7.16" / "bin" / "python3.7"
    executable(found, "echo cpython 3 7")
    executable(tmp_path / "shims" / "python3.7", "echo pyenv: command not found >&2; exit 127")
    pyenv = f'[ "$1" = versions ] && echo 3.6.15 && echo 3.7.16 && exit; echo {tmp_path}/$2'
    executable(tmp_path / "shims" / "pyenv", pyenv)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    assert deepmatcher_baseline.find_python() == str(found)


def test_deepmatcher_without_its_python_is_told(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(pairs))
    arguments = ["--data", str(pairs), "--dataset", str(pairs / "pairs.toml"), "--model", "deepmatcher"]
    assert main(arguments) == 0
    assert "pairs            deepmatcher  no CPython 3.7 here" in capsys.readouterr().out


def test_deepmatcher_gets_the_pairs_in_order(pairs: Path, tmp_path: Path) -> None:
    dataset = read_dataset(str(pairs / "pairs.toml"), pairs)
    with Workspace(dataset.events) as workspace:
        task = make_task(dataset, workspace, 3)
        deepmatcher_baseline.write(task, tmp_path)
        with (tmp_path / "valid.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == [str(number) for number in range(120)]
        assert [row["label"] == "1" for row in rows] == task.valid.label.tolist()
    given = (pairs / "films" / "pairs.csv").open(newline="")
    with given:
        titles = [(row["left_title"], row["right_title"]) for row in csv.DictReader(given)]
    assert [(row["left_title"], row["right_title"]) for row in rows] == titles


def test_packages_of_foreign_environments_are_pinned() -> None:
    folder = Path(benchmarks.quality.__file__).parent
    for file in ("deepmatcher.txt", "sentences.txt"):
        assert all("==" in line for line in (folder / file).read_text().splitlines())


def test_sentence_vectors_are_compared_with_ours(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[str] = []

    def by_first_letter(texts: list[str]) -> tuple[sentences.F32, float]:
        given.extend(texts)
        return np.eye(128, dtype=np.float32)[[ord(text[0]) % 128 for text in texts]], 1.0

    monkeypatch.setattr(sentences, "sentences", by_first_letter)
    table = pairs / "sentences.json"
    sets = ["--dataset", str(pairs / "films.toml"), "--dataset", str(pairs / "pairs.toml")]
    assert sentences.main(["--data", str(pairs), *sets, "-k", "2", "--json", str(table)]) == 0
    (row,) = json.loads(table.read_text())
    assert row["texts"] == len(given) == len(set(given))
    assert row["ours"] > 0.9 > row["sentences"]
    assert "there is nothing to retrieve" in capsys.readouterr().err


def test_ranks_count_who_is_nearer_than_the_partner() -> None:
    vectors = np.array([[1, 0], [0, 0], [1, 0], [0.9, 0.1], [0.5, 0.5]], np.float32)
    left, right = np.array([0, 0, 1]), np.array([2, 3, 4])
    ranks = sentences.ranks_of(vectors, left, np.array([2, 4, 3]), right)
    assert ranks.tolist() == [0, 2, 3]  # an entity without a text finds nobody


def test_the_texts_of_a_name_are_its_own_words_each_once() -> None:
    events = [event for event in catalogues() if event.source == "left"]
    encoder = Encoder.fit(events)
    owner, row, weight, texts = sentences.texts_of(events, encoder)
    assert len(set(texts)) == len(texts) and weight.min() >= 1
    for number, at in zip(owner.tolist(), row.tolist(), strict=True):
        assert texts[at] in [str(value) for value in events[number].attributes.values()]
