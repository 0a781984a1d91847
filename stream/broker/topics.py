"""sameas's topics: what they must be like, creating them, and checking those that are there.

Topics are created or checked before a worker starts, because Faust waits for ever for a missing one.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream.broker.access import Operation, check_access
from stream.broker.connection import admin_client
from stream.config import Settings
from stream.console import log
from stream.errors import BrokerError, Refused

CREATE_TIMEOUT_MS = 15_000
APPEAR_SECONDS = 10.0  # how long a created topic may take to show up with leaders
FOREVER = "-1"
DAY_MS = 86_400_000
AFTER_GROWTH = (
    "its keys have moved: delete this topic while no worker runs; the next start creates it with "
    "topics.partitions and fills it from the state"
)
NO_ID = "00000000-0000-0000-0000-000000000000"

Policy = Literal["compact", "delete", "any"]


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic and what sameas needs of it."""

    name: str
    role: str  # "entities", "links", ..., or "sources.NAME"
    partitions: int
    replication_factor: int
    policy: Policy
    access: tuple[Operation, ...]
    ours: bool = True  # created when missing; a topic of another owner is not
    retention_days: int = 0  # for ever

    @property
    def config(self) -> dict[str, str]:
        """Topic configuration at creation. What is compacted does not expire by age."""
        if self.policy == "compact":
            return {"cleanup.policy": "compact"}
        retention = str(self.retention_days * DAY_MS) if self.retention_days else FOREVER
        return {"cleanup.policy": "delete", "retention.ms": retention, "retention.bytes": FOREVER}


def input_specs(settings: Settings) -> list[TopicSpec]:
    """The topics that a worker reads: entities, links, and those of the sources."""
    topics = settings.topics
    size = (topics.partitions, topics.replication_factor)
    specs = [
        TopicSpec(topics.entities, "entities", *size, "compact", ("READ",)),
        TopicSpec(topics.links, "links", *size, "compact", ("READ",)),
    ]
    known = {topics.entities, topics.links}
    for name, mapping in settings.sources.items():
        for topic in mapping.topics():
            if topic not in known:
                known.add(topic)
                specs.append(TopicSpec(topic, f"sources.{name}", *size, "any", ("READ",), ours=False))
    return specs


def output_specs(settings: Settings) -> list[TopicSpec]:
    """The topics that a worker writes."""
    topics = settings.topics
    size = (topics.partitions, topics.replication_factor)
    days = topics.retention_days
    return [
        TopicSpec(topics.alignments, "alignments", *size, "compact", ("READ", "WRITE")),
        TopicSpec(
            topics.alignment_events, "alignment_events", *size, "delete", ("WRITE",), retention_days=days
        ),
        TopicSpec(topics.dead_letters, "dead_letters", *size, "delete", ("WRITE",), retention_days=days),
    ]


def alignments_to_read(settings: Settings) -> TopicSpec:
    """The alignment topic, for a command that reads it."""
    [spec] = [spec for spec in output_specs(settings) if spec.role == "alignments"]
    return msgspec.structs.replace(spec, access=("READ",))


def to_produce(
    settings: Settings, role: Literal["entities", "links"], *, read: bool = False
) -> list[TopicSpec]:
    """An input topic, for a command that writes to it, and with `read` reads it, too."""
    return [
        msgspec.structs.replace(spec, access=("READ", "WRITE") if read else ("WRITE",))
        for spec in input_specs(settings)
        if spec.role == role
    ]


def to_erase(settings: Settings, canonical: str) -> list[TopicSpec]:
    """The topics that `sameas erase` looks through, two of which it writes to.

    Args:
        canonical: the topic with the source's canonical events.
    """
    written = {canonical, settings.topics.links}
    return [
        msgspec.structs.replace(spec, access=("READ", "WRITE") if spec.name in written else ("READ",))
        for spec in worker_specs(settings)
        if spec.ours or spec.name == canonical
    ]


def worker_specs(settings: Settings) -> list[TopicSpec]:
    """The topics that a worker reads and writes."""
    return input_specs(settings) + output_specs(settings)


