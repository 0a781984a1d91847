"""The way of one event, in twelve steps. The first module to read.

     1  decode and validate, or dead-letter                        `Inbox`
     2  drop what is stale                                         `Inbox`
     3  write entity and adjacency to the graph store              `Inbox`
     4  find what else this change makes stale                     `Inbox`, `Embedding`
     5  resample neighbourhoods and embed                          `Embedding`
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

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec

from index import tables
from index.entity import node_key, node_of
from index.errors import StateError, StoreError
from index.graph import GraphStore
from index.store import Store
from model.checkpoint import load_model
from stream.changes import Decoder
from stream.engine import memory, snapshot
from stream.engine.backlog import Backlog
from stream.engine.batches import batched
from stream.engine.deciding import Deciding
from stream.engine.embedding import Embedding
from stream.engine.explaining import Explaining, Explanation
from stream.engine.inbox import NO_POISON, Inbox
from stream.engine.interface import Batch, Counts, Laps, Search
from stream.engine.links import LinkStore
from stream.engine.outbox import OUTBOX_CHUNK, PUBLISHED_ENDS
from stream.engine.pairs import Found
from stream.engine.parts import SNAPSHOT, candidate_options
from stream.engine.recipe import settings_of
from stream.engine.records import Records
from stream.engine.retrieval import Retrieval
from stream.engine.scoring import Scoring
from stream.engine.turn import (
    BACKLOG_EVALUATIONS,
    BACKLOG_SHARE,
    BULK_EVALUATIONS,
    BULK_PAIRS,
    BULK_ROWS,
    HUB_SHARE,
    IDLE_EVALUATIONS,
    IDLE_HUB,
    IDLE_PAIRS,
)
from stream.errors import InvalidInput
from stream.events import Cause, Message

EVALUATION_CHUNK = 4096  # entities evaluated together: about 100 MB
SNAPSHOT_SHARE = 8  # in quiet it is written anew when one in so many entities was evaluated since

RECALL_SAMPLE = 32  # entities of each side of every type whose candidates are compared with an exact search

_log = logging.getLogger("sameas")


class Aligner:
    """Applies messages to the local state and says what became of the alignments. Knows nothing of Kafka.

    Not thread-safe: one thread owns it.

    Args:
        state: the state directory, created if missing.
        checkpoint: the model's directory.
        decode: what a message means.
        one_to_one: each entity at most once per pair of sources.
        threshold: the least confidence of an alignment, 0 to 1; None takes the model's.
        search: "cells" looks for candidates among those that share cells, "exact" among all.
        read_only: nothing is processed, nothing is written; another process may have the state.

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
        search: Search = "exact",
        read_only: bool = False,
    ) -> None:
        self.model_id, model = load_model(checkpoint)
        try:
            self._store = Store(state, read_only=read_only)
        except StoreError as error:
            raise StateError(str(error)) from error
        try:
            threshold = model.threshold if threshold is None else threshold
            self._settings = settings_of(self.model_id, threshold, one_to_one, search)
            self._claim(self._settings)
            self._model = model
            self._decode = decode
            self._threshold = threshold
            self._one_to_one = one_to_one
            self._search = search
            self._load()
            self._unpublished = deque(batch.sequence for batch in self.pending())
            self._sequence = max(self._unpublished, default=0)
            memory.settle()
        except BaseException as error:
            self._store.close()
            if isinstance(error, StoreError):
                raise StateError(str(error)) from error
            raise

    def _load(self) -> None:
        """Everything that is in memory, from the store."""
        self._graph = GraphStore(self._store)
        self._links = LinkStore(self._store)
        self._inbox = Inbox(self._store, self._graph, self._links, self._decode)
        self._deciding = Deciding(self._store, self._threshold, one_to_one=self._one_to_one)
        self._backlog = Backlog(self._store)
        if self._backlog.is_doubtful:
            self._backlog.doubt(node for node, entity in self._graph.scan() if not entity.deleted)
        encoder = self._model.encoder
        options = candidate_options(self._model)
        self._embedding = Embedding(self._graph, encoder, options.floors, cells=self._search == "cells")
        self._retrieval = Retrieval(self._embedding, options)
        self._scoring = Scoring(self._embedding, self._retrieval, encoder, self._model.scorer)
        self._records = Records(
            self._store,
            self._graph,
            self._links,
            self._deciding,
            self._embedding,
            self._scoring,
            self.model_id,
        )
        saved = snapshot.load(self._store.path / SNAPSHOT, self._settings, options, self._retrieval.indexes)
        rows, lists = (None, None) if saved is None else saved
        self._unsaved = self._embedding.fill(self._backlog.entities, rows)  # entities that the snapshot lacks
        self._retrieval.fill(lists)
        self._is_whole = True  # no batch was left half-way

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

    @property
    def waiting_pairs(self) -> int:
        """Pairs that wait for their score."""
        return self._backlog.pairs

    @property
    def evaluations(self) -> int:
        """Entities evaluated since the start, again ones included."""
        return self._retrieval.evaluated

    def pending(self) -> Iterator[Batch]:
        """Batches that were stored but not confirmed as published: what a crash left. Publish them first."""
        decode = msgspec.msgpack.Decoder(Batch).decode
        return (decode(value) for _, value in self._store.scan(tables.OUTBOX))

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        """Steps 1 to 10 for a micro-batch, in the order given. An empty batch works on the backlog.

        Args:
            bulk: nobody waits for this batch in particular. Whatever may wait does, so that an entity is
                evaluated and a pair is scored after the last message that changes it and not after every
                one; the backlog is taken in big bites.

        Should a message make processing fail, everything is as if the batch had never been; then each
        message is tried alone, and the one that fails again becomes a dead letter.

        Raises:
            StateError: the outcome cannot be stored.
        """
        try:
            return self._process(messages, bulk=bulk)
        except StateError:
            raise
        except StoreError as error:  # not the message's fault
            raise StateError(str(error)) from error
        except Exception as error:
            if not messages:
                raise
            _log.warning("a batch of %d failed, trying its messages alone: %r", len(messages), error)
            self._store.rollback()
            self._load()
            for batch in list(self.pending()):  # to be deleted with the batch that was rolled back
                if batch.sequence not in self._unpublished:
                    self._store.delete(tables.OUTBOX + node_key(batch.sequence))
            poison = InvalidInput("failed", f"{type(error).__name__}: {error}")
        if len(messages) == 1:
            return self._process(messages, {messages[0].cause: poison}, bulk=bulk)
        batches = [self.process([message], bulk=bulk) for message in messages]
        topics: defaultdict[str, Counts] = defaultdict(Counts)
        for batch in batches:
            for topic, counts in batch.topics.items():
                topics[topic] += counts
        return Batch(
            batches[-1].sequence,
            [output for batch in batches for output in batch.outputs],
            batches[-1].backlog,
            topics,
            evaluations=sum(batch.evaluations for batch in batches),
            searched=batches[-1].searched,
            vectors=batches[-1].vectors,
        )

    def _process(
        self,
        messages: Sequence[Message],
        poison: Mapping[Cause, InvalidInput] = NO_POISON,
        *,
        bulk: bool,
    ) -> Batch:
        laps, backlog = Laps(), self._backlog
        self._is_whole = False
        received = self._inbox.receive(messages, poison)
        laps.end("receive")

        # who only gained or lost a neighbour waits: many messages name the same ones; in bulk all others do
        # as well, but those that are gone
        now = received.gone if bulk else received.changed
        self._wait_for([node for node in received.touched if node not in now], fresh=True)
        if bulk:
            deferred = {node: entity for node, entity in received.after.items() if node not in now}
            self._embedding.read_entities(deferred)
            backlog.defer(received.changed.keys() - now.keys())
        # in bulk nobody is evaluated before the last message has come, nor before all rows are as they should
        # be: whatever is evaluated sooner is evaluated twice
        outdated = backlog.outdated(BULK_ROWS) if bulk and not messages else []
        if outdated:
            self._follow_up(*self._embedding.refresh(outdated, {}), fresh=False)
        share = BULK_EVALUATIONS if bulk else IDLE_EVALUATIONS
        if messages or outdated:
            share = 0 if bulk else len(messages) // BACKLOG_EVALUATIONS
        waiting = backlog.next_entities(share, without=now)
        nodes = [*now, *waiting]
        unsure = backlog.unsure.intersection(nodes)
        forced = {*now, *unsure, *backlog.deferred.intersection(nodes)}
        found: list[Found] = []
        if bulk and not messages:
            found = self._retrieval.retrieve(nodes, forced)
            backlog.evaluated(nodes)
        else:
            for first in range(0, len(nodes), EVALUATION_CHUNK):
                chunk = nodes[first : first + EVALUATION_CHUNK]
                changed = {node: received.after[node] for node in chunk if node in received.after}
                some, stale, hubs = self._retrieval.evaluate(chunk, changed, forced.intersection(chunk))
                found += some
                backlog.evaluated(chunk)
                self._follow_up(stale, hubs, fresh=bool(messages))
        if (next_hub := backlog.next_hub()) is not None:
            hub, start = next_hub
            stale, start = self._embedding.expand(hub, start, HUB_SHARE if messages else IDLE_HUB)
            self._wait_for(stale, fresh=False)
            if start:
                backlog.expand(hub, start)
        laps.end("retrieve")

        # what the messages changed is scored now; what they moved elsewhere waits and coalesces, and so does
        # what a snapshot brings: its rows change each other's neighbourhoods until the last has come
        due: list[Found] = []
        for part in found:
            direct, indirect = self._retrieval.split(part, received.prompt if not bulk else ())
            due.append(direct)
            backlog.score(indirect, self._embedding.table)
        # and in quiet, pairs wait for the entities that would only make them stale again
        share = 0 if waiting or outdated else BULK_PAIRS if bulk else IDLE_PAIRS
        if messages:
            share = 0 if bulk else sum(len(part.pairs.left) for part in due) // BACKLOG_SHARE
        due.extend(backlog.scored(share, bulk=bulk and not messages))

        # also where an entity only looks different: a linked pair need not be a candidate to have evidence
        linked = dict.fromkeys([*received.links, *self._links.around(nodes)])
        stored = self._deciding.known_pairs({*unsure, *received.gone})
        scored = [*self._scoring.score(due), *self._scoring.dropped(stored, found, self._graph)]
        laps.end("score")
        decisions = self._deciding.decide(scored, self._links.in_force(linked, self._graph))
        laps.end("decide")
        outputs = received.dead_letters + self._records.outputs(decisions)
        laps.end("record")

        self._sequence += 1
        batch = Batch(
            self._sequence,
            outputs,
            len(backlog),
            received.topics,
            laps.seconds,
            len(nodes),
            self._retrieval.searched,
            self._retrieval.vectors,
        )
        self._conclude(batch)
        self._is_whole = True
        laps.end("commit")
        self._unsaved += len(nodes)
        is_drained = bulk and not messages and not backlog
        if is_drained and self._unsaved * SNAPSHOT_SHARE > len(self._embedding.table):
            self._save_snapshot()
            memory.give_back()
        return batch

    def _conclude(self, batch: Batch) -> None:
        """Commits with the batch's outputs in the outbox."""
        if batch.outputs:
            self._store.put(tables.OUTBOX + node_key(batch.sequence), msgspec.msgpack.encode(batch))
        self._commit()
        if batch.outputs:
            self._unpublished.append(batch.sequence)

    def _save_snapshot(self) -> None:
        """A start after a crash then encodes and searches only for what has changed since."""
        rows, lists = self._embedding.saved(), self._retrieval.lists
        snapshot.save(self._store.path / SNAPSHOT, self._settings, rows, lists)
        self._unsaved = 0

    def _follow_up(self, stale: Sequence[int], hubs: Iterable[int], *, fresh: bool) -> None:
        """What a new row makes stale waits, and so do hubs, whose neighbours are looked through later."""
        self._wait_for(stale, fresh=fresh)
        for hub in hubs:
            self._backlog.expand(hub)

    def _wait_for(self, nodes: Sequence[int], *, fresh: bool) -> None:
        new = [node for node in nodes if node not in self._backlog.entities]
        for node, in_force in zip(new, self._embedding.in_force(new), strict=True):
            self._backlog.evaluate(node, in_force)
        self._backlog.outdate(nodes)
        for node in nodes if fresh else ():
            self._backlog.refresh(node)

    def _commit(self) -> None:
        try:
            self._store.commit()
        except StoreError as error:
            raise StateError(str(error)) from error

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        """Everything up to this batch is in the broker; its outbox goes with the next commit."""
        while self._unpublished and self._unpublished[0] <= sequence:
            self._store.delete(tables.OUTBOX + node_key(self._unpublished.popleft()))
        if ends is not None:
            self._store.put(PUBLISHED_ENDS, msgspec.msgpack.encode(ends))

    def published_ends(self) -> Mapping[int, int]:
        """Where the partitions of the alignment topic ended when that was said last."""
        raw = self._store.get(PUBLISHED_ENDS)
        return {} if raw is None else msgspec.msgpack.decode(raw, type=dict[int, int])

    def next_offset(self, topic: str, partition: int) -> int | None:
        """The offset after the last applied one, None if nothing of this partition was applied."""
        return self._inbox.next_offset(topic, partition)

    def offsets(self) -> Mapping[tuple[str, int], int]:
        """By topic and partition the offset after the last applied one."""
        return self._inbox.offsets()

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every alignment record in force, as last put into an outbox."""
        return self._records.all()

    def copy_to(self, directory: Path) -> None:
        """Puts a copy of the whole store, as it was committed last, into a new directory."""
        try:
            self._store.copy_to(directory)
        except StoreError as error:
            raise StateError(str(error)) from error

    def supersede(self, former: "Aligner", mark: str) -> int:
        """Puts into the outbox what has to be published when this takes the place of `former`.

        Both have applied the same messages, and nobody else uses either meanwhile. The records that differ
        go out as ordinary records and events.

        Args:
            mark: tells this change of place from any other; part of the events' ids.

        Returns:
            How many pairs differ.
        """
        self.published(self._sequence)
        outputs = self._records.supersede(former._records, mark)
        changed = 0
        for chunk in batched(outputs, OUTBOX_CHUNK):
            changed += len(chunk)
            self._sequence += 1
            batch = Batch(self._sequence, [*chain.from_iterable(chunk)], len(self._backlog))
            self._conclude(batch)
        self._commit()
        return changed

    def recall(self) -> Mapping[str, float]:
        """By view the share of the nearest that an exhaustive search finds which are candidates; a sample."""
        return self._retrieval.recall(RECALL_SAMPLE)

    def explain(self, name: str, other: str | None = None) -> list[Explanation]:
        """Why an entity is aligned with another one, or is not; without `other`, for all its candidates.

        Args:
            name, other: CURIEs of two sources.

        Raises:
            InvalidInput: there is no such entity, or both are of one source.
        """
        explaining = Explaining(
            self._graph,
            self._links,
            self._backlog,
            self._retrieval,
            self._scoring,
            self._deciding,
            self._records,
        )
        return explaining.pairs_of(name) if other is None else [explaining.pair(name, other)]

    def exist(self, names: Iterable[str]) -> list[bool]:
        """Whether there are entities with these CURIEs now."""
        return self._graph.exist(node_of(name) for name in names)

    def close(self) -> None:
        """Writes what is pending and releases the state directory. Raises StateError if that fails.

        Of a batch that was broken off nothing is written: it is as if it had never been.
        """
        try:
            if self._is_whole and not self._store.read_only:
                self._commit()
                if self._unsaved:
                    self._save_snapshot()
        finally:
            try:
                self._store.close()
            except StoreError as error:
                raise StateError(str(error)) from error
