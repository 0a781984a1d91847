"""A log that was cut back is told by its last messages; what was removed unread is not forgotten."""

import re
import shutil
import signal
from pathlib import Path

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from benchmarks.brokers import ApacheKafka
from index.errors import StateError
from stream.broker.connection import admin_client
from stream.broker.reading import as_message, read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from stream.engine.origin import Applied, trace
from stream.events import Cause, Message
from stream.state.origin import check_logs
from tests.stream.workers import (
    aligned,
    fetch,
    numbers,
    own_settings,
    produce,
    until,
    upserts,
    wait_until_aligned,
    worker,
)


def test_a_log_is_known_by_what_is_left_of_its_last_messages(settings: Settings) -> None:
    ensure_topics(settings)
    place = (settings.topics.entities, 0)
    with pytest.raises(
        StateError, match=r"the state has applied .*, partition 0, up to offset 2, but .* at 0"
    ):
        check_logs(settings, "the state", {place: Applied(3, [])}, "delete it")
    produce(settings, place[0], [(b"%d" % number, b"value") for number in range(20)])
    other = Message(Cause(*place, 19), b"19", b"other", 0.0)
    found = check_logs(settings, "the state", {place: Applied(20, [])}, "delete it")
    assert found == {TopicPartition(*place): (0, 20)}
    with_read = [trace(as_message(record)) for record in read_topic(settings, place[0])][-8:]
    assert check_logs(settings, "the state", {place: Applied(20, with_read)}, "delete it") == found
    with pytest.raises(
        StateError, match=r"at offset 19 of .* is not the one .* gone on otherwise; delete it"
    ):
        check_logs(settings, "the state", {place: Applied(20, [trace(other)])}, "delete it")


def twenty_messages(settings: Settings, directory: Path) -> Path:
    """Where they stand; a copy is good although Kafka runs, which makes indexes anew where it starts."""
    ensure_topics(settings)
    feed_events(settings, upserts(range(20)))
    return directory / "data" / f"{settings.topics.entities}-0"


def test_a_log_that_is_cut_back_ends_the_worker_and_stays_refused(
    own_kafka: ApacheKafka, tmp_path: Path
) -> None:
    """Restored from a copy, under a running worker; and then longer than before."""
    settings = own_settings(own_kafka.address, tmp_path)
    log, copy = twenty_messages(settings, own_kafka.directory), tmp_path / "copy"
    shutil.copytree(log, copy)
    with worker(settings) as running:
        feed_events(settings, upserts(range(20, 30)))
        wait_until_aligned(settings, numbers(range(30)), running)
        own_kafka.stop(kill=True)
        shutil.rmtree(log)
        shutil.copytree(copy, log)
        own_kafka.start()
        assert running.wait() == 1
        assert "up to offset 29, but that ends at 20: it was cut back" in running.text
        assert "Traceback" not in running.text
    feed_events(settings, upserts(range(100, 115)))
    with worker(settings) as again:
        assert again.wait() == 1
        assert "the message at offset 22" in again.text and "has gone on otherwise" in again.text


def test_a_log_that_was_cut_back_and_has_grown_beyond_the_position_ends_the_worker(
    own_kafka: ApacheKafka, tmp_path: Path
) -> None:
    """While the worker stands still; and its place in the group is kept, so that nothing is assigned anew."""
    settings = own_settings(own_kafka.address, tmp_path)
    log, copy = twenty_messages(settings, own_kafka.directory), tmp_path / "copy"
    shutil.copytree(log, copy)
    with worker(settings, kafka__session_timeout_seconds="60") as running:
        feed_events(settings, upserts(range(20, 30)))
        wait_until_aligned(settings, numbers(range(30)), running)
        running.process.send_signal(signal.SIGSTOP)
        own_kafka.stop(kill=True)
        shutil.rmtree(log)
        shutil.copytree(copy, log)
        own_kafka.start()
        feed_events(settings, upserts(range(100, 115)))
        running.process.send_signal(signal.SIGCONT)
        assert running.wait() == 1
        assert "the message at offset 22" in running.text and "has gone on otherwise" in running.text
        assert not numbers(range(110, 115)) & aligned(settings)  # which stand after the position


def set_policy(settings: Settings, policy: str) -> None:
    configs = {"cleanup.policy": policy}
    with admin_client(settings.kafka) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.topics.entities, configs)])


def test_messages_that_the_broker_removes_unread_are_said_for_good(apache_settings: Settings) -> None:
    settings = apache_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    topic = settings.topics.entities
    with worker(settings, metrics__port="0", kafka__session_timeout_seconds="30") as running:
        address = running.wait_for(r"http://127\.0\.0\.1:\d+")
        until(lambda: fetch(f"{address}/readyz") == "ready\n", "readiness", running)
        assert aligned(settings) == numbers(range(10))
        running.process.send_signal(signal.SIGSTOP)
        for number in range(10, 14):  # the first of them may be on its way to the worker
            feed_events(settings, upserts(range(100 * number, 100 * number + 100)))
        set_policy(settings, "delete")
        with admin_client(settings.kafka) as admin:
            admin.delete_records({TopicPartition(topic, 0): 400})
        running.process.send_signal(signal.SIGCONT)
        running.wait_for(rf"warning: messages \d+ to 399 of {topic}, partition 0, were removed")
        until(lambda: numbers(range(1390, 1400)) <= aligned(settings), "the rest", running)
        lost = r"ready\nlost: up to .* messages of .*"
        until(lambda: re.match(lost, fetch(f"{address}/readyz")), "readiness", running)
        ready, metrics = fetch(f"{address}/readyz"), fetch(f"{address}/metrics")
        assert f'sameas_lost_messages_total{{partition="0",topic="{topic}"}}' in metrics
        assert running.end() == 0
    set_policy(settings, "compact")
    with worker(settings, metrics__port="0") as again:
        address = again.wait_for(r"http://127\.0\.0\.1:\d+")
        until(lambda: fetch(f"{address}/readyz") == ready, "the same words", again)
        line = next(one for one in metrics.splitlines() if one.startswith("sameas_lost_messages_total{"))
        assert line in fetch(f"{address}/metrics")
        assert "warning: messages" not in again.text
        assert again.end() == 0