def ensure_topics(
    settings: Settings, specs: list[TopicSpec] | None = None, group: str | None = None
) -> dict[str, int]:
    """Creates what is missing and checks what is there; the number of partitions of each topic.

    Args:
        specs: all that a worker reads and writes, when not given.
        group: which the user has to be able to join.

    Raises:
        BrokerError: no broker, a topic cannot be created or described, is not compacted where it must be,
            is compacted where it must not, or a source's topic does not exist.
    """
    if specs is None:
        specs = worker_specs(settings)
    with _admin(settings, f"topics at {', '.join(settings.kafka.servers)} cannot be checked") as admin:
        found = _partitions(admin, specs, group)
        missing = [spec for spec in specs if found[spec.name] is None]
        if missing:
            _create(admin, missing)
            found = _wait_for(admin, specs)
        _check_policies(admin, [spec for spec in specs if spec not in missing])
    counts = {name: count for name, count in found.items() if count is not None}
    _check_partitions(specs, missing, counts)
    return counts


def find_partitions(
    settings: Settings, specs: list[TopicSpec], group: str | None = None
) -> dict[str, int | None]:
    """The number of partitions of each topic, None where there is none; creates nothing.

    Args:
        group: which the user has to be able to join.

    Raises:
        BrokerError: no broker, or not the access that is needed.
    """
    with _admin(settings, "topics cannot be described") as admin:
        return _partitions(admin, specs, group)


def existing_partitions(settings: Settings, specs: list[TopicSpec]) -> dict[str, int]:
    """The number of partitions of each topic. Raises BrokerError as `find_partitions`, or without one."""
    found = find_partitions(settings, specs)
    missing = [name for name, count in found.items() if count is None]
    if missing:
        raise BrokerError(
            f"topic {', '.join(missing)} does not exist at {', '.join(settings.kafka.servers)}; has a worker "
            "run (`sameas run`), and are the names in the settings right?"
        )
    return {name: count for name, count in found.items() if count is not None}


class Identity(NamedTuple):
    """What tells a topic from another one of that name, and from itself with more partitions."""

    id: str | None  # another one when a topic is deleted and created again (KIP-516); none of an old broker
    partitions: int
    epochs: Mapping[int, int]  # by partition that of its leader, as far as it is known


def identify(settings: Settings, topics: Iterable[str]) -> dict[str, Identity]:
    """Those of the topics that exist.

    Raises:
        BrokerError: no broker, or it does not say; Refused, when the user may not know.
    """
    with _admin(settings, "topics cannot be described") as admin:
        described = admin.describe_topics(list(topics))
    found: dict[str, Identity] = {}
    for topic in described:
        refusal = for_code(topic["error_code"])
        if topic["error_code"] == 0:
            known = topic.get("topic_id")
            epochs = {one["partition_index"]: one.get("leader_epoch", -1) for one in topic["partitions"]}
            found[topic["name"]] = Identity(
                None if known in (None, NO_ID) else str(known),
                len(topic["partitions"]),
                {number: epoch for number, epoch in epochs.items() if epoch >= 0},
            )
        elif refusal is not UnknownTopicOrPartitionError:
            kind = Refused if refusal is TopicAuthorizationFailedError else BrokerError
            raise kind(f"topic {topic['name']}: {refusal.__name__}")
    return found


def delete_topics(settings: Settings, specs: list[TopicSpec]) -> list[str]:
    """Deletes those of the topics that exist; their names.

    Raises:
        BrokerError: no broker, or no permission.
    """
    specs = [msgspec.structs.replace(spec, access=("DELETE",)) for spec in specs]
    with _admin(settings, "topics cannot be deleted") as admin:
        names = [name for name, count in _partitions(admin, specs).items() if count is not None]
        if names:
            admin.delete_topics(names, timeout_ms=CREATE_TIMEOUT_MS)
    return names


@contextlib.contextmanager
def _admin(settings: Settings, failed: str) -> Iterator[KafkaAdminClient]:
    """A client of which an error is a BrokerError that begins so."""
    with admin_client(settings.kafka) as admin:
        try:
            yield admin
        except KafkaError as error:
            raise BrokerError(f"{failed}: {type(error).__name__}: {error}") from error


def _partitions(
    admin: KafkaAdminClient, specs: list[TopicSpec], group: str | None = None
) -> dict[str, int | None]:
    """Each topic's number of partitions, None if there is no such topic."""
    found: dict[str, int | None] = {spec.name: None for spec in specs}
    needed = {spec.name: spec.access for spec in specs}
    described = admin.describe_topics([spec.name for spec in specs])
    check_access(admin, described, needed, group)
    for topic in described:
        error = for_code(topic["error_code"])
        if topic["error_code"] == 0:
            led = all(partition["leader_id"] >= 0 for partition in topic["partitions"])
            found[topic["name"]] = len(topic["partitions"]) if led else None
        elif error is not UnknownTopicOrPartitionError:
            raise BrokerError(f"topic {topic['name']}: {error.__name__}")
    return found


