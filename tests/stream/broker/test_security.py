"""Users, passwords, certificates and ACLs: what is needed works, what is missing is said in one line."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from stream.broker.topics import ensure_topics, output_specs
from stream.catalogue.feeding import feed_events
from stream.cli import main
from stream.config import Settings
from stream.engine.inbox import Received
from stream.engine.interface import Output
from stream.errors import InvalidInput
from stream.events import Cause, Message
from stream.replay.run import Run
from tests.stream.workers import (
    aligned,
    own_settings,
    produce,
    sameas,
    until,
    upserts,
    worker,
)

Kafka = dict[str, Any]

# docs/security.md: what each command needs
WORKER = {
    "entities": ["READ"],
    "links": ["READ"],
    "alignments": ["READ", "WRITE"],
    "alignment_events": ["WRITE"],
    "dead_letters": ["WRITE"],
}


@pytest.fixture
def open_settings(apache_kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A user that may do everything; the topics exist. Commands run in a directory with a file to feed."""
    (tmp_path / "events.jsonl").write_text('{"op":"upsert","source":"x","id":"1","type":"t"}\n')
    monkeypatch.chdir(tmp_path)
    settings = own_settings(apache_kafka["plaintext"], tmp_path)
    ensure_topics(settings)
    return settings


class Rights:
    """ACLs for one user, gone at the end."""

    def __init__(self, kafka: Kafka, user: str) -> None:
        self._admin = KafkaAdminClient(bootstrap_servers=kafka["plaintext"])
        self._user = user

    def allow(self, settings: Settings, rights: dict[str, list[str]], *, group: bool = False) -> None:
        resources = [
            (ResourcePattern(ResourceType.TOPIC, getattr(settings.topics, role)), operation)
            for role, operations in rights.items()
            for operation in operations
        ]
        if group:
            resources.append((ResourcePattern(ResourceType.GROUP, settings.kafka.group_id), "READ"))
        acls = [
            ACL(f"User:{self._user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, resource)
            for resource, operation in resources
        ]
        self._admin.create_acls(acls)
        until(lambda: len(self._all()) >= len(acls), "ACLs")

    def take_away(self, kind: str, name: str, operation: str) -> None:
        resource = ResourcePattern(ResourceType[kind.upper()], name)
        acl = ACL(f"User:{self._user}", "*", ACLOperation[operation], ACLPermissionType.DENY, resource)
        before = len(self._all())
        self._admin.create_acls([acl])
        until(lambda: len(self._all()) > before, "ACL")

    def _all(self) -> list[Any]:
        return list(self._admin.describe_acls(self._filter())[0])

    def _filter(self) -> Any:
        everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        return ACLFilter(f"User:{self._user}", None, ACLOperation.ANY, ACLPermissionType.ANY, everything)

    def end(self) -> None:
        self._admin.delete_acls([self._filter()])
        until(lambda: not self._all(), "end of the ACLs")
        self._admin.close()


@pytest.fixture
def alice(apache_kafka: Kafka) -> Iterator[Rights]:
    rights = Rights(apache_kafka, "alice")
    yield rights
    rights.end()


def secure(kafka: Kafka, **changes: str) -> dict[str, str]:
    """The environment of a login as alice by TLS and SCRAM."""
    settings = {
        "bootstrap_servers": kafka["tls"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "alice",
        "sasl_plain_password": "alice-secret",
        "ssl_cafile": kafka["ca"],
        **changes,
    }
    return {f"SAMEAS_KAFKA__{key.upper()}": value for key, value in settings.items() if value}


def topics(settings: Settings) -> dict[str, str]:
    roles = ("entities", "links", "alignments", "alignment_events", "dead_letters")
    return {f"SAMEAS_TOPICS__{role.upper()}": getattr(settings.topics, role) for role in roles}


def run(arguments: list[str], settings: Settings, environment: dict[str, str]) -> Result:
    return CliRunner().invoke(main, arguments, env=environment | topics(settings))


def refused(arguments: list[str], settings: Settings, environment: dict[str, str]) -> str:
    """The line that a command ends with. A worker may end its process, and says before that it waits."""
    if arguments[0] == "run":
        with sameas("run", log=Path("log").absolute(), **environment, **topics(settings)) as process:
            status, text = process.wait(), process.text
    else:
        result = run(arguments, settings, environment)
        status, text = result.exit_code, result.stderr
    heard = text.splitlines()
    lines = [line for line in heard if "warning" not in line and "waiting for the broker" not in line]
    assert status == 1 and len(lines) == 1 and "Z sameas: error: " in lines[0], text
    return lines[0]


@pytest.mark.parametrize(
    ("listener", "mechanism"),
    [("tls", "SCRAM-SHA-256"), ("sasl", "SCRAM-SHA-256"), ("tls", "PLAIN"), ("sasl", "PLAIN")],
)
def test_feed_and_subscribe_with_the_least_rights(
    open_settings: Settings,
    apache_kafka: Kafka,
    alice: Rights,
    tmp_path: Path,
    listener: str,
    mechanism: str,
) -> None:
    password = tmp_path / "password"
    password.write_text("alice-secret\n")
    environment = secure(
        apache_kafka,
        bootstrap_servers=apache_kafka[listener],
        security_protocol="SASL_SSL" if listener == "tls" else "SASL_PLAINTEXT",
        ssl_cafile=apache_kafka["ca"] if listener == "tls" else "",
        sasl_mechanism=mechanism,
        sasl_plain_password="",
        sasl_plain_password_file=str(password),
    )
    alice.allow(open_settings, {"entities": ["WRITE"], "alignments": ["READ"]})
    for arguments in (["feed", "events.jsonl"], ["subscribe", "-e"]):
        result = run(arguments, open_settings, environment)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "lacking"),
    [
        (["run"], {**WORKER, "group": ["READ"]}),
        (["topics"], WORKER),
        (["feed", "events.jsonl", "--delete-missing"], {"entities": ["READ", "WRITE"]}),
        (["dead-letters", "retry"], {"entities": ["READ", "WRITE"], "links": ["READ", "WRITE"]}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_all_rights_that_are_missing_are_named_at_once(
    open_settings: Settings,
    apache_kafka: Kafka,
    alice: Rights,
    arguments: list[str],
    lacking: dict[str, list[str]],
) -> None:
    alice.allow(open_settings, {"alignments": ["DESCRIBE"], "dead_letters": ["DESCRIBE", "READ"]})
    for role in ("entities", "links"):
        topic = getattr(open_settings.topics, role)
        message = Message(Cause(topic, 0, 0), b"x", b"{bad", 0.0)
        letters = Received()
        letters.refuse(message, "decode", InvalidInput("malformed", "why"))
        [letter] = letters.dead_letters
        put_letter(open_settings, letter)
    if arguments[0] in ("run", "topics"):
        lacking = lacking | {"dead_letters": ["WRITE"]}
    line = refused(arguments, open_settings, secure(apache_kafka))
    for role, rights in lacking.items():
        options = " ".join(f"--operation {right.capitalize()}" for right in rights)
        where = "--group sameas" if role == "group" else f"--topic {getattr(open_settings.topics, role)}"
        assert f"{options} {where}" in line
    assert line.count("kafka-acls") == len(lacking)


def put_letter(settings: Settings, letter: Output) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    headers = list(letter.headers)
    producer.send(settings.topics.dead_letters, letter.value, letter.key, headers=headers)
    producer.close(timeout=30)


def test_a_worker_with_the_least_rights(open_settings: Settings, apache_kafka: Kafka, alice: Rights) -> None:
    alice.allow(open_settings, WORKER, group=True)
    feed_events(open_settings, upserts(range(20)))
    environment = secure(apache_kafka)
    options = {key.removeprefix("SAMEAS_").lower(): value for key, value in environment.items()}
    with worker(open_settings, **options) as process:
        until(lambda: len(aligned(open_settings)) == 20, "alignments", process)
        assert process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.text and "alice-secret" not in process.text


@pytest.mark.parametrize(
    ("role", "operation", "verb"),
    [
        ("entities", "READ", "read it"),
        ("alignments", "READ", "read it"),
        ("alignments", "WRITE", "write to it"),
        ("dead_letters", "WRITE", "write to it"),
        ("group", "READ", "join it"),
    ],
)
def test_a_right_that_is_taken_away_from_a_worker_is_named(
    open_settings: Settings, apache_kafka: Kafka, alice: Rights, role: str, operation: str, verb: str
) -> None:
    """Which then ends: as long as it lacks the right, it can do nothing, and waiting does not help."""
    alice.allow(open_settings, WORKER, group=True)
    options = {key.removeprefix("SAMEAS_").lower(): value for key, value in secure(apache_kafka).items()}
    with worker(open_settings, **options) as process:
        process.wait_for("what this state says")
        kind = "group" if role == "group" else "topic"
        name = open_settings.kafka.group_id if kind == "group" else getattr(open_settings.topics, role)
        alice.take_away(kind, name, operation)
        if role == "alignments" and operation == "READ":  # it is read where somebody else wrote to it
            produce(open_settings, name, [(b"left:1|right:1", None)])
        elif kind == "topic":
            produce(open_settings, open_settings.topics.entities, [(b"x", b"{bad")])
            feed_events(open_settings, upserts(range(20)))
        assert process.wait() == 1, process.text
    assert "Traceback" not in process.text, process.text
    last = process.text.splitlines()[-1]
    assert "sameas: error: " in last, process.text
    assert f"{kind} {name}: user alice may not {verb}" in last
    assert f"--operation {operation.capitalize()} --{kind} {name}" in last


def test_a_replay_with_the_least_rights(
    open_settings: Settings, apache_kafka: Kafka, alice: Rights, checkpoint: Path, tmp_path: Path
) -> None:
    """Its topics are made by a user that may create them."""
    feed_events(open_settings, upserts(range(20)))
    replay = Run(open_settings, open_settings.kafka.group_id)
    ensure_topics(replay.settings, output_specs(replay.settings))
    words = ["replay", "--run", replay.name, "--model", str(checkpoint), "--execute", "--report", "report"]
    environment = secure(apache_kafka) | {"SAMEAS_STATE__DIR": str(open_settings.state.dir)}

    def said() -> str:
        result = run(words, open_settings, environment)
        last = result.stderr.splitlines()[-1]
        assert result.exit_code == 1 and "Z sameas: error: " in last, result.stderr
        return last

    topics = open_settings.topics
    rights = {role: WORKER[role] for role in ("alignments", "alignment_events")}
    alice.allow(open_settings, {"entities": ["DESCRIBE"], "links": ["READ"]})
    alice.allow(replay.settings, rights)
    lacking = said()
    assert f"topic {topics.entities}: user alice may not read it" in lacking
    assert f"topic {topics.alignments}: user alice may not read it" in lacking
    assert f"topic {replay.settings.topics.dead_letters}: user alice may not write to it" in lacking
    assert lacking.count("kafka-acls") == 3
    alice.allow(open_settings, {"entities": ["READ"], "alignments": ["READ"]})
    alice.allow(replay.settings, {"dead_letters": ["WRITE"]})
    result = run(words, open_settings, environment)
    assert result.exit_code == 0, result.stderr
    assert "received 20 = applied 20" in result.stderr and (tmp_path / "report" / "report.html").exists()


def test_a_replay_is_removed_with_the_least_rights(
    open_settings: Settings, apache_kafka: Kafka, alice: Rights
) -> None:
    replay = Run(open_settings, open_settings.kafka.group_id)
    names = ensure_topics(replay.settings, output_specs(replay.settings))
    words = ["replay", "remove", replay.name]
    environment = secure(apache_kafka) | {"SAMEAS_STATE__DIR": str(open_settings.state.dir)}
    alice.allow(replay.settings, {"alignments": ["DELETE"], "alignment_events": ["DELETE"]})
    line = refused(words, open_settings, environment)
    letters = replay.settings.topics.dead_letters
    assert f"topic {letters}: user alice may not delete it; " in line
    assert f"--operation Delete --topic {letters}" in line
    alice.allow(replay.settings, {"dead_letters": ["DELETE"]})
    result = run(words, open_settings, environment)
    assert result.exit_code == 0, result.stderr
    assert [f"deleted {name}" in result.stderr for name in names] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "rights", "missing"),
    [
        (["subscribe", "-e"], {"alignments": ["DESCRIBE"]}, ("alignments", "Read")),
        (["subscribe", "-e"], {}, ("alignments", "Read")),
        (["subscribe", "-e", "--events"], {"alignments": ["READ"]}, ("alignment_events", "Read")),
        (["subscribe", "--sssom"], {"alignments": ["DESCRIBE"]}, ("alignments", "Read")),
        (["feed", "events.jsonl"], {"entities": ["READ"]}, ("entities", "Write")),
        (["feed", "events.jsonl", "--delete-missing"], {"entities": ["WRITE"]}, ("entities", "Read")),
        (["link", "a:1", "b:2"], {"links": ["READ"]}, ("links", "Write")),
        (["dead-letters", "list"], {"dead_letters": ["WRITE"]}, ("dead_letters", "Read")),
        (["run"], WORKER | {"entities": ["DESCRIBE"]}, ("entities", "Read")),
        (["run"], WORKER | {"alignments": ["READ"]}, ("alignments", "Write")),
        (["run"], WORKER | {"dead_letters": ["DESCRIBE"]}, ("dead_letters", "Write")),
        (["run"], WORKER, ("group", "Read")),
    ],
)
def test_a_missing_acl_is_named_with_its_remedy(
    open_settings: Settings,
    apache_kafka: Kafka,
    alice: Rights,
    arguments: list[str],
    rights: dict[str, list[str]],
    missing: tuple[str, str],
) -> None:
    """A topic that may only be described looks like an empty one to kafka-python."""
    if rights:
        alice.allow(open_settings, rights)
    line = refused(arguments, open_settings, secure(apache_kafka))
    resource, operation = missing
    name = (
        f"--group {open_settings.kafka.group_id}"
        if resource == "group"
        else f"--topic {getattr(open_settings.topics, resource)}"
    )
    if resource == "group":
        name = "--group sameas"
    assert f"kafka-acls --add --allow-principal User:alice --operation {operation} {name}" in line
    assert "user alice may not" in line


WRONG: list[tuple[dict[str, str], str]] = [
    ({"sasl_plain_password": "wrong"}, "sasl_mechanism, sasl_plain_username and the password"),
    (
        {"sasl_plain_password": "wrong", "sasl_mechanism": "PLAIN"},
        "sasl_mechanism, sasl_plain_username and the password",
    ),
    ({"sasl_mechanism": "SCRAM-SHA-512"}, "sasl_mechanism, sasl_plain_username and the password"),
    ({"ssl_cafile": "other.pem"}, "check kafka.security_protocol and ssl_cafile"),
    ({"ssl_cafile": ""}, "check kafka.security_protocol and ssl_cafile"),
    ({"security_protocol": "SASL_PLAINTEXT"}, "check kafka.security_protocol"),
    ({"security_protocol": "PLAINTEXT"}, "check kafka.security_protocol"),
    ({"ssl_cafile": "gone.pem"}, "kafka.ssl_cafile: there is no file gone.pem"),
    ({"ssl_cafile": "events.jsonl"}, "kafka.ssl_cafile, ssl_certfile or ssl_keyfile cannot be used"),
    ({"sasl_plain_password": ""}, "set one of sasl_plain_password and sasl_plain_password_file"),
]
FEED = ["feed", "events.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "changes", "advice"),
    [(["run"], *WRONG[0]), (["subscribe", "-e"], *WRONG[0]), *((FEED, *wrong) for wrong in WRONG)],
)
def test_who_is_not_let_in_is_told_why(
    open_settings: Settings,
    apache_kafka: Kafka,
    tmp_path: Path,
    arguments: list[str],
    changes: dict[str, str],
    advice: str,
) -> None:
    if changes.get("ssl_cafile") == "other.pem":
        make_authority(tmp_path / "other.pem")
    line = refused(arguments, open_settings, secure(apache_kafka, **changes))
    assert advice in line
    assert "alice-secret" not in line and "wrong" not in line


def make_authority(path: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other"),
            *("-keyout", str(path.with_suffix(".key")), "-out", str(path)),
        ],
        check=True,
        capture_output=True,
    )


