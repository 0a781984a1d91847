"""Kills and pauses real workers, and compares what they leave in the topics with an undisturbed run.

    python -m benchmarks.torture [-n KILLS] [--seed SEED] [--json FILE]

The last line of the output says kills, events, lost and invented; the exit status is 0 when nothing was lost
or invented. The seed decides what is sent and where workers are killed; how far a worker got when a kill at a
random moment met it, nothing decides.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.catalogues import train_small
from benchmarks.ordeal import Outcome, Torture, kills, tell
from benchmarks.scenarios import APACHE_SCENARIOS, SCENARIOS, apache_kafka
from index.errors import SameasError
from stream.broker.embedded import embedded_broker
from stream.console import start_log

KILLS = 40


def torture(count: int, seed: int, directory: Path, only: Sequence[str] | None = None) -> Outcome:
    """Everything.

    Args:
        count: how many times a worker is killed, but for the scenarios' own kills.
        directory: for model, states and logs.
        only: the names of the scenarios besides the kills; all by default.

    Raises:
        SameasError: a worker ended where it must not, or does not get done.
    """
    started = time.monotonic()
    checkpoint = directory / "checkpoint"
    train_small(checkpoint)
    run = Torture(checkpoint, directory, seed)
    with embedded_broker() as broker:
        if count:
            kills(run, broker.address, count)
        for name in SCENARIOS if only is None else only:
            if name in SCENARIOS:
                with run.scenario(name, broker.address) as (rig, stream):
                    SCENARIOS[name](run, rig, stream)
    there = [name for name in APACHE_SCENARIOS if only is None or name in only]
    if there:
        with apache_kafka(directory / "kafka") as kafka:
            for name in there:
                if kafka is None:
                    tell(f"{name}: skipped, there is no Apache Kafka here")
                    continue
                with run.scenario(name, kafka.address) as (rig, stream):
                    APACHE_SCENARIOS[name](run, rig, stream, kafka)
    run.outcome.seconds = round(time.monotonic() - started, 1)
    return run.outcome


def main() -> None:
    start_log()
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=KILLS, help=f"kills [{KILLS}]")
    parser.add_argument(
        "--seed", type=int, default=0, help="of what is sent and where workers are killed [0]"
    )
    parser.add_argument("--json", type=Path, help="where to write the outcome as well")
    parser.add_argument("--keep", type=Path, help="a directory for states and logs, kept for looking into")
    parser.add_argument("--only", action="append", help="a scenario besides the kills; repeatable [all]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        directory = arguments.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            outcome = torture(arguments.n, arguments.seed, directory, arguments.only)
        except SameasError as error:
            sys.exit(f"torture: {error}")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")
    tell(f"kills by point: {json.dumps(outcome.points)}")
    print(
        f"kills {outcome.kills}, events {outcome.events}, lost {outcome.lost}, invented {outcome.invented} "
        f"({outcome.seconds:.0f} s, seed {arguments.seed})"
    )
    sys.exit(0 if outcome.passed else 1)


if __name__ == "__main__":
    main()