def _create(admin: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    """Creates what it can, and raises BrokerError with all that it cannot."""
    problems = []
    for spec in specs:
        if not spec.ours:
            problems.append(
                f"topic {spec.name} ({spec.role}.topic) does not exist; create it or correct the name"
            )
            continue
        new = NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=spec.config)
        try:
            admin.create_topics([new], timeout_ms=CREATE_TIMEOUT_MS)
        except TopicAlreadyExistsError:
            pass  # another worker was faster
        except KafkaError as error:
            problems.append(
                f"topic {spec.name} ({spec.role}) is missing and cannot be created: {type(error).__name__}; "
                f"create it with {spec.partitions} partition(s) and cleanup.policy={spec.policy}"
            )
    if problems:
        raise BrokerError("; ".join(problems))


def _wait_for(admin: KafkaAdminClient, specs: list[TopicSpec]) -> dict[str, int | None]:
    deadline = time.monotonic() + APPEAR_SECONDS
    while True:
        found = _partitions(admin, specs)
        absent = [name for name, count in found.items() if count is None]
        if not absent:
            return found
        if time.monotonic() > deadline:
            raise BrokerError(
                f"topic {', '.join(absent)}: created, but has no leader after {APPEAR_SECONDS:.0f} s"
            )
        time.sleep(0.05)


def _check_policies(admin: KafkaAdminClient, specs: list[TopicSpec]) -> None:
    """The embedded broker repeats what a topic was created with and knows no defaults; there, and where an
    ACL hides the configuration, nothing is known and a warning has to do."""
    described = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, spec.name) for spec in specs], config_filter="all"
    )
    configs: dict[str, dict[str, Any]] = described.get("topic", {})
    for spec in specs:
        entry = configs.get(spec.name, {}).get("cleanup.policy")
        if spec.policy == "any":
            _warn_if_expiring(spec, configs.get(spec.name, {}))
            continue
        if entry is None:
            log.warning(f"topic {spec.name}: the broker does not say whether cleanup.policy={spec.policy}")
            continue
        policies = {policy.strip() for policy in entry["value"].split(",")}
        if policies != {spec.policy}:
            harm = "records would expire" if spec.policy == "compact" else "all but the last would be lost"
            raise BrokerError(
                f"topic {spec.name} ({spec.role}) has cleanup.policy={entry['value']} but must have "
                f"{spec.policy}: {harm}; kafka-configs --alter --entity-type topics "
                f"--entity-name {spec.name} --add-config cleanup.policy={spec.policy}"
            )


def _warn_if_expiring(spec: TopicSpec, config: dict[str, Any]) -> None:
    """A source's topic is its owner's affair, but what has expired cannot be read again."""
    values = {name: entry["value"] for name, entry in config.items()}
    limits = [name for name in ("retention.ms", "retention.bytes") if values.get(name, FOREVER) != FOREVER]
    if "delete" in values.get("cleanup.policy", "") and limits:
        limit = f"{limits[0]}={values[limits[0]]}"
        log.warning(
            f"topic {spec.name} ({spec.role}): its records expire ({limit}); a lost state directory "
            "could not be rebuilt from it; cleanup.policy=compact keeps what is needed"
        )


def _check_partitions(specs: list[TopicSpec], created: list[TopicSpec], counts: dict[str, int]) -> None:
    """What sameas's own topics have at least is `topics.partitions`; a source's topic is its owner's affair.

    Keys move when partitions are added. Whoever reads the alignment topic would then find a pair in one
    partition and its tombstone in another, so that topic never grows.
    """
    for spec in specs:
        count = counts[spec.name]
        if not spec.ours or spec in created or count == spec.partitions:
            continue
        told = f"topic {spec.name} ({spec.role}) has {count} partition(s), but topics.partitions is "
        if spec.role == "alignments":
            raise BrokerError(
                f"{told}{spec.partitions}: set that to {count} if the topic was made so. If partitions were "
                f"added, {AFTER_GROWTH}"
            )
        if count < spec.partitions:
            raise BrokerError(
                f"{told}{spec.partitions}; set that to what the alignment topic has, or add partitions here"
            )
