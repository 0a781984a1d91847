"""Sends hostile messages through an aligner, and sees that each is accounted for and memory stays bounded.

    python -m benchmarks.fuzz [-n MESSAGES] [--seed SEED]

Honest messages come in between, and early one entity with 50,000 relations. The last line of the output says
what became of the messages and how far memory grew; the exit status is 0 when all is as it should be.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from benchmarks.catalogues import train_small
from benchmarks.chaos import Chaos, Input
from benchmarks.hostile import hostile
from benchmarks.speed.clocks import resident
from stream.console import start_log
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch, Counts
from stream.events import Cause, Message, Upsert
from stream.mapping.decoder import make_decoder

MESSAGES = 100_000
BATCH = 256
HUB = 50_000  # relations of one entity
HONEST_SHARE = 0.1
WARM_SHARE = 0.2  # of the messages: caches fill, and the hub's neighbours get their rows
MIB = 2**20
# MiB by which resident memory may ever exceed what it was then. Hostile ids come from small sets, so that the
# graph stays as large as it is; what grows with the number of messages is a leak.
GROWTH_BOUND = 150.0


class Report(msgspec.Struct):
    """What became of the messages; `dead_letters` by reason; memory in MiB."""

    counts: Counts
    dead_letters: dict[str, int]
    warm_mib: float
    peak_mib: float
    seconds: float

    @property
    def accounted(self) -> bool:
        """received = applied + stale + dead-lettered, and there are as many dead letters as were counted."""
        counts = self.counts
        outcomes = counts.applied + counts.stale + counts.dead_lettered
        return counts.received == outcomes and counts.dead_lettered == sum(self.dead_letters.values())

    @property
    def growth_mib(self) -> float:
        return self.peak_mib - self.warm_mib


def inputs(seed: int) -> Iterator[Input]:
    """For ever: hostile messages and some honest ones."""
    chance, honest = random.Random(seed), iter(Chaos(seed))
    while True:
        if chance.random() < HONEST_SHARE:
            yield next(honest)
        else:
            yield Input("links" if chance.random() < 0.1 else "entities", *hostile(chance))


def hub(relations: int) -> Input:
    """An entity that points at everything."""
    entity = Upsert("left", "hub", "film", {"title": "hub"}, {"in": [f"h{n}" for n in range(relations)]})
    return Input("entities", b"left:hub", msgspec.json.encode(entity))


def fuzz(count: int, seed: int, checkpoint: Path, state: Path, relations: int = HUB) -> Report:
    """Sends `count` messages, drains, and opens the state once more."""
    started = time.monotonic()
    decode = make_decoder({}, "entities", "links")
    aligner = Aligner(state, checkpoint, decode)
    totals, reasons = Counts(), Counter[str]()
    warm = peak = 0.0
    offsets = {"entities": 0, "links": 0}

    def take(batch: Batch) -> None:
        nonlocal totals
        totals += batch.counts
        letters = [output for output in batch.outputs if output.kind == "dead_letters"]
        reasons.update(dict(letter.headers)["reason"].decode() for letter in letters)
        aligner.published(batch.sequence)

    def message(made: Input) -> Message:
        cause = Cause(made.role, 0, offsets[made.role])
        offsets[made.role] += 1
        return Message(cause, made.key, made.value, float(cause.offset))

    source = islice(inputs(seed), count - 1)
    take(aligner.process([message(hub(relations))]))
    while batch := [message(made) for made in islice(source, BATCH)]:
        take(aligner.process(batch))
        peak = max(peak, resident() / MIB)
        if not warm and totals.received >= WARM_SHARE * count:
            while aligner.backlog:
                take(aligner.process([]))
            warm = peak = resident() / MIB
    while aligner.backlog:
        take(aligner.process([]))
    peak = max(peak, resident() / MIB)
    aligner.close()
    Aligner(state, checkpoint, decode).close()
    return Report(totals, dict(reasons.most_common()), warm, peak, time.monotonic() - started)


def main() -> None:
    start_log()
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("-n", type=int, default=MESSAGES, help=f"messages [{MESSAGES}]")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        train_small(Path(scratch) / "checkpoint")
        report = fuzz(arguments.n, arguments.seed, Path(scratch) / "checkpoint", Path(scratch) / "state")
    print(f"dead letters: {report.dead_letters}", file=sys.stderr)
    counts = report.counts
    print(
        f"received {counts.received} = applied {counts.applied} + stale {counts.stale} "
        f"+ dead-lettered {counts.dead_lettered}; memory {report.peak_mib:.0f} MiB, "
        f"{report.growth_mib:.0f} more than after the first fifth ({report.seconds:.0f} s)"
    )
    fine = report.accounted and report.growth_mib < GROWTH_BOUND and "failed" not in report.dead_letters
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
