"""What the pages say: nothing is missing, nothing that they name does not exist, and their examples run.

`tests/test_project.py` checks that the README's commands and make targets exist.
"""

import ast
import json
import re
import shlex
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from kafka import KafkaProducer

from index import tables as tables_module
from stream.catalogue.account import Account
from stream.cli import main
from stream.config import describe, load
from stream.engine.records import _event
from stream.events import AlignmentEvent, Evidence, Trigger, alignment_key
from stream.mapping.decoder import make_decoder
from stream.worker.metrics import Metrics
from tests.stream.records import aligned_pair

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


def name_of(page: Path) -> str:
    """Relative to `docs/`; README.md and CHANGELOG.md as they are."""
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


TEXT = {name_of(page): page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXT.values())
RECORD = aligned_pair("a:1", "b:2", record_id="sameas:1", confidence=0.75, mapping_date="2020-01-01")


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    families = {family.name: family.type for family in Metrics().registry.collect()}
    exist = {f"{name}_total" if kind == "counter" else name for name, kind in families.items()}
    assert exist == set(re.findall(r"^\| `(sameas_\w+)` \|", TEXT["operating.md"], flags=re.M))


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT[page], flags=re.M | re.S)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something, groups resolved."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
            if command.invoke_without_command:
                yield (*path, name)
        else:
            yield (*path, name)


def command_lines() -> list[str]:
    """The lines in shell blocks that begin with `sameas`, without what the shell does with them."""
    lines = [line for page in TEXT for text in blocks(page, "sh") for line in text.splitlines()]
    return [re.split(r"\s[#|>&]", line)[0] for line in lines if line.startswith("sameas ")]


@pytest.mark.parametrize("command", list(commands(main)), ids=" ".join)
def test_every_command_is_documented(command: tuple[str, ...]) -> None:
    assert f"sameas {' '.join(command)}" in EVERYTHING


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|(.*?)\|", TEXT["README.md"], flags=re.M))
    settings = {key: value for key, value, _ in describe(load(Path("/dev/null"), environ={}))}
    assert list(rows) == list(settings)
    for key, value in settings.items():
        shown = "" if value is None else f"`{msgspec.json.encode(value).decode().strip(chr(34))}`"
        assert rows[key].strip() == shown.replace(".0`", "`"), key


def test_every_field_of_a_record_is_documented() -> None:
    fields = {*AlignmentEvent.__struct_fields__, *(f"evidence.{name}" for name in Evidence.__struct_fields__)}
    named = set(re.findall(r"`([a-z_.]+)`", TEXT["consuming.md"]))
    assert fields - {"evidence"} <= named


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_can_be_parsed(line: str) -> None:
    command: click.Command = main
    arguments = shlex.split(line)[1:]
    while isinstance(command, click.Group) and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    command.make_context(line, arguments)


def test_mappings_are_valid(tmp_path: Path) -> None:
    examples = [example for page in ("README.md", "mapping.md") for example in blocks(page, "toml")]
    assert len(examples) >= 3
    for example in examples:
        path = tmp_path / "sameas.toml"
        path.write_text(example, encoding="utf-8")
        sources = load(path, environ={}).settings.sources
        assert set(sources) == set(tomllib.loads(example).get("sources", {}))
        make_decoder(sources, "e", "l")


def test_events_are_valid() -> None:
    from stream.events import decode_entity_event

    (example,) = blocks("README.md", "json")
    assert [decode_entity_event(None, line.encode()).id for line in example.splitlines()] == ["tt0133093"] * 2


def test_the_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", EVERYTHING))
    assert len(named) > 10
    for file, name in sorted(named):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (file, name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = TEXT[name_of(page)]
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:stream|model|index|tests|benchmarks|docs)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_paths_of_one_machine(page: Path) -> None:
    assert not re.findall(r"(?<![\w.])/(?:work|home|root|tmp|Users)\b", TEXT[name_of(page)])


@pytest.mark.kafka
def test_the_consumer_follows_the_truth(embedded_kafka: str, tmp_path: Path) -> None:
    topic = f"test-{uuid.uuid4().hex[:8]}.alignments"
    (code,) = blocks("consuming.md", "python")
    assert '"sameas.alignments"' in code and '"127.0.0.1:9092"' in code
    script = tmp_path / "consumer.py"
    script.write_text(code.replace("sameas.alignments", topic).replace("127.0.0.1:9092", embedded_kafka))
    key = alignment_key(RECORD.subject_id, RECORD.object_id).encode()
    producer = KafkaProducer(bootstrap_servers=embedded_kafka)
    for value in (msgspec.json.encode(RECORD), None):
        producer.send(topic, key=key, value=value).get(timeout=20)
    producer.close(timeout=5)
    log = tmp_path / "consumer.log"
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, script], stdout=output, stderr=output) as run,
    ):
        deadline = time.monotonic() + 30
        while "not the same any more: a:1|b:2\n" not in log.read_text() and run.poll() is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        run.kill()
    assert log.read_text() == "the same: a:1|b:2 0.75\nnot the same any more: a:1|b:2\n"


def test_the_table_of_stored_keys_is_that_of_the_store() -> None:
    rows = re.findall(r"^\| `(\w)` \| ([A-Z_]+) \| (.*?) \|", TEXT["design.md"], flags=re.M)
    tables = {
        name: value for name, value in vars(tables_module).items() if name.isupper() and type(value) is bytes
    }
    assert {name: letter.encode() for letter, name, _ in rows} == tables
    (meta,) = (keys for _, name, keys in rows if name == "META")
    code = "".join(
        path.read_text() for folder in ("stream", "index") for path in (ROOT / folder).rglob("*.py")
    )
    assert set(re.findall(r"`(\w+)`", meta)) == set(re.findall(r'\bMETA \+ b"(\w+)"', code))


def test_the_tree_in_the_readme_shows_every_package() -> None:
    (tree,) = (block for block in blocks("README.md", "text") if block.startswith("index/"))
    shown, top = set(), ""
    for indent, name in re.findall(r"^( *)(\w+/) ", tree, flags=re.M):
        top = top if indent else name
        shown.add(ROOT / top / name if indent else ROOT / name)
    assert [folder for folder in shown if not folder.is_dir()] == []
    code = (ROOT / name for name in ("index", "model", "stream", "benchmarks"))
    assert {file.parent for folder in code for file in folder.rglob("__init__.py")} <= shown


def test_every_name_in_an_account_is_documented() -> None:
    names = json.loads(Account().report().json())
    account = TEXT["feeding.md"].partition("## The account")[2].partition("\n## ")[0]
    assert list(names) == re.findall(r"^\| `(\w+)` \|", account, flags=re.M)


def test_headers_are_documented() -> None:
    for name, _ in _event("aligned", RECORD, "", Trigger("promotion")).headers:
        assert f"`{name}`" in TEXT["consuming.md"]
