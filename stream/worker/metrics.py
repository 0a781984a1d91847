"""Prometheus metrics of a worker."""

import contextlib
import os
import time
from collections import Counter as Counted
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from stream.console import printable
from stream.engine.interface import Batch, Dangling
from stream.events import TOOL_VERSION

disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series

MAX_SERIES = 100  # of the relations, and of the types, those with a series of their own
MAX_LABEL_CHARS = 100
OTHERS = ("", "others")


class Metrics:
    """The worker's numbers; base units, no entity ids as labels."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter(
            "sameas_events",
            "Input messages by what became of them",
            ["topic", "outcome"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "sameas_dead_letters", "Dead letters by reason", ["reason"], registry=registry
        )
        self.absent = Counter(
            "sameas_absent_deletes", "Deletions of what never came", ["topic"], registry=registry
        )
        self.unread = Counter(
            "sameas_unread_cells",
            "Filled cells that a path or a type could not read",
            ["topic"],
            registry=registry,
        )
        self.replaced = Counter(
            "sameas_replaced_rows",
            "Rows in the place of which the row of another table came, with the same key",
            ["topic"],
            registry=registry,
        )
        self.lost = Counter(
            "sameas_lost_messages",
            "Messages, at most, that the broker removed before they were read, since the state was begun",
            ["topic", "partition"],
            registry=registry,
        )
        self.alignments = Counter(
            "sameas_alignments", "Alignment records written, by decision", ["decision"], registry=registry
        )
        self.strays = Counter(
            "sameas_stray_records",
            "Records in partitions of the alignment topic where their keys do not belong, withdrawn there",
            registry=registry,
        )
        self.refused = Counter(
            "sameas_refused_outputs",
            "Outputs too large for their topic, which went out smaller or not at all",
            ["topic"],
            registry=registry,
        )
        self.stage = Histogram(
            "sameas_stage_duration_seconds", "Time per micro-batch", ["stage"], registry=registry
        )
        self.freshness = Gauge(
            "sameas_freshness_seconds",
            "Age of the last message when its outcome was published",
            registry=registry,
        )
        self.lag = Gauge(
            "sameas_consumer_lag_records",
            "Messages not yet applied",
            ["topic", "partition"],
            registry=registry,
        )
        self.backlog = Gauge(
            "sameas_backlog_entities", "Entities whose re-evaluation waits", registry=registry
        )
        self.vectors = Gauge("sameas_index_vectors", "Vectors in the candidate indexes", registry=registry)
        self.store = Gauge(
            "sameas_store_bytes", "Bytes of the files in the state directory", registry=registry
        )
        self.evaluations = Counter(
            "sameas_evaluations",
            "Entities whose neighbourhood and candidates were looked at; by events, re-evaluations an event",
            registry=registry,
        )
        self.reloads = Counter(
            "sameas_state_reloads",
            "Times that the state was read anew because processing failed",
            registry=registry,
        )
        self.aside = Gauge(
            "sameas_set_aside_entities",
            "Entities that cannot be evaluated, and count as if they did not exist",
            registry=registry,
        )
        self.build_info = Gauge(
            "sameas_build_info",
            "1 for the version and the model in force",
            ["version", "model"],
            registry=registry,
        )
        self.recall = Gauge(
            "sameas_retrieval_recall",
            "Share of the nearest that an exhaustive search finds which are candidates, in a sample",
            ["view"],
            registry=registry,
        )
        self.missing_targets = Gauge(
            "sameas_missing_targets",
            "Entities that a relation points at and that do not exist",
            ["source", "relation"],
            registry=registry,
        )
        self.entities = Gauge("sameas_entities", "Entities that exist", ["source", "type"], registry=registry)
        self.dangling_verdicts = Gauge(
            "sameas_dangling_verdicts", "Verdicts on an entity that does not exist", registry=registry
        )
        self.promotion = Gauge(
            "sameas_promotion_backlog_entities",
            "Entities that wait in the generation that is being built",
            registry=registry,
        )
        self.promotion_refused = Gauge(
            "sameas_promotion_refused",
            "1 while what is wanted is not in force because it was refused",
            registry=registry,
        )
        self.promotions = Counter(
            "sameas_promotions", "New generations by what became of them", ["outcome"], registry=registry
        )

    def in_force(self, model: str) -> None:
        """This model serves from now on."""
        self.build_info.clear()
        self.build_info.labels(TOOL_VERSION, model).set(1)

    def lose(self, lost: Mapping[tuple[str, int], int]) -> None:
        """By topic and partition how many messages are lost in all."""
        self.lost.clear()
        for (topic, partition), count in lost.items():
            self.lost.labels(topic, str(partition)).inc(count)

    def dangle(self, found: Dangling) -> None:
        """What leads to entities that do not exist, and how many there are."""
        _show_most(self.missing_targets, found.targets)
        _show_most(self.entities, found.entities)
        self.dangling_verdicts.set(found.verdicts)

    def measure_store(self, directory: Path) -> None:
        """This is the state directory; its size is taken at every request for metrics."""
        self.store.set_function(lambda: bytes_in(directory))

    def count(self, batch: Batch) -> None:
        """A published batch."""
        for topic, counts in batch.topics.items():
            for outcome in ("applied", "stale", "dead_lettered"):
                self.events.labels(topic, outcome).inc(getattr(counts, outcome))
            self.absent.labels(topic).inc(counts.absent)
            self.unread.labels(topic).inc(counts.unread)
            self.replaced.labels(topic).inc(counts.replaced)
        for output in batch.outputs:
            if output.kind == "alignments":
                self.alignments.labels("withdrawn" if output.value is None else "aligned").inc()
            elif output.kind == "dead_letters":
                reason = dict(output.headers).get("reason", b"unknown").decode()
                self.dead_letters.labels(reason).inc()
        for stage, seconds in batch.stages.items():
            self.stage.labels(stage).observe(seconds)
        self.evaluations.inc(batch.evaluations)
        self.reloads.inc(batch.reloads)
        self.aside.set(batch.aside)
        self.backlog.set(batch.backlog)
        self.vectors.set(batch.vectors)

    def timed(self, stage: str, started: float) -> None:
        """A stage that began at `started` (time.monotonic) ended now."""
        self.stage.labels(stage).observe(time.monotonic() - started)


def _show_most(gauge: Gauge, counts: Mapping[tuple[str, str], int]) -> None:
    """By source and name. Beyond `MAX_SERIES` those with few are one series."""
    shown: Counted[tuple[str, str]] = Counted()
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for number, ((source, name), count) in enumerate(ordered):
        is_shown = number < MAX_SERIES
        shown[(source, printable(name[:MAX_LABEL_CHARS])) if is_shown else OTHERS] += count
    gauge.clear()
    for labels, count in shown.items():
        gauge.labels(*labels).set(count)


def bytes_in(directory: Path) -> int:
    """What the files of a directory take. Those with several links, as generations share them, count once.

    Some may go meanwhile.
    """
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                file = Path(folder, name).stat()
                sizes[file.st_dev, file.st_ino] = file.st_size
    return sum(sizes.values())
