"""The worker as a process of its own, with real brokers, and ended in every way there is."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition

from stream.broker.connection import admin_client
from stream.broker.embedded import start_broker
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from tests.stream.workers import (
    READS,
    STANDBY,
    Process,
    aligned,
    committed,
    dead_letters,
    deletes,
    fetch,
    numbers,
    own_settings,
    produce,
    until,
    upserts,
    wait_until_aligned,
    worker,
)


def wait_until_applied(count: int, process: Process) -> None:
    """The fake's state says what was applied; what it published before does not tell runs apart."""

    def applied() -> int:
        state = process.state
        return sum(json.loads(state.read_text())["next"].values()) if state.exists() else 0

    until(lambda: applied() >= count, f"{count} applied messages", process)


def test_every_message_is_accounted_for(settings: Settings) -> None:
    ensure_topics(settings)
    feed_events(settings, [*upserts(range(200)), *deletes(range(10))])
    produce(settings, settings.topics.entities, [(b"x:11", None), (b"k", b"{bad"), (b"\xff", None)])
    with worker(settings) as running:
        wait_until_aligned(settings, numbers(range(10, 11), range(12, 200)), running)
        assert running.end() == 0
        assert "received 213 = applied 211 + stale 0 + dead-lettered 2" in running.text
    letters = dead_letters(settings)
    assert [(letter.key, letter.value) for letter in letters] == [
        (b"k", b"{bad"),
        (b"\xff", None),
    ]
    assert dict(letters[0].headers)["reason"] == b"malformed"


def test_kills_between_steps_lose_and_invent_nothing(settings: Settings) -> None:
    """First between the state's write and publishing, then between publishing and the commit."""
    ensure_topics(settings)
    feed_events(settings, upserts(range(300)))
    for kill_at in ("store:3", "publish:5"):
        with worker(settings, kill_at=kill_at) as killed:
            assert killed.wait() == -signal.SIGKILL
    feed_events(settings, deletes(range(20)))
    with worker(settings) as successor:
        successor.wait_for(READS)
        wait_until_aligned(settings, numbers(range(20, 300)), successor)
        assert successor.end() == 0


def test_local_state_decides_where_reading_begins(embedded_settings: Settings) -> None:
    """The group has committed everything, but this state directory is new; another knows too much."""
    ensure_topics(embedded_settings)
    feed_events(embedded_settings, upserts(range(30)))
    with worker(embedded_settings, "first") as first:
        wait_until_aligned(embedded_settings, numbers(range(30)), first)
        assert first.end() == 0
    with worker(embedded_settings, "second") as second:
        assert second.wait_for(READS).endswith("30 messages behind")
        wait_until_applied(30, second)
        assert second.end() == 0
        assert "received 30 = applied 30" in second.text
    first.state.write_text(first.state.read_text().replace('/0":30', '/0":31'))
    with worker(embedded_settings, "first") as third:
        assert third.wait() == 1
        assert re.search("ends at 30: it was cut back .*or this is another broker", third.text)


def test_a_second_worker_stands_by_and_takes_over(settings: Settings) -> None:
    ensure_topics(settings)
    feed_events(settings, upserts(range(40)))
    with worker(settings, "first") as first:
        first.wait_for(READS)
        with worker(settings, "second") as second:
            second.wait_for(STANDBY)
            wait_until_aligned(settings, numbers(range(40)), first)
            assert first.end() == 0
            second.wait_for(READS)
            feed_events(settings, deletes(range(5)))
            wait_until_aligned(settings, numbers(range(5, 40)), second)
            assert second.end() == 0
            assert "received 45 = applied 45" in second.text


