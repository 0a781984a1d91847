"""`make soak`: what it sends, and when it fails."""

from collections import Counter
from itertools import islice

import pytest
from msgspec.structs import replace

from benchmarks.soak import LEAST_SPEED, MOST_GROWTH, Look, comings_and_goings, verdict
from stream.events import Delete

STEADY = [
    Look(60.0 * n, 60_000, 1000.0, 300.0, resident=100 << 20, caches=20 << 20, disk=0, alignments=5)
    for n in range(1, 11)
]


def test_the_graph_does_not_grow() -> None:
    events = list(islice(comings_and_goings(100), 4_000))
    names = {(event.source, event.id) for event in events}
    assert len(names) < 2.2 * 100
    assert names == {(event.source, event.id) for event in islice(comings_and_goings(100), 20_000)}
    kinds = Counter(type(event) for event in events)
    assert kinds[Delete] / len(events) == pytest.approx(0.1, abs=0.02)
    assert events == list(islice(comings_and_goings(100), 4_000))


def test_a_steady_run_passes() -> None:
    assert verdict(STEADY).passed
    assert verdict(STEADY[:1]).passed


def test_memory_that_grows_after_the_first_fifth_fails() -> None:
    growing = [replace(look, resident=look.resident + n * (5 << 20)) for n, look in enumerate(STEADY)]
    outcome = verdict(growing)
    assert outcome.growth == 40 << 20 and not outcome.passed
    first_minute = [replace(STEADY[0], resident=30 << 20), *STEADY[1:]]
    assert verdict(first_minute).passed


def test_caches_of_configured_size_may_fill() -> None:
    filling = [
        replace(look, resident=look.resident + n * MOST_GROWTH, caches=look.caches + n * MOST_GROWTH)
        for n, look in enumerate(STEADY)
    ]
    assert verdict(filling).growth == 0


def test_a_run_that_slows_down_fails() -> None:
    slow = [*STEADY[:8], *(replace(look, rate=look.rate * (LEAST_SPEED - 0.01)) for look in STEADY[8:])]
    outcome = verdict(slow)
    assert outcome.speed == pytest.approx(LEAST_SPEED - 0.01) and not outcome.passed
    in_between = [*STEADY[:4], replace(STEADY[4], rate=1.0), *STEADY[5:]]
    assert verdict(in_between).passed
