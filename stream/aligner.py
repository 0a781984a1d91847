"""The way of one event, in twelve steps. The first module to read.

     1  decode and validate, or dead-letter                        `Inbox`
     2  drop what is stale                                         `Inbox`
     3  write entity and adjacency to the graph store              `Inbox`
     4  find what else this change makes stale                     `Inbox`, `Retrieval`
     5  resample neighbourhoods and embed                          `Retrieval`
     6  update the index                                           `CandidatePairs.update`
     7  retrieve candidates both ways                              `CandidatePairs.update`
     8  confirm with the attention model                           `Scoring`
     9  decide                                                     `Deciding.decide`
    10  store outcome, outbox and offset in one atomic write       `process`
    11  publish                                                    the caller
    12  commit                                                     the caller, then `published`

Nothing here knows of Kafka: messages go in and outputs come out, so that the worker, `align`, `replay`,
tests and benchmarks run the same code.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from index import store as tables
from index.candidates import CandidateOptions
from index.graph import GraphStore, node_key
from index.store import Store, StoreError
from model.checkpoint import Model, load_model
from stream import snapshot
from stream.backlog import Backlog
from stream.deciding import Deciding
from stream.errors import ModelError, StateError
from stream.events import Message
from stream.inbox import Inbox
from stream.interface import Batch, Counts, Decoder, LinkChange, Output
from stream.links import LinkStore
from stream.records import Records
from stream.retrieval import VIEWS, Found, Retrieval
from stream.scoring import Scoring

IDLE_EVALUATIONS = 256  # entities that a call without messages evaluates again
IDLE_PAIRS = 2048  # waiting pairs that it scores
SNAPSHOT = "lists"  # directory in the state
BACKLOG_SHARE = 8  # with messages, one waiting pair is scored for so many that the messages changed


class Aligner:
    """Applies messages to the local state and says what became of the alignments. Knows nothing of Kafka.

    Not thread-safe: one thread owns it.

    Args:
        state: the state directory, created if missing.
        checkpoint: the model's directory.
        decode: what a message means.
        one_to_one: each entity at most once per pair of sources.
        threshold: the least confidence of an alignment, 0 to 1; None takes the model's.

    Raises:
        StateError: in use by another process, corrupt, or written by another schema or model.
        ModelError: no usable model in `checkpoint`.
    """

    def __init__(
        self,
        state: Path,
        checkpoint: Path,
        decode: Decoder,
        *,
        one_to_one: bool = True,
        threshold: float | None = None,
    ) -> None:
        self.model_id, model = load_model(checkpoint)
        try:
            self._store = Store(state)
        except StoreError as error:
            raise StateError(str(error)) from error
        try:
            threshold = model.threshold if threshold is None else threshold
            self._settings = f"model {self.model_id}, threshold {threshold:g}, one_to_one {one_to_one}"
            self._claim(self._settings)
            self._graph = GraphStore(self._store)
            self._links = LinkStore(self._store)
            self._inbox = Inbox(self._store, self._graph, self._links, decode)
            self._deciding = Deciding(self._store, threshold, one_to_one=one_to_one)
            encoder = model.encoder
            self._retrieval = Retrieval(self._graph, encoder, candidate_options(model))
            self._scoring = Scoring(self._retrieval, encoder, model.scorer())
            self._records = Records(
                self._store,
                self._graph,
                self._links,
                self._deciding,
                self._retrieval,
                self._scoring,
                self.model_id,
            )
            self._backlog = Backlog(self._store)
            self._retrieval.fill_rows(self._backlog.entities)
            self._retrieval.fill_lists(
                snapshot.load(
                    state / SNAPSHOT,
                    self._settings,
                    self._retrieval.options,
                    lambda nodes: self._retrieval.table.slots(nodes.tolist()),
                )
            )
        except BaseException:
            self._store.close()
            raise
        self._sequence = max((batch.sequence for batch in self.pending()), default=0)

    def _claim(self, settings: str) -> None:
        """A state directory belongs to the settings it was made with: its scores rest on them."""
        key = tables.META + b"settings"
        found = self._store.get(key)
        if found is None:
            self._store.put(key, settings.encode())
            self._commit()
        elif found.decode() != settings:
            raise StateError(
                f"state directory {self._store.path} was made with {found.decode()}, not {settings}; "
                "give another directory, or delete this one to rebuild it from the topics"
            )

    @property
    def backlog(self) -> int:
        """Entities that wait for re-evaluation, and entities with pairs that wait for their score."""
        return len(self._backlog)

    def pending(self) -> Sequence[Batch]:
        """Batches that were stored but not confirmed as published: what a crash left. Publish them first."""
        decode = msgspec.msgpack.Decoder(Batch).decode
        return [decode(value) for _, value in self._store.scan(tables.OUTBOX)]

    def process(self, messages: Sequence[Message]) -> Batch:
        """Steps 1 to 10 for a micro-batch, in the order given. An empty batch works on the backlog."""
        received = self._inbox.receive(messages)
        backlog = self._backlog

        waiting = backlog.newest(0 if messages else IDLE_EVALUATIONS, without=received.touched)
        nodes = [*received.touched, *waiting]
        forced = {*received.after, *(backlog.unsure & set(nodes))}
        found, stale = self._retrieval.evaluate(nodes, received.after, forced)
        backlog.evaluated(nodes)
        for node in stale:
            backlog.evaluate(node, self._retrieval.neighbourhood_of(node))

        # what the messages changed is scored now; what they moved elsewhere waits and coalesces
        due: list[Found] = []
        for part in found:
            direct, indirect = self._retrieval.split(part, received.after)
            due.append(direct)
            backlog.score(indirect, self._retrieval.table)
        share = sum(len(part.pairs.left) for part in due) // BACKLOG_SHARE if messages else IDLE_PAIRS
        due.extend(backlog.scored(share, self._retrieval.table))

        linked = dict.fromkeys([*received.links, *self._links.around(received.after)])
        decisions = self._deciding.decide(self._scoring.score(due), self._links.in_force(linked, self._graph))
        outputs = received.dead_letters + self._records.outputs(decisions)

        self._sequence += 1
        batch = Batch(self._sequence, outputs, received.counts, len(backlog))
        if outputs:
            self._store.put(tables.OUTBOX + node_key(batch.sequence), msgspec.msgpack.encode(batch))
        self._commit()
        return batch

    def _commit(self) -> None:
        try:
            self._store.commit()
        except StoreError as error:
            raise StateError(str(error)) from error

    def published(self, sequence: int) -> None:
        """Everything up to this batch is in the broker; its outbox goes with the next commit."""
        for key, _ in self._store.scan(tables.OUTBOX):
            if int.from_bytes(key[1:], "big") > sequence:
                break
            self._store.delete(key)

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The offset after the last applied one, None if nothing of this partition was applied."""
        return self._inbox.next_offset(topic, partition)

    def close(self) -> None:
        """Writes what is pending and releases the state directory."""
        try:
            self._commit()
            order = self._retrieval.table.rows["node"]
            snapshot.save(self._store.path / SNAPSHOT, self._settings, self._retrieval.lists, order)
        finally:
            self._store.close()


def candidate_options(model: Model) -> CandidateOptions:
    """How candidates were made when the model was trained.

    Raises:
        ModelError: trained with other views than this version has.
    """
    if model.options.get("views") != list(VIEWS):
        raise ModelError(
            f"the model was trained with views {model.options.get('views')}, this version has {list(VIEWS)}; "
            "train it again with `sameas train`"
        )
    return CandidateOptions(int(model.options["k"]), tuple(model.options["floors"]))


__all__ = ["Aligner", "Batch", "Counts", "Decoder", "LinkChange", "Output"]