def test_what_only_a_former_worker_published_is_withdrawn(embedded_settings: Settings) -> None:
    """The successor never knew a pair, as its messages are compacted away by now."""
    ensure_topics(embedded_settings)
    with worker(embedded_settings, "former") as former:
        feed_events(embedded_settings, upserts(range(10)))
        wait_until_aligned(embedded_settings, numbers(range(10)), former)
        assert former.end() == 0
    [some, *_] = read_topic(embedded_settings, embedded_settings.topics.alignments)
    produce(embedded_settings, embedded_settings.topics.alignments, [(b"left:98|right:98", some.value)])
    with worker(embedded_settings, "successor") as successor:
        successor.wait_for("was not what this state says: 0 records written, 1 withdrawn")
        assert aligned(embedded_settings) == numbers(range(10))
        assert successor.end() == 0
    with worker(embedded_settings, "successor") as again:
        again.wait_for(READS)
        assert again.end() == 0
        assert "was not what" not in again.text


def test_strays_of_another_partitioner_are_withdrawn_where_they_lie(embedded_settings: Settings) -> None:
    """Of pairs that are aligned, and of some that are not; however many, since no partition was added."""
    topics = msgspec.structs.replace(embedded_settings.topics, partitions=2)
    settings = msgspec.structs.replace(embedded_settings, topics=topics)
    topic = topics.alignments
    ensure_topics(settings)
    with worker(settings, topics__partitions="2") as first:
        feed_events(settings, upserts(range(20)))
        wait_until_aligned(settings, numbers(range(20)), first)
        assert first.end() == 0
    own = {record.key: record.partition for record in read_topic(settings, topic)}
    strays = {key: 1 - own[key] for key in list(own)[:12]} | {b"left:98|right:98": 0, b"left:99|right:99": 1}
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for key, partition in strays.items():
        producer.send(topic, key=key, value=b"no record", partition=partition)
    producer.close(timeout=30)
    with worker(settings, topics__partitions="2", metrics__port="0") as second:
        address = second.wait_for(r"http://127\.0\.0\.1:\d+")
        second.wait_for("was not what this state says: 12 records written, 14 withdrawn")
        assert aligned(settings) == numbers(range(20))
        assert re.search(
            r"warning: .*: 1[234] records stood in partitions where their keys do not", second.text
        )
        assert re.search(r"^sameas_stray_records_total 1[234]", fetch(f"{address}/metrics"), re.M)
        assert second.end() == 0
    left: dict[tuple[int, bytes], bytes] = {}
    for record in read_topic(settings, topic):
        left[record.partition, record.key] = record.value
    assert {place for place, value in left.items() if value} == {(own[key], key) for key in own}
    with worker(settings, topics__partitions="2") as third:
        third.wait_for("ready: .* is what this state says")
        assert third.end() == 0


def test_what_somebody_else_publishes_beside_a_worker_is_withdrawn(embedded_settings: Settings) -> None:
    """Another one that was cut off and did not know, for instance."""
    ensure_topics(embedded_settings)
    with worker(embedded_settings, "only") as only:
        feed_events(embedded_settings, upserts(range(10)))
        wait_until_aligned(embedded_settings, numbers(range(10)), only)
        only.wait_for("is what this state says")
        [some, *_] = read_topic(embedded_settings, embedded_settings.topics.alignments)
        produce(embedded_settings, embedded_settings.topics.alignments, [(b"left:98|right:98", some.value)])
        feed_events(embedded_settings, upserts([10]))
        only.wait_for("was not what this state says: 0 records written, 1 withdrawn")
        assert aligned(embedded_settings) == numbers(range(11))
        feed_events(embedded_settings, upserts([11]))
        wait_until_aligned(embedded_settings, numbers(range(12)), only)
        assert only.end() == 0
        assert only.text.count("what this state says") == 2