def test_a_missing_topic_is_said_to_be_missing(
    open_settings: Settings, apache_kafka: Kafka, alice: Rights, tmp_path: Path
) -> None:
    other = own_settings(apache_kafka["plaintext"], tmp_path)
    environment = {"SAMEAS_KAFKA__BOOTSTRAP_SERVERS": apache_kafka["plaintext"]}
    line = refused(["subscribe", "-e"], other, environment)
    assert f"topic {other.topics.alignments} does not exist" in line and "sameas run" in line
    alice.allow(other, WORKER, group=True)
    line = refused(["run"], other, secure(apache_kafka, group_id=other.kafka.group_id))
    for role in WORKER:
        name = getattr(other.topics, role)
        assert f"topic {name} ({role}) is missing and cannot be created" in line
    assert "create it with 1 partition(s) and cleanup.policy=compact" in line


def test_secrets_are_not_told(open_settings: Settings, apache_kafka: Kafka, alice: Rights) -> None:
    environment = secure(apache_kafka, ssl_password="key-secret")
    shown = run(["config", "show"], open_settings, environment).output
    assert 'sasl_plain_password = "***"' in shown and 'ssl_password = "***"' in shown
    assert "alice-secret" not in shown and "key-secret" not in shown
    # a defect shows its traceback, with the settings in it
    alice.allow(open_settings, WORKER, group=True)
    produce(open_settings, open_settings.topics.entities, [(b"x:1", b"defect")])
    options = {key.removeprefix("SAMEAS_").lower(): value for key, value in secure(apache_kafka).items()}
    with worker(open_settings, **options, align__linger_ms="1") as failing:
        failing.wait()
    assert "alice-secret" not in failing.text
    assert os.environ.get("SAMEAS_KAFKA__SASL_PLAIN_PASSWORD") is None
