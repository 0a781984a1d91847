"""A worker that stood still while another one took over, and then goes on, publishes nothing out of date."""

import json
import re
import signal

from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import feed_events
from stream.config import Settings
from stream.worker.app import BULK_BATCHES
from tests.stream.workers import (
    READS,
    STANDBY,
    Process,
    deletes,
    numbers,
    until,
    upserts,
    wait_until_aligned,
    worker,
)

EVENTS = 3000
BATCH = 50 * BULK_BATCHES  # messages at once of a worker that is behind
ENOUGH = 500  # applied when it is paused: in the middle of its work


def roles(process: Process) -> int:
    """How many times it has said which one it has."""
    return len(re.findall("standing by|messages behind", process.text))


def applied(process: Process) -> int:
    return sum(json.loads(process.state.read_text())["next"].values()) if process.state.exists() else 0


def test_a_worker_that_stood_still_publishes_nothing_before_it_has_the_partitions(settings: Settings) -> None:
    """It is paused with messages in its queue whose outcome its successor has long taken back."""
    ensure_topics(settings)
    with worker(settings, "first") as first, worker(settings, "second") as second:
        running = until(
            lambda: [one for one in (first, second) if "messages behind" in one.text], "an active one"
        )[0]
        other = second if running is first else first
        other.wait_for(STANDBY)
        feed_events(settings, upserts(range(EVENTS)))
        until(lambda: applied(running) >= ENOUGH, f"{ENOUGH} applied messages", running)
        running.process.send_signal(signal.SIGSTOP)
        feed_events(settings, deletes(range(EVENTS - 10)))
        other.wait_for(READS)
        left = numbers(range(EVENTS - 10, EVENTS))
        until(lambda: applied(other) == 2 * EVENTS - 10, "all messages applied", other)
        wait_until_aligned(settings, left, other)
        written, told = count(settings), roles(running)
        running.process.send_signal(signal.SIGCONT)
        until(lambda: roles(running) > told, "another role", running)
        if running.text.rfind("standing by") > running.text.rfind("messages behind"):
            # a batch that was on its way to the broker gets there, and the owner makes it good
            assert count(settings) <= written + 2 * BATCH
        until(
            lambda: max(applied(running), applied(other)) == 2 * EVENTS - 10,
            "all messages applied",
            other,
        )
        wait_until_aligned(settings, left, running)


def count(settings: Settings) -> int:
    return sum(1 for _ in read_topic(settings, settings.topics.alignments))
