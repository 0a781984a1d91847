"""Settings come from the file, the environment and flags, in this order, and say what is wrong with them."""

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from stream.broker.connection import client_options, sasl_password
from stream.cli import main
from stream.config import (
    Configuration,
    ModelSettings,
    Secret,
    Settings,
    as_toml,
    describe,
    load,
    load_settings,
)
from stream.errors import ConfigError
from stream.toml import tables

FILE = """
[kafka]
bootstrap_servers = "a:1, b:2"
group_id = "file"
session_timeout_seconds = 30
[sources.shop]
topic = "shop.public.film"
id = "id"
"""
SASL = ["kafka.security_protocol=SASL_PLAINTEXT", "kafka.sasl_mechanism=PLAIN", "kafka.sasl_plain_username=u"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sameas.toml"
    path.write_text(FILE)
    return path


def test_layers(file: Path) -> None:
    environ = {"SAMEAS_KAFKA__GROUP_ID": "env", "SAMEAS_ALIGN__BATCH_SIZE": "64", "HOME": "/"}
    configuration = load(
        file, environ, ["align.batch_size=65", "model.threshold=.9", "align.one_to_one=false"]
    )
    settings = configuration.settings
    assert settings.kafka.servers == ["a:1", "b:2"]
    assert settings.kafka.session_timeout_seconds == 30.0
    assert settings.kafka.group_id == "env"
    assert (settings.align.batch_size, settings.align.one_to_one) == (65, False)
    assert settings.model.threshold == 0.9
    assert settings.sources["shop"].topic == "shop.public.film"
    assert configuration.origins["kafka.group_id"] == "environment SAMEAS_KAFKA__GROUP_ID"
    assert configuration.origins["align.batch_size"] == "flag --set align.batch_size"


def test_defaults_and_the_file_in_the_working_directory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert load_settings(environ={}).kafka.group_id == "file"
    file.unlink()
    assert load_settings(environ={}) == Settings()
    with pytest.raises(ConfigError, match=r"sameas\.toml: cannot be read"):
        load_settings(file, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[kafka]\ngroup = 'x'",
            r"sameas\.toml: there is no setting kafka\.group; did you mean kafka\.group_id",
        ),
        ("[kafak]\ngroup_id = 'x'", "did you mean kafka.group_id"),
        ("[source.shop]\nid = 'id'", r"there is no setting source\.shop; did you mean sources\.shop\?"),
        ("group_id = 'x'", "group_id: settings stand in sections"),
        ("[align]\nbatch_size = '5'", "align.batch_size: expected `int`"),
        ("[align]\nbatch_size = 0", "align.batch_size: expected `int` >= 1"),
        ("[model]\nthreshold = 1.5", "model.threshold: expected `float` <= 1.0"),
        ("[kafka]\nbootstrap_servers = 'here'", "'here' is not of the form host:port"),
        (
            "[kafka]\nsecurity_protocol = 'TLS'",
            "security_protocol: invalid enum value 'TLS'; one of PLAINTEXT, SSL",
        ),
        ("[kafka]\nsasl_mechanism = 'X'", "enum value 'X'; one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512$"),
        ("[kafka]\nssl_cafile = '/nowhere'", "there is no file /nowhere"),
        ("[topics]\nlinks = 'a b'", "topics.links"),
        ("[topics]\nlinks = 'x'\nentities = 'x'", "the same name"),
        ("[sources.shop]\nid = 'id'\nred = 1", r"sources\.shop: .*unknown field `red`$"),
        ("[sources.s]\nid = 'x'\natributes = []", "unknown field `atributes`; did you mean attributes"),
        ("[sources.s.relations.by]\ncolum = 'x'", r"`colum` \(at relations.*; did you mean column\?"),
        ("[sources.s]\nid = 'x'\ndecimal = ';'", r"enum value ';' \(at decimal\); one of \., ,"),
        ("[sources.x]\ntopic = 'sameas.dead-letters'", "sameas itself writes to sameas.dead-letters"),
        ("[topics]\npartitions = 3000000000", "topics.partitions: expected `int` <= 100000"),
        ("[topics]\nreplication_factor = 99999", "topics.replication_factor: expected `int` <= 32767"),
        ('[state]\ndir = "a\\u0000b"', "state.dir: no path holds a NUL"),
        ("[kafka", "not valid TOML"),
        (f"x = {'[' * 1000}{']' * 1000}", "not valid TOML: maximum recursion"),
    ],
)
def test_mistakes_in_the_file(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file, {})


