"""Aligning whole catalogues without a broker."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from stream.broker.folding import fold
from stream.engine.aligner import Aligner
from stream.engine.batches import batched
from stream.engine.interface import Batch, Search
from stream.events import AlignmentRecord, EntityEvent, Message
from stream.learning.workspace import BATCH
from stream.mapping.canonical import as_messages, decode_canonical


def align(
    events: Iterable[EntityEvent],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
    search: Search = "exact",
    progress: Callable[[int], None] = lambda _: None,
) -> list[AlignmentRecord]:
    """The alignments of the graph that the events make, as a worker would leave them in its topic.

    Args:
        progress: is given the number of events so far.
    """
    done = 0
    current: dict[bytes, AlignmentRecord] = {}
    decode = msgspec.json.Decoder(AlignmentRecord).decode
    with tempfile.TemporaryDirectory(prefix="sameas-") as state:
        aligner = Aligner(
            Path(state),
            checkpoint,
            decode_canonical,
            one_to_one=one_to_one,
            threshold=threshold,
            search=search,
        )
        with closing(aligner):
            for batch in drained(aligner, as_messages(events)):
                for output in batch.outputs:
                    if output.kind == "alignments":
                        fold(current, output.key, None if output.value is None else decode(output.value))
                aligner.published(batch.sequence)
                done += batch.counts.received
                progress(done)
    return sorted(current.values(), key=lambda record: (record.subject_id, record.object_id))


def drained(aligner: Aligner, messages: Iterable[Message]) -> Iterator[Batch]:
    """Processes all messages, then the backlog until nothing waits."""
    backlog = 0
    for chunk in batched(messages, BATCH):
        batch = aligner.process(chunk, bulk=True)
        backlog = batch.backlog
        yield batch
    while backlog:
        batch = aligner.process([], bulk=True)
        backlog = batch.backlog
        yield batch
