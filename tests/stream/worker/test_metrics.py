"""What a worker counts for Prometheus."""

import os
from pathlib import Path

from prometheus_client import generate_latest

from stream.engine.interface import Batch, Counts, Dangling
from stream.worker.metrics import Metrics


def samples(metrics: Metrics) -> list[str]:
    return generate_latest(metrics.registry).decode().splitlines()


def test_messages_are_counted_by_topic_and_outcome() -> None:
    metrics = Metrics()
    for sequence in (1, 2):
        topics = {"a": Counts(6, 3, 2, 1, 2, "x", 3, "y", 4, "z"), "b": Counts(1, 1)}
        metrics.count(Batch(sequence, [], backlog=7, topics=topics, vectors=sequence * 5, aside=sequence))
    found = samples(metrics)
    for line in (
        'sameas_events_total{outcome="applied",topic="a"} 6.0',
        'sameas_events_total{outcome="stale",topic="a"} 4.0',
        'sameas_events_total{outcome="dead_lettered",topic="a"} 2.0',
        'sameas_events_total{outcome="applied",topic="b"} 2.0',
        'sameas_absent_deletes_total{topic="a"} 4.0',
        'sameas_absent_deletes_total{topic="b"} 0.0',
        'sameas_unread_cells_total{topic="a"} 6.0',
        'sameas_replaced_rows_total{topic="a"} 8.0',
        "sameas_index_vectors 10.0",
        "sameas_backlog_entities 7.0",
        "sameas_set_aside_entities 2.0",
    ):
        assert line in found


def test_the_state_is_as_large_as_its_files(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.measure_store(tmp_path)
    assert "sameas_store_bytes 0.0" in samples(metrics)
    (tmp_path / "generation-1").mkdir()
    (tmp_path / "generation-1" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "CURRENT").write_bytes(b"x")
    os.link(tmp_path / "generation-1" / "a", tmp_path / "b")  # as generations share files
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")  # a file that went meanwhile
    assert "sameas_store_bytes 1001.0" in samples(metrics)


def test_relations_that_lead_nowhere_have_a_bounded_number_of_series() -> None:
    metrics = Metrics()
    targets = {("s", f"r{number}"): 1000 - number for number in range(103)}
    metrics.dangle(Dangling({**targets, ("s", "x" * 500): 2000, ("s", "x" * 600): 1}, 3))
    found = [line for line in samples(metrics) if line.startswith("sameas_missing_targets{")]
    assert len(found) == 101
    assert 'sameas_missing_targets{relation="r0",source="s"} 1000.0' in found
    assert f'sameas_missing_targets{{relation="others",source=""}} {901 + 900 + 899 + 898 + 1}.0' in found
    assert f'sameas_missing_targets{{relation="{"x" * 100}",source="s"}} 2000.0' in found
    assert "sameas_dangling_verdicts 3.0" in samples(metrics)
    metrics.dangle(Dangling({}, 0, {("s", f"t{number}"): 1000 - number for number in range(102)}))
    found = [line for line in samples(metrics) if line.startswith("sameas_entities{")]
    assert len(found) == 101 and 'sameas_entities{source="s",type="t0"} 1000.0' in found
    assert f'sameas_entities{{source="",type="others"}} {900 + 899}.0' in found
    metrics.dangle(Dangling({("s", "a\x1b[2J\x9b"): 1}, 0))  # people read metrics, too
    assert 'sameas_missing_targets{relation="a�[2J�",source="s"} 1.0' in samples(metrics)
    metrics.dangle(Dangling({("s", "r0"): 1}, 0))
    assert [line for line in samples(metrics) if line.startswith("sameas_missing_targets{")] == [
        'sameas_missing_targets{relation="r0",source="s"} 1.0'
    ]
