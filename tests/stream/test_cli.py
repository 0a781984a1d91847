"""The command line itself: help, schemas, errors in one line."""

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from stream.cli import main
from stream.events import Upsert

README = Path(__file__).resolve().parents[2] / "README.md"


def test_every_command_has_help() -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["--help"]).exit_code == 0
    for name in main.commands:
        result = runner.invoke(main, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Usage:" in result.output


def test_summaries_are_whole() -> None:
    summary = "Say that two entities of two sources are the same, or are not: it overrides the model at once."
    assert f"  link          {summary}\n" in CliRunner().invoke(main, ["--help"]).output
    context = main.make_context("sameas", [], terminal_width=50, resilient_parsing=True)
    narrow = main.get_help(context)
    assert max(map(len, narrow.splitlines())) <= 50 and summary in " ".join(narrow.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("aling", "No such command 'aling'. Did you mean align?"),
        ("model stauts", "No such command 'stauts'. Did you mean status?"),
        ("dead-leters list", "Did you mean dead-letters?"),
        ("align --modl x", "No such option: --modl Did you mean --model?"),
        ("xyz", "No such command 'xyz'.\n"),
        ("--colour", "No such option: --colour"),
    ],
)
def test_what_was_mistyped_is_guessed(words: str, said: str) -> None:
    result = CliRunner().invoke(main, words.split())
    assert result.exit_code == 2 and said in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    variable = {"_SAMEAS_COMPLETE": f"{shell}_source"}
    script = CliRunner().invoke(main, [], env=variable, prog_name="sameas").stdout
    assert "_SAMEAS_COMPLETE" in script
    assert f"_SAMEAS_COMPLETE={shell}_source sameas" in README.read_text(encoding="utf-8")


def test_completions() -> None:
    environment = {"_SAMEAS_COMPLETE": "zsh_complete", "COMP_WORDS": "sameas exp", "COMP_CWORD": "1"}
    found = CliRunner().invoke(main, [], env=environment, prog_name="sameas").stdout.splitlines()
    assert found[:2] == ["plain", "explain"]


@pytest.mark.parametrize(
    "words",
    [
        "train",
        "align",
        "evaluate",
        "config show",
        "explain",
        "model promote",
        "model status",
        "map",
        "schema",
        "demo",
    ],
)
def test_a_command_without_a_broker_takes_no_address_of_one(words: str) -> None:
    result = CliRunner().invoke(main, [*words.split(), "--bootstrap", "127.0.0.1:1"])
    assert result.exit_code == 2 and "No such option" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        *("topics", "run", "feed", "subscribe", "link", "dead-letters list", "dead-letters retry"),
        *("replay", "replay diff", "replay remove"),
    ],
)
def test_a_command_with_a_broker_takes_its_address(words: str) -> None:
    assert "--bootstrap HOST:PORT" in CliRunner().invoke(main, [*words.split(), "--help"]).output


def test_help_imports_nothing_heavy() -> None:
    heavy = ["torch", "dgl", "faust", "kafka", "faiss"]
    code = f"import sys, stream.cli; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_schemas_describe_what_is_written() -> None:
    result = CliRunner().invoke(main, ["schema", "entity-event"])
    schema = msgspec.json.decode(result.output)
    event = msgspec.json.decode(
        msgspec.json.encode(Upsert("imdb", "1", "film", {"year": 1999}, {"by": ["2"]}, 3))
    )
    jsonschema.validate(event, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**event, "relations": "2"}, schema)
    assert set(msgspec.json.decode(CliRunner().invoke(main, ["schema"]).output)) == {
        "entity-event",
        "link",
        "alignment-record",
        "alignment-event",
    }


def test_a_users_mistake_is_one_line() -> None:
    result = CliRunner().invoke(main, ["config", "show", "--set", "kafka.colour=red"])
    assert result.exit_code == 1
    line = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ sameas: error: flag --set kafka\.colour: there is no setting.*\n"
    assert re.fullmatch(line, result.stderr)
