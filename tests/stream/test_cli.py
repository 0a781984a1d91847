"""The command line itself: help, schemas, errors in one line."""

import re
import subprocess
import sys

import jsonschema
import msgspec
import pytest
from click.testing import CliRunner

from stream.cli import main
from stream.events import Upsert


def test_every_command_has_help() -> None:
    runner = CliRunner()
    assert runner.invoke(main, ["--help"]).exit_code == 0
    for name in main.commands:
        result = runner.invoke(main, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Usage:" in result.output


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
