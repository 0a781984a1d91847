"""A topic that was deleted and created again is another topic, whatever its offsets say."""

import base64
import json
from pathlib import Path

import msgspec

from stream.broker.connection import admin_client
from stream.broker.topics import delete_topics, ensure_topics, identify, input_specs, output_specs
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from tests.stream.workers import READS, aligned, numbers, until, upserts, wait_until_aligned, worker


def create_again(settings: Settings, topic: str) -> None:
    """A new, empty topic with the name of this one."""
    specs = [spec for spec in input_specs(settings) + output_specs(settings) if spec.name == topic]
    delete_topics(settings, specs)
    until(lambda: topic not in identify(settings, [topic]), "end of the topic")
    ensure_topics(settings, specs)


def ids(state: Path) -> dict[str, str]:
    """Those that a fake worker's file has."""
    raw = base64.b64decode(json.loads(state.read_text())["origin"]["mtopics"])
    return msgspec.msgpack.decode(raw, type=dict[str, str])


def test_a_topic_made_again_has_another_id(settings: Settings) -> None:
    ensure_topics(settings)
    topics = [settings.topics.entities, settings.topics.links]
    first = identify(settings, [*topics, "missing"])
    assert {*first} == {*topics} and {one.partitions for one in first.values()} == {1}
    assert None not in {one.id for one in first.values()} and len({one.id for one in first.values()}) == 2
    assert identify(settings, topics) == first
    create_again(settings, settings.topics.entities)
    second = identify(settings, topics)
    assert second[topics[0]] != first[topics[0]] and second[topics[1]] == first[topics[1]]


def test_an_input_that_was_made_again_while_the_worker_was_stopped_is_refused(
    embedded_settings: Settings,
) -> None:
    """Also when it is longer than what was applied of the former one."""
    settings = embedded_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    with worker(settings) as first:
        wait_until_aligned(settings, numbers(range(10)), first)
        assert first.end() == 0
    create_again(settings, settings.topics.entities)
    feed_events(settings, upserts(range(100, 130)))
    with worker(settings) as second:
        assert second.wait() == 1
        assert f"error: topic {settings.topics.entities} is not the one that state directory" in second.text
        assert "delete this one to rebuild it" in second.text and "Traceback" not in second.text
    with worker(settings, "other") as other:  # another state.dir
        wait_until_aligned(settings, numbers(range(100, 130)), other)
        assert other.end() == 0


def test_an_input_that_is_made_again_under_a_running_worker_ends_it(settings: Settings) -> None:
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    with worker(settings) as running:
        wait_until_aligned(settings, numbers(range(10)), running)
        create_again(settings, settings.topics.links)
        assert running.wait() == 1
        assert f"error: topic {settings.topics.links} is not the one that state" in running.text
        assert "a part of the input" not in running.text and "Traceback" not in running.text


def test_an_input_that_is_deleted_under_a_running_worker_is_said_to_be_gone(settings: Settings) -> None:
    ensure_topics(settings)
    with worker(settings) as running:
        running.wait_for(READS)
        delete_topics(settings, input_specs(settings)[:1])
        assert running.wait() == 1
        assert f"error: topic {settings.topics.entities}, which state directory" in running.text
        assert "does not exist any more" in running.text


def test_an_output_that_is_deleted_under_a_running_worker_is_said_to_be_gone(
    apache_settings: Settings,
) -> None:
    """Publishing would wait for it, without a word."""
    settings = apache_settings
    ensure_topics(settings)
    gone = output_specs(settings)
    with worker(settings) as running:
        running.wait_for(READS)
        delete_topics(settings, gone)
        assert running.wait() == 1
        names = ", ".join(spec.name for spec in gone)
        assert f"error: topic {names} does not exist any more; start the worker again" in running.text


def test_a_new_alignment_topic_is_filled_from_the_state(embedded_settings: Settings) -> None:
    """With as many records as the former one, too: its end is where the state expects it."""
    settings = embedded_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    with worker(settings) as first:
        wait_until_aligned(settings, numbers(range(10)), first)
        first.wait_for("is what this state says")
        assert first.end() == 0
    state = json.loads(first.state.read_text())
    create_again(settings, settings.topics.alignments)
    first.state.write_text(json.dumps(state | {"ends": {"0": 0}}))
    with worker(settings) as second:
        second.wait_for("was not what this state says: 10 records written, 0 withdrawn")
        assert aligned(settings) == numbers(range(10))
        create_again(settings, settings.topics.alignments)  # beside a running worker that has nothing to say
        second.wait_for(r"was deleted and created again(.|\n)*created again(.|\n)*10 records written")
        assert aligned(settings) == numbers(range(10))
        assert second.end() == 0
        assert "Traceback" not in second.text


def test_a_state_from_before_there_were_ids_takes_them_over(embedded_settings: Settings) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(3)))
    with worker(settings) as first:
        wait_until_aligned(settings, numbers(range(3)), first)
        assert first.end() == 0
    known = ids(first.state)
    state = json.loads(first.state.read_text())
    first.state.write_text(json.dumps(state | {"origin": {}}))
    with worker(settings) as second:
        second.wait_for(READS)
        assert second.end() == 0
    assert ids(second.state) == known and len(known) == 3


def grow(settings: Settings, topic: str, partitions: int) -> None:
    with admin_client(settings.kafka) as admin:
        admin.create_partitions({topic: partitions})


def test_partitions_that_are_added_to_an_input_are_read_by_the_running_worker(
    apache_settings: Settings,
) -> None:
    settings = apache_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    with worker(settings) as running:
        wait_until_aligned(settings, numbers(range(10)), running)
        grow(settings, settings.topics.entities, 4)
        feed_events(settings, upserts(range(10, 40)))
        wait_until_aligned(settings, numbers(range(40)), running)
        assert running.end() == 0
    with worker(settings) as again:
        again.wait_for(READS)
        assert again.end() == 0


def test_an_alignment_topic_that_grew_is_refused_until_it_is_made_again(apache_settings: Settings) -> None:
    """By the running worker, by its successor, and by one that rebuilds its state."""
    settings = apache_settings
    ensure_topics(settings)
    feed_events(settings, upserts(range(10)))
    topic = settings.topics.alignments
    with worker(settings) as running:
        wait_until_aligned(settings, numbers(range(10)), running)
        grow(settings, topic, 2)
        assert running.wait() == 1
        assert f"error: topic {topic} has 2 partition(s), it had 1 when" in running.text
    with admin_client(settings.kafka) as admin:
        admin.create_partitions(
            {spec.name: 2 for spec in input_specs(settings) + output_specs(settings) if spec.name != topic}
        )
    with worker(settings, topics__partitions="2") as again:
        assert again.wait() == 1
        assert f"published to 1 partition(s) of {topic}, which has 2: partitions were added" in again.text
    with worker(settings, "rebuilt", topics__partitions="2") as rebuilt:
        assert rebuilt.wait() == 1
        assert "pairs in a partition where their next record would not go" in rebuilt.text
    delete_topics(settings, [spec for spec in output_specs(settings) if spec.name == topic])
    with worker(settings, topics__partitions="2") as filled:
        filled.wait_for("was not what this state says: 10 records written, 0 withdrawn")
        assert aligned(settings) == numbers(range(10))
        assert filled.end() == 0
