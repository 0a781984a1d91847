"""Kills and pauses real workers, and compares what they leave in the topics with an undisturbed run.

    python -m benchmarks.torture [-n KILLS] [--seed SEED] [--only SCENARIO] [--json FILE]

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

from benchmarks import scenarios, topics
from benchmarks.brokers import apache_kafka
from benchmarks.catalogues import train_small
from benchmarks.ordeal import Outcome, Scenario, Torture, kills, tell
from index.errors import SameasError
from stream.broker.embedded import embedded_broker
from stream.console import start_log

KILLS = 40

# What depends on the broker happens on both; Apache Kafka is the one that can do everything.
ON_BOTH: dict[str, Scenario] = {
    "kills": kills,
    "pauses": scenarios.pauses,
    "standby": scenarios.standby,
    "lost state": scenarios.lost_state,
    "old state, offsets reset": scenarios.old_state,
    "recreated inputs": topics.recreated_inputs,
    "recreated alignments": topics.recreated_alignments,
    "codecs": topics.codecs,
}
ON_EMBEDDED: dict[str, Scenario] = ON_BOTH | {
    "cut log": scenarios.cut_log,
    "flipped bits": scenarios.flipped_bits,
    "full disk": scenarios.full_disk,
    "read-only state": scenarios.read_only,
}
ON_APACHE: dict[str, Scenario] = ON_BOTH | {
    "added partitions": topics.added_partitions,
    "broker restarts": scenarios.broker_restarts,
}


def torture(
    checkpoint: Path, directory: Path, count: int, seed: int, only: Sequence[str] | None = None
) -> Outcome:
    """Everything.

    Args:
        checkpoint: the directory of a model of the small catalogues.
        directory: for states and logs.
        count: how many times a worker is killed on each broker, but for the scenarios' own kills.
        only: the names of scenarios; all by default.

    Raises:
        SameasError: a worker ended where it must not, or does not get done.
    """
    started = time.monotonic()
    run = Torture(checkpoint, directory, seed, count)
    for place, table, opened in (
        ("the embedded broker", ON_EMBEDDED, embedded_broker()),
        ("Apache Kafka", ON_APACHE, apache_kafka(directory / "kafka")),
    ):
        names = [name for name in table if only is None or name in only]
        if not names:
            continue
        with opened as broker:
            if broker is None:
                tell(f"skipped, as there is no {place} here: {'; '.join(names)}")
                continue
            for name in names:
                with run.scenario(f"{name} on {place}", broker) as (rig, stream):
                    table[name](run, rig, stream)
    run.outcome.seconds = round(time.monotonic() - started, 1)
    return run.outcome


def main() -> None:
    start_log()
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=KILLS, help=f"kills on each broker [{KILLS}]")
    parser.add_argument(
        "--seed", type=int, default=0, help="of what is sent and where workers are killed [0]"
    )
    parser.add_argument("--json", type=Path, help="where to write the outcome as well")
    parser.add_argument("--keep", type=Path, help="a directory for states and logs, kept for looking into")
    names = list(ON_EMBEDDED | ON_APACHE)
    parser.add_argument("--only", action="append", choices=names, help="a scenario; repeatable [all]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as scratch:
        directory = arguments.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        try:
            train_small(directory / "checkpoint")
            outcome = torture(
                directory / "checkpoint", directory, arguments.n, arguments.seed, arguments.only
            )
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
