"""Aligning whole catalogues without a broker."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from stream.atomic import read, refusals, write
from stream.broker.folding import fold
from stream.config import AlignSettings, ModelSettings, RecordSettings, Settings, StateSettings
from stream.engine.aligner import Aligner
from stream.engine.batches import batched
from stream.engine.interface import Batch, EvidenceDetail, Search
from stream.errors import ConfigError
from stream.events import AlignmentRecord, EntityEvent, Message
from stream.learning.workspace import BATCH
from stream.mapping.canonical import as_messages, decode_canonical
from stream.state.generations import Generations

MADE = "aligned.json"  # in a state that `align` left: when


def align(
    events: Iterable[EntityEvent],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
    search: Search = "exact",
    evidence: EvidenceDetail = "full",
    progress: Callable[[int], None] = lambda _: None,
    keep: Path | None = None,
) -> list[AlignmentRecord]:
    """The alignments of the graph that the events make, as a worker would leave them in its topic.

    Args:
        progress: is given the number of events so far.
        keep: where the state is left, in place of what a former call left there; None leaves none.

    Raises:
        ConfigError: something else is in the directory `keep`.
        StateError: `keep` cannot be written.
    """
    if keep is not None and keep.exists() and left_at(keep) is None and any(keep.iterdir()):
        raise ConfigError(f"--state {keep}: not what `sameas align` left there; name another directory")
    done = 0
    current: dict[bytes, AlignmentRecord] = {}
    decode = msgspec.json.Decoder(AlignmentRecord).decode
    beside = None if keep is None else keep.absolute().parent
    with refusals(keep or Path()), tempfile.TemporaryDirectory(prefix="sameas-", dir=beside) as directory:
        state = Path(directory) / "state"
        settings = Settings(
            state=StateSettings(dir=state),
            model=ModelSettings(dir=checkpoint, threshold=threshold),
            align=AlignSettings(one_to_one=one_to_one, search=search),
            records=RecordSettings(evidence=evidence),
        )
        generations = Generations(settings, decode_canonical)
        with closing(generations), closing(generations.open()) as aligner:
            for batch in drained(aligner, as_messages(events)):
                for output in batch.outputs:
                    if output.kind == "alignments":
                        fold(current, output.key, None if output.value is None else decode(output.value))
                aligner.published(batch.sequence)
                done += batch.counts.received
                progress(done)
        if keep is not None:
            write(state / MADE, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            if keep.exists():
                keep.rename(Path(directory) / "former")
            state.rename(keep)
    return sorted(current.values(), key=lambda record: (record.subject_id, record.object_id))


def kept_in(settings: Settings) -> Path:
    """Where `sameas align` leaves its state unless it is told: beside the worker's."""
    return settings.state.dir.parent / "aligned"


def left_at(state: Path) -> str | None:
    """When `align` left this state; None for any other directory. Raises StateError."""
    return read(state / MADE, str)


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
