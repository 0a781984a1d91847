"""What transactions do to a topic: aborted messages, offsets without one, an end that cannot be read yet."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer

from stream.broker.ranges import find_ranges, read_ranges
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.config import Settings
from stream.consuming.dead_letters import Selection, read_dead_letters
from stream.worker.alignment_topic import Published
from tests.stream.records import aligned_pair
from tests.stream.workers import (
    Process,
    aligned,
    committed,
    fetch,
    numbers,
    produce,
    until,
    upserts,
    worker,
)

ZOMBIE = aligned_pair("left:98", "right:98")  # what another worker wrote
WITHDRAWN = "was not what this state says: 0 records written, 1 withdrawn"


@contextmanager
def transaction(settings: Settings, topic: str, records: Iterable[tuple[bytes, bytes]]) -> Iterator[Any]:
    """An open one; the producer, for ending it."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id=topic)
    try:
        producer.init_transactions()
        producer.begin_transaction()
        for key, value in records:
            producer.send(topic, key=key, value=value)
        producer.flush(timeout=30)
        yield producer
    finally:
        producer.close(timeout=5)


def end(producer: Any, how: str) -> None:
    if how == "commit":
        producer.commit_transaction()
    elif how == "abort":
        producer.abort_transaction()


def entities(some: Iterable[int]) -> list[tuple[bytes, bytes]]:
    return [(f"{e.source}:{e.id}".encode(), msgspec.json.encode(e)) for e in upserts(some)]


def wait_until_done(settings: Settings, running: Process, offset: int, lag: int = 0) -> None:
    """Nothing is left to do, as far as the group and the metrics tell."""
    running.wait_for("messages behind")  # a new broker has no groups before the first one forms
    until(lambda: committed(settings) == offset, f"commit of {offset}", running)
    address = running.wait_for(r"http://127\.0\.0\.1:\d+")
    line = f'sameas_consumer_lag_records{{partition="0",topic="{settings.topics.entities}"}} {lag}.0'
    until(lambda: line in fetch(f"{address}/metrics"), f"lag of {lag}", running)


def test_what_was_aborted_is_not_applied(apache_settings: Settings) -> None:
    topic = apache_settings.topics.entities
    ensure_topics(apache_settings)
    for some, how in ((range(5), "abort"), (range(5, 10), "commit")):
        with transaction(apache_settings, topic, entities(some)) as producer:
            end(producer, how)
    with worker(apache_settings) as running:
        until(lambda: aligned(apache_settings) >= numbers(range(5, 10)), "alignments", running)
        assert aligned(apache_settings) == numbers(range(5, 10))
        assert running.end() == 0
        assert "received 5 = applied 5 + stale 0 + dead-lettered 0" in running.text


@pytest.mark.parametrize("how", ["commit", "abort"])
def test_a_topic_that_ends_with_a_transaction_is_done(apache_settings: Settings, how: str) -> None:
    """For a worker that reads it and then for one that has nothing more to read; both have to take back."""
    topics = apache_settings.topics
    ensure_topics(apache_settings)
    produce(apache_settings, topics.entities, entities(range(5)))
    with transaction(apache_settings, topics.entities, entities([5])) as producer:
        end(producer, how)
    for _ in range(2):
        produce(
            apache_settings, topics.alignments, [(ZOMBIE.record_id.encode(), msgspec.json.encode(ZOMBIE))]
        )
        with worker(apache_settings, metrics__port="0") as running:
            running.wait_for(WITHDRAWN)
            wait_until_done(apache_settings, running, 7)
            assert aligned(apache_settings) == numbers(range(6 if how == "commit" else 5))
            assert running.end() == 0


def test_an_open_transaction_holds_nothing_up_but_what_follows(apache_settings: Settings) -> None:
    topics = apache_settings.topics
    ensure_topics(apache_settings)
    produce(apache_settings, topics.entities, entities(range(5)))
    produce(apache_settings, topics.alignments, [(ZOMBIE.record_id.encode(), msgspec.json.encode(ZOMBIE))])
    with transaction(apache_settings, topics.entities, entities(range(5, 10))) as producer:
        produce(apache_settings, topics.entities, entities([10]))
        with worker(apache_settings, metrics__port="0") as running:
            running.wait_for(WITHDRAWN)
            wait_until_done(apache_settings, running, 5, lag=6)  # which Kafka's own tool says, too
            assert aligned(apache_settings) == numbers(range(5))
            producer.commit_transaction()
            wait_until_done(apache_settings, running, 12)
            assert aligned(apache_settings) == numbers(range(11))
            assert running.end() == 0


def test_what_another_one_has_not_committed_is_taken_back(apache_settings: Settings) -> None:
    """Or it would appear after the comparison; and it does not hide what the worker itself writes."""
    topics = apache_settings.topics
    ensure_topics(apache_settings)
    produce(apache_settings, topics.entities, entities(range(5)))
    with worker(apache_settings, metrics__port="0") as running:
        wait_until_done(apache_settings, running, 5)
        assert running.end() == 0
    record = (ZOMBIE.record_id.encode(), msgspec.json.encode(ZOMBIE))
    with transaction(apache_settings, topics.alignments, [record]) as another:
        with worker(apache_settings, metrics__port="0") as running:
            running.wait_for(WITHDRAWN)
            produce(apache_settings, topics.entities, entities([5]))
            wait_until_done(apache_settings, running, 6)
            assert running.end() == 0
            assert running.text.count("what this state says") == 1
        another.commit_transaction()
        assert aligned(apache_settings) == numbers(range(6))


@pytest.mark.timeout(60)  # it hangs where an end is waited for that does not come
@pytest.mark.parametrize(("how", "found"), [("commit", [b"1", b"2"]), ("abort", [b"1"]), ("open", [b"1"])])
def test_commands_read_to_the_end(apache_settings: Settings, how: str, found: list[bytes]) -> None:
    topics = apache_settings.topics
    ensure_topics(apache_settings)
    for topic in (topics.entities, topics.dead_letters, topics.alignments):
        produce(apache_settings, topic, [(b"1", b"one")])
        with transaction(apache_settings, topic, [(b"2", b"two")]) as producer:
            end(producer, how)
            assert [record.key for record in read_topic(apache_settings, topic)] == found
            if topic == topics.entities:
                ranges = find_ranges(apache_settings, None, None)
                assert [message.key for message in read_ranges(apache_settings, ranges)] == found
            elif topic == topics.dead_letters:
                letters = read_dead_letters(apache_settings, Selection())
                assert [letter.key for letter in letters] == found
            else:
                published = Published(apache_settings, 1)
                published.read()
                assert [output.key for output in published.differences([])] == [b"1", b"2"]