@pytest.mark.parametrize(
    ("environ", "overrides", "message"),
    [
        ({"SAMEAS_KAFKA__GROUPID": "x"}, [], "SAMEAS_KAFKA__GROUPID: .* did you mean kafka.group_id"),
        ({"SAMEAS_GROUP": "x"}, [], "SAMEAS_GROUP: there is no setting group"),
        (
            {"SAMEAS_ALIGN__BATCH_SIZE": "many"},
            [],
            "SAMEAS_ALIGN__BATCH_SIZE: align.batch_size: expected `int`",
        ),
        ({"SAMEAS_SOURCES__SHOP": "x"}, [], "can only stand in sameas.toml"),
        ({}, ["align.batch_size"], "section.key=value"),
        ({}, ["threshold=1"], "did you mean model.threshold"),
        ({}, SASL, "one of sasl_plain_password and sasl_plain_password_file"),
        ({}, SASL[:1], "set sasl_mechanism"),
    ],
)
def test_mistakes_outside_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load(None, environ, overrides)


def test_secrets_do_not_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"SAMEAS_KAFKA__SASL_PLAIN_PASSWORD": "hunter2"}
    configuration = load(None, environ, SASL)
    kafka = configuration.settings.kafka
    assert kafka.sasl_plain_password == Secret("hunter2")
    assert client_options(kafka)["sasl_plain_password"] == "hunter2"
    printed = f"{configuration!r} {list(describe(configuration))}"
    printed += CliRunner().invoke(main, ["config", "show"], env=environ).output
    assert "hunter2" not in printed
    assert "***" in printed


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    kafka = load_settings(Path("/dev/null"), {}, [*SASL, f"kafka.sasl_plain_password_file={file}"]).kafka
    assert sasl_password(kafka) == "hunter2"


COLUMNS = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1)
NAMES = st.text(min_size=1).filter(lambda name: not name.startswith("~"))
ATTRIBUTE = st.fixed_dictionaries({"column": COLUMNS}, optional={"kind": st.just("text"), "separator": NAMES})
RELATIONS = st.dictionaries(NAMES, st.fixed_dictionaries({"column": COLUMNS}, optional={"separator": NAMES}))
ROWS = {"decimal": st.sampled_from([".", ","]), "null": st.lists(st.text()), "quoting": st.just("none")}
TABLE = st.fixed_dictionaries(
    {"id": COLUMNS | st.just("{a}/{b}"), "file": NAMES | st.lists(NAMES, min_size=1)},
    optional={
        **ROWS,
        "type": NAMES,
        "type_column": COLUMNS,
        "attributes": st.lists(COLUMNS) | st.dictionaries(NAMES, COLUMNS | ATTRIBUTE),
        "relations": RELATIONS,
        "optional": st.lists(COLUMNS),
    },
)
JOIN = st.fixed_dictionaries(
    {"file": NAMES, "head": COLUMNS, "tail": COLUMNS, "relation": NAMES}, optional=ROWS
)
SEVERAL = st.fixed_dictionaries(
    {"tables": st.dictionaries(NAMES, TABLE, min_size=1)},
    optional={"joins": st.dictionaries(NAMES, JOIN), "iri": st.just("http://x/"), "triples": NAMES},
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "kafka": st.fixed_dictionaries({}, optional={"group_id": st.text()}),
        "model": st.fixed_dictionaries({"threshold": st.floats(0, 1)}, optional={"dir": st.just("a\nb")}),
        "align": st.fixed_dictionaries({"one_to_one": st.booleans(), "batch_size": st.integers(1, 10_000)}),
        "metrics": st.fixed_dictionaries({"port": st.integers(0, 65535)}),
        "sources": st.dictionaries(NAMES, TABLE | SEVERAL | st.just({}), max_size=3),
    },
)


