"""The figures that the demo reports, and the delays from event to alignment."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from stream.broker.reading import read_topic
from stream.config import Settings
from stream.demo.listener import Heard


class Figures(msgspec.Struct, frozen=True):
    """What `--report` writes. Quality is on the test part of the withheld answers, after the second act.

    `entities` were fed in both acts; `entities_per_second` is the first act's, from the first event fed to
    the last alignment published. `p50_ms` and `p99_ms` are the second act's, from the broker's time stamp of
    an event to the arrival of the first alignment event it caused. `aligned`, `revised` and `withdrawn` count
    alignment events of both acts. `peak_rss_mb` is MiB of demo, worker and broker together.
    """

    f1: float
    precision: float
    recall: float
    retrieval_recall: float
    prauc: float
    training_links: int
    test_links: int
    entities: int
    entities_per_second: float
    p50_ms: float | None  # None: no change led to an alignment
    p99_ms: float | None
    aligned: int
    revised: int
    withdrawn: int
    seconds: float
    peak_rss_mb: float


@dataclass(frozen=True)
class Act:
    """One act: events fed, seconds until all outcomes were published, alignment events heard."""

    events: int
    seconds: float
    heard: list[Heard]

    def count(self, event: str) -> int:
        """How many alignment events were `aligned`, `revised` or `withdrawn`."""
        return sum(heard.event == event for heard in self.heard)


def delays(settings: Settings, act: Act, first_offset: int) -> Iterator[float]:
    """Milliseconds from the broker's time stamp of each event to its first alignment event.

    Events count from `first_offset` on. Later alignment events that an event caused do not count.
    """
    stamps = {
        (record.topic, record.partition, record.offset): record.timestamp
        for record in read_topic(settings, settings.topics.entities, start=first_offset)
    }
    for heard in act.heard:
        stamp = None if heard.cause is None else stamps.pop(msgspec.structs.astuple(heard.cause), None)
        if stamp is not None:
            yield heard.arrival * 1000 - stamp
