"""A broker's topics, workers on them that may die, and the truth to compare the outcome with."""

import contextlib
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from benchmarks.brokers import ROOT, Broker
from benchmarks.chaos import Input
from benchmarks.mortal_worker import KILL_AT
from index.errors import SameasError
from stream.broker.connection import admin_client, client_options
from stream.broker.embedded import end_with_parent
from stream.broker.reading import as_message, read_bounds, read_topic
from stream.broker.topics import (
    delete_topics,
    ensure_topics,
    existing_partitions,
    identify,
    input_specs,
    worker_specs,
)
from stream.config import AlignSettings, KafkaSettings, ModelSettings, Settings, StateSettings, TopicSettings
from stream.demo.measuring import free_port
from stream.demo.worker_process import READS, WorkerProcess
from stream.engine.aligner import Aligner
from stream.engine.interface import Output
from stream.mapping.decoder import make_decoder
from stream.replay.run import Run
from stream.state.generations import read_current

SESSION_SECONDS = 3.0  # how long a killed worker keeps its place in the group
BATCH = 20  # messages; small, so that there is much to be killed between
DRAIN_ATTEMPTS = 3
SAY_SECONDS = 60.0
ROLES = ("entities", "links", "alignments", "alignment_events", "dead_letters")
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
REPAIR_SECONDS = 40.0  # a worker looks every ten seconds whether the topics are what they were
GONE_SECONDS = 30.0  # until a topic that was deleted is gone
REPLAY_SECONDS = 180.0

Records = dict[bytes, dict[str, Any]]  # the compacted alignments, but for their dates
Letter = tuple[str, int, int]  # topic, partition, offset


class Verdict(msgspec.Struct, frozen=True):
    """How the topics differ from the truth, in records and dead letters."""

    records: int  # that should be there
    lost: int  # should be there, and are not there or say something else
    invented: int  # should not be there, or say something else
    examples: list[str]

    @property
    def passed(self) -> bool:
        """Whether there is no difference."""
        return self.lost == self.invented == 0