@given(DOCUMENT)
def test_what_config_show_prints_means_the_same(document: dict[str, Any]) -> None:
    sections = {name: table for name, table in document.items() if name != "model"}
    found = msgspec.convert(sections, Settings)
    if "model" in document:
        values = {**document["model"], "dir": Path(document["model"].get("dir", "checkpoint"))}
        found = msgspec.structs.replace(found, model=ModelSettings(**values))
    origins = {f"sources.{name}": f"file \n{name}" for name in found.sources}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sameas.toml"
        path.write_text("\n".join(as_toml(Configuration(found, origins))), encoding="utf-8")
        assert load(path, {}).settings == found


def test_tables_that_hold_nothing_but_tables_have_no_head_unless_it_says_something() -> None:
    several = {"tables": {"a": {"id": "nr"}, "b": {"id": "nr"}}}
    below = ["", "[s.tables.a]", 'id = "nr"', "", "[s.tables.b]", 'id = "nr"']
    assert [*tables(["s"], {})] == ["[s]"] and [*tables(["s"], several)] == below
    assert [*tables(["s"], several, "file f")] == ["[s]  # file f", *below]


def test_config_show_can_be_pasted_back(file: Path, tmp_path: Path) -> None:
    environ = {"SAMEAS_KAFKA__SASL_PLAIN_PASSWORD": "hunter2", "SAMEAS_STATE__DIR": "a\udc80"}
    options = ["--config", str(file), *(word for setting in SASL for word in ("--set", setting))]
    shown = CliRunner().invoke(main, ["config", "show", *options], env=environ)
    assert shown.exit_code == 0, shown.output
    for line in (
        'group_id = "file"  # file ' + str(file),
        'sasl_mechanism = "PLAIN"  # flag --set kafka.sasl_mechanism',
        "linger_ms = 0  # default",
        "# ssl_cafile is not set",
        '# sasl_plain_password = "***"  # environment SAMEAS_KAFKA__SASL_PLAIN_PASSWORD; a secret',
        "# dir = a\ufffd  # environment SAMEAS_STATE__DIR; it is not UTF-8, which TOML has to be",
    ):
        assert line in shown.stdout.splitlines()
    pasted = tmp_path / "pasted.toml"
    pasted.write_text(shown.stdout, encoding="utf-8")
    assert load_settings(pasted, environ) == load_settings(file, environ, SASL)


def test_config_show_names_origins(file: Path) -> None:
    options = ["--config", str(file), "--set", "kafka.bootstrap_servers=c:3", "--json"]
    shown = json.loads(CliRunner().invoke(main, ["config", "show", *options]).output)
    assert shown["kafka.group_id"] == {"value": "file", "from": f"file {file}"}
    assert shown["kafka.bootstrap_servers"] == {"value": "c:3", "from": "flag --set kafka.bootstrap_servers"}
    assert shown["align.linger_ms"] == {"value": 0, "from": "default"}


@pytest.mark.parametrize("sign", [":", " ", "", "/", ":x=", " x="])
def test_a_password_that_is_set_in_the_wrong_way_is_not_told(sign: str) -> None:
    with pytest.raises(ConfigError, match=r"--set.*: write it as section\.key=value") as raised:
        load(None, {}, [f"kafka.sasl_plain_password{sign}hunter2"])
    assert "hunter2" not in str(raised.value)
    assert ("--set kafka.sasl_plain_password: " in str(raised.value)) == (sign != "")


def test_config_show_warns_of_tables_whose_ids_may_clash(tmp_path: Path) -> None:
    table = '[sources.{0}.tables.{1}]\ntopic = "{0}.{1}"\nid = "{2}"\n'
    names = [("shop", "film", "id"), ("shop", "person", "nr"), ("good", "film", "f{id}"), ("good", "a", "id")]
    path = tmp_path / "sameas.toml"
    path.write_text("".join(table.format(*words) for words in names))
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(main, ["config", "show", "--config", str(path), *options])
        (line,) = (line for line in shown.stderr.splitlines() if "warning" in line)
        assert "sources.shop: the ids of film, person have one form" in line and 'id = "person/{id}"' in line
