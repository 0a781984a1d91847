"""Topics are created with the right shape, and wrong ones are refused with what to do."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from stream.broker.connection import admin_client
from stream.broker.topics import ensure_topics, input_specs, output_specs
from stream.config import Settings
from stream.errors import BrokerError
from stream.mapping.language import SourceMapping
from tests.stream.workers import own_settings


def create(settings: Settings, name: str, partitions: int = 1, /, **config: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.servers)
    try:
        admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    finally:
        admin.close()


def test_missing_topics_are_created_once(settings: Settings) -> None:
    topics = msgspec.structs.replace(settings.topics, partitions=3)
    settings = msgspec.structs.replace(settings, topics=topics)
    counts = ensure_topics(settings)
    assert counts == dict.fromkeys((spec.name for spec in input_specs(settings) + output_specs(settings)), 3)
    assert ensure_topics(settings) == counts
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.servers)
    try:
        found = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in counts], config_filter="all"
        )["topic"]
    finally:
        admin.close()
    policies = {name: config["cleanup.policy"]["value"] for name, config in found.items()}
    compacted = {topics.entities, topics.links, topics.alignments}
    assert {name for name, policy in policies.items() if policy == "compact"} == compacted
    logs = (topics.alignment_events, topics.dead_letters)
    assert {found[name]["retention.ms"]["value"] for name in logs} == {str(30 * 86_400_000)}
    for_ever = msgspec.structs.replace(settings, topics=msgspec.structs.replace(topics, retention_days=0))
    assert {spec.config.get("retention.ms") for spec in output_specs(for_ever)} == {None, "-1"}


def test_a_limit_that_somebody_gave_a_log_is_theirs_to_give(apache_settings: Settings) -> None:
    """docs/operating.md says how."""
    topic = apache_settings.topics.alignment_events
    create(apache_settings, topic, **{"cleanup.policy": "delete", "retention.ms": "2592000000"})
    assert ensure_topics(apache_settings)[topic] == 1


def test_all_topics_but_that_of_alignments_may_have_more_partitions(apache_settings: Settings) -> None:
    settings = apache_settings
    topics = settings.topics
    create(settings, topics.entities, 2, **{"cleanup.policy": "compact"})
    assert ensure_topics(settings)[topics.entities] == 2
    more = msgspec.structs.replace(settings, topics=msgspec.structs.replace(topics, partitions=2))
    with pytest.raises(BrokerError, match=r"links.* has 1 partition.*topics\.partitions is 2; set that to"):
        ensure_topics(more)
    with admin_client(settings.kafka) as admin:
        admin.create_partitions({topics.links: 2})
    with pytest.raises(BrokerError, match=r"alignments.* has 1 .* is 2: set that to 1 .* delete this topic"):
        ensure_topics(more)


@pytest.mark.parametrize(("role", "policy"), [("alignments", "delete"), ("alignment_events", "compact")])
def test_wrong_cleanup_policy(settings: Settings, role: str, policy: str) -> None:
    create(settings, getattr(settings.topics, role), **{"cleanup.policy": policy})
    with pytest.raises(
        BrokerError, match=f"has cleanup.policy={policy} but must have .*kafka-configs --alter"
    ):
        ensure_topics(settings)


def test_a_sources_topic_is_not_created(settings: Settings) -> None:
    name = f"{settings.kafka.group_id}.film"
    settings = msgspec.structs.replace(settings, sources={"shop": SourceMapping(topic=name, id="id")})
    with pytest.raises(BrokerError, match=rf"{name} \(sources\.shop\.topic\) does not exist"):
        ensure_topics(settings)
    create(settings, name, 1)
    assert ensure_topics(settings)[name] == 1


def test_a_sources_topic_that_expires_is_told(
    apache_kafka: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = own_settings(apache_kafka["plaintext"], tmp_path)
    for name, config in {
        "expires": {"cleanup.policy": "delete", "retention.ms": "1000"},
        "stays": {"cleanup.policy": "delete", "retention.ms": "-1"},
        "compact": {"cleanup.policy": "compact"},
    }.items():
        topic = f"{settings.kafka.group_id}.{name}"
        create(settings, topic, 1, **config)
        of_shop = msgspec.structs.replace(settings, sources={"shop": SourceMapping(topic=topic, id="id")})
        ensure_topics(of_shop)
        assert ("its records expire (retention.ms=1000)" in caplog.text) == (name == "expires")
        caplog.clear()
