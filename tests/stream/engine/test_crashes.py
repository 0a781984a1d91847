"""Any batches, any pauses, any crash: the records are those of an undisturbed run over the same log."""

import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from benchmarks.chaos import Chaos
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch
from stream.events import Cause, Message
from stream.mapping.decoder import make_decoder

Records = dict[bytes, object]
DECODE = make_decoder({}, "entities", "links")


def log(seed: int, count: int) -> list[Message]:
    messages: list[Message] = []
    offsets = {"entities": 0, "links": 0}
    for made in islice(Chaos(seed), count):
        cause = Cause(made.role, 0, offsets[made.role])
        messages.append(Message(cause, made.key, made.value, float(len(messages))))
        offsets[made.role] += 1
    return messages


def fold(records: Records, batch: Batch) -> None:
    for output in batch.outputs:
        if output.kind == "alignments" and output.value is None:
            records.pop(output.key or b"", None)  # what is published again may be gone already
        elif output.kind == "alignments":
            records[output.key or b""] = msgspec.json.decode(output.value or b"")


def undisturbed(checkpoint: Path, state: Path, messages: Sequence[Message]) -> Records:
    records: Records = {}
    aligner = Aligner(state, checkpoint, DECODE)
    for start in range(0, len(messages), 256):
        fold(records, aligner.process(messages[start : start + 256]))
    while aligner.backlog:
        fold(records, aligner.process([]))
    aligner.close()
    return records


@pytest.mark.parametrize(("seed", "bulk"), [(2, 0.0), (4, 0.0), (11, 0.0), (3, 0.5), (7, 0.9)])
def test_crashes_and_pauses_end_like_an_undisturbed_run(
    checkpoint: Path, tmp_path: Path, seed: int, bulk: float
) -> None:
    """Seed 4: a pair that waits to be told that it is no candidate any more. Seed 2: evidence of a link."""
    chance, messages, records = random.Random(seed), log(seed, 500), Records()
    aligner, done = Aligner(tmp_path / "two", checkpoint, DECODE), 0
    while done < len(messages):
        size = chance.randint(1, 20)
        is_bulk = bulk > 0 and chance.random() < bulk
        batches = [aligner.process(messages[done : done + size], bulk=is_bulk)]
        done += size
        while aligner.backlog and chance.random() < 0.5:
            batches.append(aligner.process([], bulk=is_bulk))
        for batch in batches:
            fold(records, batch)
            aligner.published(batch.sequence)
        if chance.random() < 0.25:
            aligner._store.close()  # nothing is written any more, as by a kill
            aligner = Aligner(tmp_path / "two", checkpoint, DECODE)
            for batch in aligner.pending():
                fold(records, batch)
    while aligner.backlog:
        fold(records, aligner.process([]))
    aligner.close()
    assert records == undisturbed(checkpoint, tmp_path / "one", messages)
