"""What can happen to a worker's topics: deleted and created again, more partitions, any compression."""

import time

from benchmarks.ordeal import (
    EVENTS,
    LONGEST_WORK,
    Stream,
    Torture,
    expect_refusal,
    live_and_die,
)
from benchmarks.rig import CODECS, Rig
from stream.demo.worker_process import WorkerProcess

FEW, MANY = 30, 300  # inputs, so that a topic is shorter than the one before it, or longer
PARTITIONS = 4  # of an entity topic that has grown


def recreated_inputs(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Another entity or link topic has the name of the former one, beside a running worker or a killed one.

    The worker has to refuse it; its state is deleted, as it says.
    """
    for role in ("entities", "links"):
        stream.feed(EVENTS)
        with rig.worker() as running:
            running.wait_until_reading()
            time.sleep(torture.chance.uniform(0, LONGEST_WORK))
            recreate_input(torture, rig, stream, role)
            expect_other_topic(torture, rig, running, role)
        live_and_die(torture, rig, stream)
        recreate_input(torture, rig, stream, role)
        with rig.worker() as successor:
            expect_other_topic(torture, rig, successor, role)


def recreated_alignments(torture: Torture, rig: Rig, stream: Stream) -> None:
    """An empty alignment topic takes the place of the former one: it is filled from the state."""
    stream.feed(EVENTS)
    with rig.worker() as worker:
        worker.wait_until_reading()
        time.sleep(torture.chance.uniform(0, LONGEST_WORK))
        rig.recreate("alignments")
        stream.feed(EVENTS)
        rig.repaired()
        torture.judge(rig)
    live_and_die(torture, rig, stream)
    rig.recreate("alignments")
    rig.drain()


def added_partitions(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Inputs are given partitions beside a running worker, and keys move; some producers learn of it late.

    The worker, its successor with a state of its own, and a replay come to the same.
    """
    stream.begin_plain()
    stream.feed(EVENTS)
    with rig.worker() as worker:
        worker.wait_until_reading()
        time.sleep(torture.chance.uniform(0, LONGEST_WORK))
        rig.grow("entities", PARTITIONS)
        rig.grow("links", PARTITIONS // 2)
        for partition in (None, 0, None):
            stream.feed(EVENTS, partition)
        rig.repaired()
        torture.judge(rig)
    live_and_die(torture, rig, stream)
    rig.drain("other")
    torture.judge(rig)
    torture.judge(rig, rig.replay())


def codecs(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Each codec is once that of all topics, whatever producers compress with."""
    for codec in torture.chance.sample(CODECS, len(CODECS)):
        rig.compress(codec)
        live_and_die(torture, rig, stream)
    rig.drain()


def recreate_input(torture: Torture, rig: Rig, stream: Stream, role: str) -> None:
    """The new topic ends up shorter than the former one, or longer."""
    rig.recreate(role)
    stream.feed(torture.chance.choice([FEW, MANY]))


def expect_other_topic(torture: Torture, rig: Rig, worker: WorkerProcess, role: str) -> None:
    """The worker refuses the topic; without its state all is made of what the topics hold now."""
    topic = getattr(rig.settings.topics, role)
    expect_refusal(worker, f"topic {topic} is not the one that", "delete this one to rebuild it")
    rig.forget()
    rig.expect_new_letters()
    rig.drain()
    torture.judge(rig)
