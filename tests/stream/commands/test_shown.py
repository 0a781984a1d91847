"""Names and values of files that would steer a terminal come out as text, whatever the command."""

import csv
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from stream.cli import main
from tests.stream.test_console import HOSTILE, is_text

MAPPING = """
[sources.films]
file = "films.csv"
id = {column}
type_column = "kind"
attributes = ["year"]
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / f"films{HOSTILE}.csv"
    rows = [["kind", "year", HOSTILE], *([f"film{HOSTILE}", "1999", f"{n}\x1b[2J!"] for n in range(3))]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*rows, [HOSTILE]])
    return path


def run(*words: str) -> tuple[list[str], list[str]]:
    """The lines that a command prints to stdout and stderr; all of them are text."""
    result = CliRunner().invoke(main, words)
    stdout, stderr = result.stdout.split("\n"), result.stderr.split("\n")
    assert [line for line in [*stdout, *stderr] if not is_text(line)] == []
    assert not any(line.startswith("sameas: error: forged") for line in stderr)
    return stdout, stderr


def test_map(films: Path) -> None:
    _, stderr = run("map", str(films), "--source", f"films{HOSTILE}")
    assert "1 to 64 letters, digits" in stderr[0]
    stdout, stderr = run("map", str(films), "--source", "films")
    [mapping] = tomllib.loads("\n".join(stdout))["sources"].values()
    assert (mapping["id"], mapping["file"]) == (HOSTILE, str(films))
    assert any("id: different in all rows" in line for line in stderr)


def test_feed(films: Path, tmp_path: Path) -> None:
    settings = tmp_path / "sameas.toml"
    settings.write_text(MAPPING.format(column=json.dumps(HOSTILE)), encoding="utf-8")
    stdout, stderr = run("feed", "--dry-run", "--config", str(settings), "--source", "films", str(films))
    event = json.loads(stdout[0])
    assert (event["id"], event["type"]) == ("0\x1b[2J!", f"film{HOSTILE}")
    assert any("refused: films" in line and "1 cells under 3 columns" in line for line in stderr)


def test_a_column_with_a_name_of_nearly_a_megabyte(tmp_path: Path) -> None:
    path, settings = tmp_path / "films.jsonl", tmp_path / "sameas.toml"
    path.write_text(json.dumps({"x" * 990_000: 1}) + "\n")
    settings.write_text(MAPPING.format(column='"id"'))
    _, stderr = run("feed", "--dry-run", "--config", str(settings), "--source", "films", str(path))
    assert "no column 'id', 'kind', 'year'; there are 'xxx" in stderr[-2] and len(stderr[-2]) < 1_100


@pytest.mark.parametrize("words", [["explain"], ["erase"], ["subscribe", "-e", "--entity"]])
def test_a_name_that_is_not_utf_8_is_refused_in_a_line(words: list[str]) -> None:
    _, stderr = run(*words, "films:\udcff\udcfe")
    assert [r"'films:\udcff\udcfe' is not UTF-8" in line for line in stderr] == [True, False]
