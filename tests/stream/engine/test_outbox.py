"""No output is lost between the commit that stores it and the broker."""

from pathlib import Path

import pytest

from index.store import Store
from stream.engine import outbox as module
from stream.engine.interface import Batch, Output
from stream.engine.outbox import Outbox

OUTPUT = Output("alignments", b"key", b"value")


def conclude(outbox: Outbox, *outputs: Output) -> int:
    sequence = outbox.next_sequence()
    outbox.conclude(Batch(sequence, [*outputs], backlog=0))
    return sequence


def sequences(outbox: Outbox) -> list[int]:
    return [batch.sequence for batch in outbox.pending()]


def test_what_is_not_known_to_be_published_is_there_after_a_crash(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        outbox = Outbox(store)
        assert [conclude(outbox, OUTPUT), conclude(outbox), conclude(outbox, OUTPUT)] == [1, 2, 3]
        outbox.published(1, {0: 17})
        assert sequences(outbox) == [3] and outbox.published_ends() == {0: 17}
    # closed without a commit: what was said of the first is forgotten, and it comes again
    with Store(tmp_path) as store:
        outbox = Outbox(store)
        assert sequences(outbox) == [1, 3] and outbox.published_ends() == {}
        assert next(outbox.pending()).outputs == [OUTPUT]
        outbox.published(3, {0: 18})
        assert conclude(outbox) == 4
    with Store(tmp_path) as store:
        outbox = Outbox(store)
        assert sequences(outbox) == [] and outbox.published_ends() == {0: 18}


def test_a_batch_that_is_rolled_back_brings_no_published_one_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        outbox = Outbox(store)
        conclude(outbox, OUTPUT)
        second = conclude(outbox, OUTPUT)
        outbox.published(1)
        store.rollback()
        assert sequences(outbox) == [1, second]
        outbox.rolled_back()
        assert sequences(outbox) == [second]


def test_outputs_without_messages_are_stored_in_batches_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OUTBOX_CHUNK", 2)
    with Store(tmp_path) as store:
        outbox = Outbox(store)
        conclude(outbox, OUTPUT)
        outbox.all_published()
        assert outbox.conclude_all(([OUTPUT, OUTPUT] for _ in range(5)), backlog=9) == 5
        assert [len(batch.outputs) for batch in outbox.pending()] == [4, 4, 2]
        assert {batch.backlog for batch in outbox.pending()} == {9} and sequences(outbox) == [2, 3, 4]
        outbox.all_published()
        assert outbox.conclude_all(iter(()), backlog=0) == 0
    with Store(tmp_path) as store:
        assert sequences(Outbox(store)) == []