class Rig:
    """One group, its topics, and a directory for states and logs.

    Args:
        checkpoint: the model's directory.
        directory: for states and logs.
        chance: chooses what each producer, the workers' too, compresses with.
    """

    def __init__(self, broker: Broker, checkpoint: Path, directory: Path, chance: random.Random) -> None:
        name = f"torture-{uuid.uuid4().hex[:8]}"
        self.broker = broker
        self.directory = directory
        self.settings = Settings(
            kafka=KafkaSettings(
                bootstrap_servers=broker.address, group_id=name, session_timeout_seconds=SESSION_SECONDS
            ),
            topics=msgspec.convert({role: f"{name}.{role}" for role in ROLES}, TopicSettings),
            state=StateSettings(dir=directory / "state"),
            model=ModelSettings(dir=checkpoint),
            align=AlignSettings(batch_size=BATCH),
        )
        ensure_topics(self.settings)
        (directory / "empty.toml").touch()
        self._chance = chance
        self._logs = 0
        self._first_letter = 0  # offset, of the dead letters that count

    def feed(self, inputs: Iterable[Input], partition: int | None = None) -> int:
        """Produces the records in order; their number.

        Args:
            partition: of all, if not that of their key.
        """
        codec = self._chance.choice(CODECS)
        producer = KafkaProducer(
            **client_options(self.settings.kafka),
            acks="all",
            compression_type=None if codec == "none" else codec,
        )
        sent = []
        try:
            for made in inputs:
                topic = getattr(self.settings.topics, made.role)
                sent.append(producer.send(topic, key=made.key, value=made.value, partition=partition))
            producer.flush(timeout=30)
        finally:
            producer.close(timeout=5)
        for future in sent:
            future.get(0)
        return len(sent)

    def recreate(self, role: str) -> None:
        """Deletes a topic and creates an empty one of its name."""
        specs = [spec for spec in worker_specs(self.settings) if spec.role == role]
        names = delete_topics(self.settings, specs)
        deadline = time.monotonic() + GONE_SECONDS
        while identify(self.settings, names):
            if time.monotonic() > deadline:
                raise SameasError(f"topic {names[0]} was deleted, and is still there")
            time.sleep(0.1)
        ensure_topics(self.settings, specs)

    def grow(self, role: str, partitions: int) -> None:
        """Adds partitions to a topic."""
        with admin_client(self.settings.kafka) as admin:
            admin.create_partitions({getattr(self.settings.topics, role): partitions})

    def compress(self, codec: str) -> None:
        """From now on the broker compresses all topics so; the embedded one takes no notice."""
        config = {"compression.type": "uncompressed" if codec == "none" else codec}
        topics = [spec.name for spec in worker_specs(self.settings)]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, config) for name in topics]
        with admin_client(self.settings.kafka) as admin:
            admin.alter_configs(resources, raise_on_unknown=False)

    def state(self, name: str = "one") -> Path:
        return self.directory / f"state-{name}"

    def in_force(self, name: str = "one") -> Path:
        """The aligner's part of a state directory."""
        generation = read_current(self.state(name))
        if generation is None:
            raise SameasError(f"no generation in {self.state(name)}")
        return self.state(name) / generation

    def start(
        self, name: str = "one", kill_at: str = "", file_bytes: int | None = None, user: int | None = None
    ) -> WorkerProcess:
        """A worker on the state directory of this name, perhaps not ready yet.

        Args:
            kill_at: "POINT:TIMES", see `mortal_worker`.
            file_bytes: no file can grow beyond this: a full disk.
            user: whose process it is.
        """
        self._logs += 1
        log = self.directory / f"{self._logs:03}-{name}.log"
        port = free_port()
        command = self._command("benchmarks.mortal_worker", "run", name, port=port)
        environment = _environment() | {KILL_AT: kill_at}

        def prepare() -> None:
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            if sys.platform == "linux":
                end_with_parent()

        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=self.directory,
                preexec_fn=prepare,
                user=user,
            )
        return WorkerProcess(process, f"127.0.0.1:{port}", log)

    @contextlib.contextmanager
    def worker(self, name: str = "one", **options: Any) -> Iterator[WorkerProcess]:
        """`start`, killed at the end of the block if it still lives."""
        worker = self.start(name, **options)
        try:
            yield worker
        finally:
            worker.process.kill()
            worker.process.wait()

    def drain(self, name: str = "one") -> None:
        """Runs a worker until it has applied everything and nothing waits, and makes sure of it in its state.

        Raises:
            SameasError: it does not get there.
        """
        ends = {tp: end for tp, (_, end) in self._bounds().items()}
        for _ in range(DRAIN_ATTEMPTS):
            with self.worker(name) as worker:
                worker.wait_until_reading()
                worker.wait_until_done(behind(worker.log))
                wait_for(worker, "(is|was not) what this state says")  # also of what a predecessor wrote
                worker.stop()
            aligner = self.open_aligner(self.in_force(name))
            try:
                done = all((aligner.origin.next_offset(*tp) or 0) == end for tp, end in ends.items())
                if done and aligner.backlog == 0 and not list(aligner.pending()):
                    return
            finally:
                aligner.close()
        raise SameasError(
            f"the worker said that it was done, and {self.state(name)} is not; see {worker.log}"
        )

    def replay(self) -> Settings:
        """Runs `sameas replay` over the topics; the settings with those that it writes."""
        run = Run(self.settings, self.settings.kafka.group_id)
        log = self.directory / "replay.log"
        command = [*self._command("sameas_command", "replay"), "--run", run.name, "--execute"]
        with log.open("wb") as output:
            try:
                done = subprocess.run(
                    command, stdout=output, stderr=output, env=_environment(), timeout=REPLAY_SECONDS
                )
            except subprocess.TimeoutExpired:
                raise SameasError(f"the replay is not done after {REPLAY_SECONDS:.0f} s; see {log}") from None
        if done.returncode != 0:
            raise SameasError(f"the replay ended with status {done.returncode}; see {log}")
        return run.settings

    def verdict(self, outputs: Settings | None = None) -> Verdict:
        """Compares the topics with an undisturbed run over the same log.

        Args:
            outputs: whose topics have the alignments and dead letters; the worker's if not given.
        """
        topics = (outputs or self.settings).topics
        found: Records = {}
        for record in read_topic(self.settings, topics.alignments):
            _fold(found, record.key, record.value)
        letters = {
            _origin(dict(record.headers))
            for record in read_topic(self.settings, topics.dead_letters, start=self._first_letter)
        }
        truth, refused = self.truth()
        wrong = sorted(key for key in truth.keys() & found.keys() if truth[key] != found[key])
        missing, surplus = sorted(truth.keys() - found.keys()), sorted(found.keys() - truth.keys())
        return Verdict(
            len(truth),
            len(missing) + len(wrong) + len(refused - letters),
            len(surplus) + len(wrong) + len(letters - refused),
            [
                *(f"missing {key!r}" for key in missing[:3]),
                *(f"surplus {key!r}" for key in surplus[:3]),
                *(f"{key!r} is {found[key]}, should be {truth[key]}" for key in wrong[:3]),
                *(f"no dead letter for {letter}" for letter in sorted(refused - letters)[:3]),
                *(f"dead letter for {letter}" for letter in sorted(letters - refused)[:3]),
            ],
        )

    def repaired(self) -> None:
        """Returns when running workers have made the topics what they should be, or when time is up."""
        deadline = time.monotonic() + REPAIR_SECONDS
        while time.monotonic() < deadline and not self.verdict().passed:
            time.sleep(1)

    def truth(self) -> tuple[Records, set[Letter]]:
        """What the log comes to without any disturbance: the records, and what is dead-lettered."""
        records: Records = {}
        letters: set[Letter] = set()

        def take(outputs: Iterable[Output]) -> None:
            for output in outputs:
                if output.kind == "alignments":
                    _fold(records, output.key, output.value)
                elif output.kind == "dead_letters":
                    letters.add(_origin(dict(output.headers)))

        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            aligner = self.open_aligner(Path(scratch) / "state")
            try:
                log = [
                    as_message(record)
                    for spec in input_specs(self.settings)
                    for record in read_topic(self.settings, spec.name)
                ]
                for start in range(0, len(log), 256):
                    take(aligner.process(log[start : start + 256]).outputs)
                while aligner.backlog:
                    take(aligner.process([]).outputs)
            finally:
                aligner.close()
        return records, letters

    def open_aligner(self, state: Path) -> Aligner:
        """An aligner in this process."""
        topics = self.settings.topics
        decode = make_decoder({}, topics.entities, topics.links)
        return Aligner(state, self.settings.model.dir, decode)

    def forget(self, name: str = "one") -> None:
        """Deletes a state directory."""
        shutil.rmtree(self.state(name), ignore_errors=True)

    def expect_new_letters(self) -> None:
        """Dead letters count from now on: those before are of messages which are in no topic any more."""
        letters = self.settings.topics.dead_letters
        [(_, self._first_letter)] = read_bounds(self.settings, [(letters, 0)]).values()

    def _bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        counts = existing_partitions(self.settings, input_specs(self.settings))
        return read_bounds(
            self.settings, [(topic, number) for topic, count in counts.items() for number in range(count)]
        )

    def _command(self, module: str, verb: str, name: str = "one", port: int | None = None) -> list[str]:
        """A command line with the settings of the state directory of this name, and a codec by chance."""
        kafka, topics = self.settings.kafka, self.settings.topics
        overrides = {
            **{f"topics.{role}": getattr(topics, role) for role in ROLES},
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": kafka.group_id,
            "kafka.session_timeout_seconds": kafka.session_timeout_seconds,
            "kafka.compression_type": self._chance.choice(CODECS),
            "state.dir": self.state(name),
            "model.dir": self.settings.model.dir,
            "align.batch_size": BATCH,
            **({} if port is None else {"metrics.port": port}),
        }
        config = str(self.directory / "empty.toml")
        command = [sys.executable, "-m", module, verb, "--config", config]
        return command + [word for item in overrides.items() for word in ("--set", "{}={}".format(*item))]


def wait_for(worker: WorkerProcess, words: str, times: int = 1) -> None:
    """Until the worker has said this so many times. Raises SameasError if it does not in time."""
    for _ in range(int(SAY_SECONDS * 10)):
        if said(worker, words) >= times:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(0.1)
            break
    raise SameasError(f"the worker did not say {words!r}; see {worker.log}")


def said(worker: WorkerProcess, words: str) -> int:
    """How many times the worker has said this, or what else the pattern stands for."""
    return len(re.findall(words, worker.log.read_text(errors="replace")))


def behind(log: Path) -> int:
    """With how many messages to read a worker began, from its own words."""
    found = re.findall(rf"(\d+) {READS}", log.read_text(errors="replace"))
    return int(found[-1]) if found else 0


def _environment() -> dict[str, str]:
    """For a child: this one's, without settings."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SAMEAS_")}
    return environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def _fold(records: Records, key: bytes | None, value: bytes | None) -> None:
    if value is None:
        records.pop(key or b"", None)
    else:
        record = msgspec.json.decode(value)
        record.pop("mapping_date")
        records[key or b""] = record


def _origin(headers: dict[str, bytes]) -> Letter:
    return headers["topic"].decode(), int(headers["partition"]), int(headers["offset"])