def test_what_somebody_else_publishes_beside_an_idle_worker_is_withdrawn(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    with worker(embedded_settings, "only") as only:
        feed_events(embedded_settings, upserts(range(10)))
        wait_until_aligned(embedded_settings, numbers(range(10)), only)
        only.wait_for("is what this state says")
        [some, other, *_] = read_topic(embedded_settings, embedded_settings.topics.alignments)
        produce(
            embedded_settings,
            embedded_settings.topics.alignments,
            [(b"left:98|right:98", some.value), (other.key, None)],
        )
        only.wait_for("was not what this state says: 1 records written, 1 withdrawn")
        assert aligned(embedded_settings) == numbers(range(10))
        assert only.end() == 0


def test_a_part_of_the_partitions_is_refused(settings: Settings) -> None:
    topics = msgspec.structs.replace(settings.topics, partitions=2)
    settings = msgspec.structs.replace(settings, topics=topics)
    with worker(settings, "first") as first:
        first.wait_for(READS)
        with worker(settings, "second") as second:
            ended = until(
                lambda: [one for one in (first, second) if one.process.poll() is not None],
                "end",
            )
            assert ended[0].process.returncode == 1
            assert re.search(r"error: .*only a part of the input: 1 of 2 partitions", ended[0].text)


def test_a_defect_ends_the_worker(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    with worker(embedded_settings) as running:
        running.wait_for(READS)
        produce(embedded_settings, embedded_settings.topics.entities, [(b"x:1", b"defect")])
        assert running.wait() == 1
        assert "RuntimeError: a defect in the aligner" in running.text


def test_sigterm_while_a_batch_takes_long(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    with worker(embedded_settings) as running:
        running.wait_for(READS)
        produce(embedded_settings, embedded_settings.topics.entities, [(b"x:1", b"slow")])
        running.wait_for("slow batch")
        assert running.end(seconds=10.0) == 1
        assert "ended by force, nothing is lost" in running.text


def test_sigterm_under_full_load(settings: Settings) -> None:
    """What is under way is finished and committed, the rest is left to the successor."""
    ensure_topics(settings)
    feed_events(settings, upserts(range(10_000)))
    with worker(settings) as running:
        wait_until_applied(1, running)
        assert running.end(seconds=10.0) == 0
        received, applied = map(int, re.findall(r"received (\d+) = applied (\d+)", running.text)[0])
    applied_in_state = sum(json.loads(running.state.read_text())["next"].values())
    assert 0 < received == applied == applied_in_state < 10_000
    assert committed(settings) == applied
    with worker(settings) as successor:
        assert successor.wait_for(READS).endswith(f"{10_000 - applied} messages behind")
        wait_until_aligned(settings, numbers(range(10_000)), successor)
        assert successor.end() == 0


def test_health_metrics_and_backlog(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    feed_events(embedded_settings, upserts(range(20)))
    with worker(embedded_settings, metrics__port="0") as running:
        address, topic = running.wait_for(r"http://127\.0\.0\.1:\d+"), embedded_settings.topics.entities
        assert fetch(f"{address}/livez") == "alive\n"
        until(lambda: fetch(f"{address}/readyz") == "ready\n", "readiness", running)
        until(
            lambda: (
                f'sameas_events_total{{outcome="applied",topic="{topic}"}} 20.0'
                in fetch(f"{address}/metrics")
            ),
            "metrics",
            running,
        )
        until(
            lambda: re.search(r"sameas_store_bytes [1-9]", fetch(f"{address}/metrics")),
            "the state's size",
            running,
        )
        # the fake leaves two entities per batch for later, and works on one whenever there is no message
        until(
            lambda: "sameas_backlog_entities 0.0" in fetch(f"{address}/metrics"),
            "backlog 0",
            running,
        )
        assert running.end(signal.SIGINT) == 0


def test_a_worker_that_is_behind_is_not_ready(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    produce(embedded_settings, embedded_settings.topics.entities, [(b"x:1", b"slow")])
    with worker(embedded_settings, metrics__port="0") as running:
        address = running.wait_for(r"http://127\.0\.0\.1:\d+")
        assert fetch(f"{address}/readyz").startswith("not ready: ")
        running.wait_for("slow batch")
        behind = "catching up: 1 messages behind in 1 of 2 partition(s); 0 entities wait"
        assert fetch(f"{address}/readyz") == f"not ready: {behind}\n"
        assert fetch(f"{address}/livez") == "alive\n"


def test_what_waited_before_a_restart_is_done_without_new_messages(embedded_settings: Settings) -> None:
    ensure_topics(embedded_settings)
    with worker(embedded_settings) as first:
        first.wait_for(READS)
        assert first.end() == 0
    state = json.loads(first.state.read_text())
    first.state.write_text(json.dumps(state | {"backlog": 7}))
    with worker(embedded_settings) as second:
        until(lambda: json.loads(second.state.read_text())["backlog"] == 0, "backlog 0", second)
        assert second.end() == 0


def test_sigterm_before_it_is_ready(embedded_settings: Settings) -> None:
    with worker(embedded_settings) as running:
        until(lambda: running.process.poll() is None, "start")
        assert running.end() in (0, -signal.SIGTERM)  # Python itself may not be up yet


def test_state_in_use(embedded_settings: Settings) -> None:
    with worker(embedded_settings, "one") as first:
        first.wait_for(READS)
        with worker(embedded_settings, "one") as second:
            assert second.wait() == 1
            assert re.search(r"error: state directory .* is in use", second.text)
            assert "Traceback" not in second.text


def test_sigterm_while_the_broker_is_down(tmp_path: Path) -> None:
    broker = start_broker()
    try:
        settings = own_settings(broker.address, tmp_path)
        with worker(settings) as running:
            running.wait_for(READS)
            broker.process.kill()
            broker.process.wait()
            assert running.end(seconds=10.0) in (0, 1)
            assert "SIGTERM, stopping" in running.text
            assert "Traceback" not in running.text
    finally:
        broker.stop()


def test_a_group_that_was_reset_is_set_to_where_the_state_stands(apache_settings: Settings) -> None:
    """At once, or Kafka's tools would show a lag until the next message."""
    ensure_topics(apache_settings)
    topic, group = apache_settings.topics.entities, apache_settings.kafka.group_id
    feed_events(apache_settings, upserts(range(5)))
    with worker(apache_settings) as running:
        running.wait_for(READS)  # a new broker has no groups before the first one forms
        until(lambda: committed(apache_settings) == 5, "commit", running)
        assert running.end() == 0
    for offset in (0, 3, 7):
        with admin_client(apache_settings.kafka) as admin:
            admin.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)})
        assert committed(apache_settings) == offset
        with worker(apache_settings) as running:
            until(lambda: committed(apache_settings) == 5, "commit", running)
            assert running.end() == 0
            assert "received 0 =" in running.text


def test_unreachable_broker(tmp_path: Path) -> None:
    settings = own_settings("127.0.0.1:1", tmp_path)
    with worker(settings, kafka__connect_timeout_seconds="3") as running:
        running.wait_for("waiting for the broker at 127.0.0.1:1 and its topics")
        assert running.wait() == 1
        assert re.search(r"Z sameas: error: .*127\.0\.0\.1:1\b.*", running.text, re.MULTILINE)
        assert "Traceback" not in running.text


def test_a_broker_restart_loses_nothing(apache_kafka: dict[str, Any], tmp_path: Path) -> None:
    settings, broker = own_settings(apache_kafka["plaintext"], tmp_path), apache_kafka["broker"]
    with worker(settings, metrics__port="0") as running:
        address = running.wait_for(r"http://127\.0\.0\.1:\d+")
        feed_events(settings, upserts(range(50)))
        until(lambda: fetch(f"{address}/readyz") == "ready\n", "readiness", running)
        broker.stop(kill=True)
        gone = "not ready: the broker has not answered for "
        until(lambda: fetch(f"{address}/readyz").startswith(gone), gone, running)
        assert fetch(f"{address}/livez") == "alive\n"
        broker.start()
        feed_events(settings, upserts(range(50, 100)))
        wait_until_aligned(settings, numbers(range(100)), running)
        until(lambda: fetch(f"{address}/readyz") == "ready\n", "readiness", running)
        assert running.end() == 0
        for words in ("does not answer\n", "answers again, after "):
            assert running.text.count(f"the broker at {settings.kafka.bootstrap_servers} {words}") == 1
