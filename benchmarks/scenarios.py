"""What can happen to a worker: disks, states, groups and brokers that do what they should not.

Each scenario ends with a worker that drains, and the comparison with the truth; where a state cannot be used,
the worker has to say so in one line, and the state is rebuilt from the topics.
"""

import contextlib
import re
import shutil
import signal
import time
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from benchmarks.brokers import ApacheKafka
from benchmarks.ordeal import (
    EVENTS,
    LONGEST_WORK,
    Stream,
    Torture,
    expect_refusal,
    live_and_die,
    wait,
)
from benchmarks.rig import Rig, behind, said, wait_for
from index.errors import SameasError
from stream.broker.connection import client_options
from stream.demo.worker_process import READS, WorkerProcess

SMALL_FILE = 150_000  # bytes that no file can grow beyond, on a disk that is full
PAUSES = 4
STANDS_BY = "standing by"
ROLE = f"{STANDS_BY}|{READS}"


def lost_state(torture: Torture, rig: Rig, stream: Stream) -> None:
    """An empty state directory: everything comes from the topics."""
    stream.feed(EVENTS)
    live_and_die(torture, rig, stream)
    rig.forget()
    rig.drain()


def old_state(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A backup takes the place of the state, and the group's offsets are reset: everything comes again."""
    stream.feed(EVENTS)
    rig.drain()
    backup = rig.directory / "backup"
    shutil.copytree(rig.state(), backup)
    stream.feed(EVENTS)
    rig.drain()
    rig.forget()
    backup.rename(rig.state())
    reset_offsets(rig)
    live_and_die(torture, rig, stream)
    rig.drain()


def standby(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A second worker with a state of its own takes over from a killed one, and hands back."""
    stream.feed(EVENTS)
    with rig.worker("one") as one:
        one.wait_until_reading()
        with rig.worker("two") as two:
            wait_for(two, STANDS_BY)
            one.process.kill()
            torture.killed("active, with a standby")
            wait_for(two, READS)
            stream.feed(EVENTS)
            with rig.worker("one") as back:
                wait_for(back, STANDS_BY)
                stream.feed(EVENTS)
                two.stop()
                wait_for(back, READS)
                back.process.kill()
                torture.killed("active, taken back")
    rig.drain("one")


def pauses(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A worker stands still (a suspended machine), its standby takes over, and it goes on, out of date.

    The standby may have finished by then, or not. The other one must not compare its state with the topic
    before the group has given it a role again. No worker is started anew: that would repair what is wrong.
    """
    chance = torture.chance
    with rig.worker("one") as one:
        one.wait_until_reading()
        with rig.worker("two") as two:
            wait_for(two, STANDS_BY)
            for _ in range(PAUSES):
                active, other = (one, two) if is_active(one) else (two, one)
                stream.feed(EVENTS)
                time.sleep(chance.uniform(0, LONGEST_WORK))
                active.process.send_signal(signal.SIGSTOP)
                torture.killed("paused, with a standby")
                wait_for(other, READS, said(other, READS) + 1)
                stream.feed(EVENTS)
                if chance.random() < 0.5:
                    rig.repaired()
                time.sleep(chance.uniform(0, LONGEST_WORK))
                before = active.log.stat().st_size
                active.process.send_signal(signal.SIGCONT)
                wait_for(active, ROLE, said(active, ROLE) + 1)
                first = re.split(ROLE, active.log.read_text(errors="replace")[before:])[0]
                if "was not what this state says" in first:
                    raise SameasError(
                        f"a worker that stood still wrote what its state said; see {active.log}"
                    )
                rig.repaired()


def cut_log(torture: Torture, rig: Rig, stream: Stream) -> None:
    """The store's write-ahead log lacks its end: the state is older than what was published."""
    work_and_die(torture, rig, stream)
    log = largest(rig, "log")
    with log.open("rb+") as file:
        file.truncate(log.stat().st_size * 2 // 3)
    stream.feed(EVENTS)
    usable_or_refused(rig)


def flipped_bits(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A bit is not what was written, in the log and then in a table."""
    for suffix in ("log", "sst"):
        work_and_die(torture, rig, stream)
        if suffix == "sst":
            rig.open_aligner(rig.in_force()).close()  # what was in the log is in a table now
        file = largest(rig, suffix)
        raw = bytearray(file.read_bytes())
        place = torture.chance.randrange(len(raw) // 4, len(raw) * 3 // 4)
        raw[place] ^= 1 << torture.chance.randrange(8)
        file.write_bytes(raw)
        usable_or_refused(rig)


def full_disk(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Nothing more can be written: the worker says so and ends, and its successor goes on."""
    stream.feed(EVENTS)
    with rig.worker(file_bytes=SMALL_FILE) as worker:
        expect_refusal(worker, "state directory", "cannot write")
    stream.feed(EVENTS)
    rig.drain()


def read_only(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Not even root can write into /sys."""
    stream.feed(EVENTS)
    rig.state("sys").symlink_to("/sys")
    with rig.worker("sys") as worker:
        expect_refusal(worker, "state directory", "give a writable one")
    rig.drain()


def broker_restarts(torture: Torture, rig: Rig, stream: Stream) -> None:
    """Apache Kafka is stopped and killed under a worker, which is killed as well."""
    kafka = rig.broker
    assert isinstance(kafka, ApacheKafka)  # the embedded one would forget everything
    with rig.worker() as worker:
        worker.wait_until_reading()
        for kill in (False, True):
            stream.feed(EVENTS)
            kafka.restart(kill=kill)
            stream.feed(EVENTS)
            if worker.process.poll() is not None:
                raise SameasError(f"the worker ended with the broker; see {worker.log}")
        worker.process.kill()
        torture.killed("after the broker's restarts")
    live_and_die(torture, rig, stream)
    rig.drain()


# ---------------------------------------------------------------------- helpers


def is_active(worker: WorkerProcess) -> bool:
    """Whether the last thing that the worker said of its role is that it has the partitions."""
    log = worker.log.read_text(errors="replace")
    return log.rfind(READS) > log.rfind(STANDS_BY)


def work_and_die(torture: Torture, rig: Rig, stream: Stream) -> None:
    """A worker that is killed when it has done and published everything."""
    stream.feed(EVENTS)
    with rig.worker() as worker:
        worker.wait_until_reading()
        worker.wait_until_done(behind(worker.log))
    torture.killed("all done")


def usable_or_refused(rig: Rig) -> None:
    """Drains on a damaged state, or sees it refused and drains on a new one. Wrong alignments show later."""
    with rig.worker() as worker:
        with contextlib.suppress(SameasError):
            worker.wait_until_reading()
        if wait(worker.process, 2.0) is None:
            worker.stop()
    if worker.process.returncode != 0:
        expect_refusal(worker, "state directory", "delete")
        rig.forget()
    rig.drain()


def reset_offsets(rig: Rig) -> None:
    """As `kafka-consumer-groups --reset-offsets --to-earliest --execute` does."""
    kafka, topics = rig.settings.kafka, rig.settings.topics
    consumer = KafkaConsumer(**client_options(kafka), group_id=kafka.group_id, enable_auto_commit=False)
    partitions = [TopicPartition(topic, 0) for topic in (topics.entities, topics.links)]
    consumer.assign(partitions)
    consumer.commit({tp: OffsetAndMetadata(0, "", -1) for tp in partitions})
    consumer.close()


def largest(rig: Rig, suffix: str) -> Path:
    files = sorted((rig.in_force() / "rocksdb").glob(f"*.{suffix}"), key=lambda file: file.stat().st_size)
    if not files:
        raise SameasError(f"no .{suffix} in {rig.state()}")
    return files[-1]
