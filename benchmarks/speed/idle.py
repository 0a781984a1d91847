"""What waiting costs: a worker and `sameas subscribe` without messages, beside plain consumers.

python -m benchmarks.speed.idle kafka-python|aiokafka BOOTSTRAP TOPIC    one of the plain consumers, for ever
"""

import asyncio
import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from kafka import KafkaConsumer

from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.report import Row
from benchmarks.speed.stream import ROLES, cpu_seconds
from stream.broker.embedded import embedded_broker
from stream.config import load_settings
from stream.demo.worker_process import worker_process

SETTLE_SECONDS = 15.0  # until fetches wait as long as they ever do
SECONDS = 20.0
GOAL, EMBEDDED_GOAL = 1.0, 3.0  # percent of a core
POLL_MS = 500


def measure(bench: Bench) -> list[Row]:
    """Percent of a core, all of them in the same seconds."""
    bootstrap = bench.options.bootstrap
    shares = in_child(idle, bench.new_state(), bench.model, bootstrap)
    goal = EMBEDDED_GOAL if bootstrap is None else GOAL
    row = partial(Row, "idle", unit="% of a core")
    return [row(what, share, at_most=goal if "sameas" in what else None) for what, share in shares.items()]


def idle(directory: Path, model: Path, bootstrap: str | None) -> dict[str, float]:
    """Starts them, waits until they are settled, and measures."""
    directory.mkdir()
    config = directory / "sameas.toml"
    config.touch()
    with contextlib.ExitStack() as stack:
        address = bootstrap or stack.enter_context(embedded_broker()).address
        prefix = f"idle-{uuid.uuid4().hex[:8]}"
        overrides = [
            f"kafka.bootstrap_servers={address}",
            f"kafka.group_id={prefix}",
            "kafka.session_timeout_seconds=6",  # the embedded broker's group joins take half of it
            f"state.dir={directory / 'state'}",
            f"model.dir={model}",
            *(f"topics.{role}={prefix}.{role}" for role in ROLES),
        ]
        topic = load_settings(config, {}, overrides).topics.alignments
        worker = stack.enter_context(worker_process(config, overrides, directory / "worker.log"))
        words = [word for setting in overrides for word in ("--set", setting)]
        pids = {
            "sameas run": worker.pid,
            "sameas subscribe": stack.enter_context(
                running("sameas_command", "subscribe", "--config", str(config), *words)
            ),
            "kafka-python alone": stack.enter_context(running(__name__, "kafka-python", address, topic)),
            "aiokafka alone": stack.enter_context(running(__name__, "aiokafka", address, topic)),
        }
        time.sleep(SETTLE_SECONDS)
        started, before = time.monotonic(), {what: cpu_seconds(pid) for what, pid in pids.items()}
        time.sleep(SECONDS)
        seconds = time.monotonic() - started
        return {what: 100 * (cpu_seconds(pid) - before[what]) / seconds for what, pid in pids.items()}


@contextlib.contextmanager
def running(*module: str) -> Iterator[int]:
    """The process id of a Python module with its arguments, which ends with the block."""
    with subprocess.Popen([sys.executable, "-m", *module], stdout=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def wait_with_kafka_python(address: str, topic: str) -> None:
    consumer = KafkaConsumer(topic, bootstrap_servers=address)
    while True:
        consumer.poll(timeout_ms=POLL_MS)


async def wait_with_aiokafka(address: str, topic: str) -> None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address)
    await consumer.start()
    await consumer.getone()


if __name__ == "__main__":
    client, *place = sys.argv[1:]
    if client == "kafka-python":
        wait_with_kafka_python(*place)
    else:
        asyncio.run(wait_with_aiokafka(*place))
