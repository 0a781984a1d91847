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
    10  store outcome, outbox and offset in one atomic write       `Outbox.conclude`
    11  publish                                                    the caller
    12  commit                                                     the caller, then `published`

`Aligner._process` is these steps, one after another; how much of the waiting work comes with them is decided
in `stream/engine/turn.py`.

Nothing here knows of Kafka: messages go in and outputs come out, so that the worker, `align`, `replay`,
tests and benchmarks run the same code.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from index import tables
from index.entity import node_of
from index.errors import StateError, StoreError
from index.store import Store
from stream.changes import Decoder
from stream.console import printable
from stream.engine import memory
from stream.engine.backlog import TO_TRY
from stream.engine.blame import cut, failing
from stream.engine.deciding import Decision
from stream.engine.embedding import Readings
from stream.engine.explaining import Explaining, Explanation
from stream.engine.inbox import NO_POISON, Received
from stream.engine.interface import Batch, Dangling, EvidenceDetail, Laps, Output, Search
from stream.engine.origin import Origin
from stream.engine.outbox import Outbox
from stream.engine.pairs import FoundPairs, PairScores
from stream.engine.parts import Parts, usable_model
from stream.engine.recipe import Recipe
from stream.engine.records import Difference
from stream.engine.recovery import Focus, Recovery, Suspicion
from stream.engine.turn import NOTHING_ELSE, Situation, Turn, take_turn
from stream.errors import InvalidInput
from stream.events import Cause, Message, curie

EVALUATION_CHUNK = 4096  # entities evaluated together: about 100 MB
SNAPSHOT_SHARE = 8  # in quiet it is written anew when one in so many entities was evaluated since

RECALL_SAMPLE = 32  # entities of each side of every type whose candidates are compared with an exact search

_log = logging.getLogger("sameas")


@contextmanager
def _told_as_state_error() -> Iterator[None]:
    """What is wrong with the store is wrong with the state, in the words that users know."""
    try:
        yield
    except StoreError as error:
        raise StateError(str(error)) from error


class Evaluated(NamedTuple):
    """What steps 5 to 7 did in a turn."""

    nodes: list[int]  # of the entities that were evaluated
    unsure: set[int]  # those of them of whose stored pairs some may be no candidates any more
    found: list[FoundPairs]  # the pairs whose scores may have changed


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
        evidence: what of it stands in records.
        min_change: the least change of a confidence, 0 to 1, that is an event; with 0 every change of a
            record is one. Not part of what a state directory belongs to.
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
        evidence: EvidenceDetail = "full",
        min_change: float = 0.0,
        read_only: bool = False,
    ) -> None:
        self.model_id, model = usable_model(checkpoint)
        threshold = model.threshold if threshold is None else threshold
        recipe = Recipe(self.model_id, threshold, one_to_one, search, evidence)
        with _told_as_state_error():
            self._store = Store(state, read_only=read_only)
            try:
                self._claim(recipe.settings)
                self._load = partial(Parts, self._store, model, recipe, decode, min_change)
                self._parts = self._load()
                self._outbox = Outbox(self._store)
                self._is_whole = True  # no batch was left half-way
                self._is_ahead = False  # what is in memory rests on no more than what is stored
                self._suspicion = Suspicion()
                self._recovery = Recovery(
                    self._process,
                    self._roll_back,
                    self._pause,
                    lambda: self._parts.backlog,
                    self._suspicion,
                )
                if not read_only:
                    for node in self._parts.backlog.aside:  # this version may know how to evaluate them
                        self._parts.backlog.mark(node, TO_TRY)
                    self._store.commit()
                memory.settle()
            except BaseException:
                self._store.close()
                raise

    def _claim(self, settings: str) -> None:
        """A state directory belongs to the settings it was made with: its scores rest on them."""
        key = tables.META + b"settings"
        found = self._store.get(key)
        if found is None:
            self._store.put(key, settings.encode())
            self._store.commit()
        elif found.decode() != settings:
            raise StateError(
                f"state directory {self._store.path} was made with {found.decode()}, not {settings}; "
                "give another directory, or delete this one to rebuild it from the topics"
            )

    def process(self, messages: Sequence[Message], *, bulk: bool = False) -> Batch:
        """Steps 1 to 10 for a micro-batch, in the order given. An empty batch works on the backlog.

        Args:
            bulk: this batch in particular is not awaited. Whatever may wait does, so that an entity is
                evaluated and a pair is scored after the last message that changes it and not after every
                one; the backlog is taken in big bites.

        What fails stops nothing else (`stream/engine/recovery.py`): a message that cannot be applied becomes
        a dead letter, an entity that cannot be evaluated is set aside.

        Raises:
            StateError: the outcome cannot be stored.
        """
        if messages:
            return self._recovery.process(messages, bulk=bulk)
        return self._recovery.work_off(bulk=bulk)

    @_told_as_state_error()
    def _pause(self) -> Batch:
        """A turn in which nothing is done. Commits what is pending."""
        parts = self._parts
        batch = Batch(
            self._outbox.next_sequence(),
            [],
            len(parts.backlog),
            searched=parts.retrieval.searched,
            vectors=parts.retrieval.vectors,
            aside=len(parts.backlog.aside),
            is_gathered=parts.backlog.is_gathered,
        )
        self._outbox.conclude(batch)
        return batch

    @_told_as_state_error()
    def _roll_back(self) -> int:
        """Makes store and memory what they were before a turn that failed; how many reloads that took."""
        reloads = int(self._is_ahead)
        self._store.rollback()
        if self._is_ahead:
            del self._parts
            self._parts = self._load()
            self._is_ahead = False
        self._is_whole = True
        self._outbox.rolled_back()
        return reloads

    @_told_as_state_error()
    def _process(
        self,
        messages: Sequence[Message],
        poison: Mapping[Cause, InvalidInput] = NO_POISON,
        *,
        bulk: bool,
        focus: Focus | None = None,
    ) -> Batch:
        laps, parts = Laps(), self._parts
        turn = NOTHING_ELSE if focus and not messages else take_turn(messages, parts.backlog, bulk=bulk)
        self._is_whole = False
        self._suspicion.evaluated, self._suspicion.scored, self._suspicion.blamed = [], [], []
        received = parts.inbox.receive(messages, poison)  # steps 1 to 4
        aside = self._aside(received, focus)
        laps.end("receive")
        changed = parts.embedding.read(received.after)
        self._is_ahead = True
        for node, mark in aside.items():
            parts.backlog.mark(node, mark)
        evaluated = self._evaluate(received, changed, turn, focus)  # steps 4 to 7
        laps.end("retrieve")
        scored = self._score(received, evaluated, turn, focus)  # step 8
        laps.end("score")
        decisions = self._decide(received, evaluated, scored)  # step 9
        laps.end("decide")
        outputs = received.dead_letters + self._record(decisions)
        laps.end("record")
        waiting = parts.backlog.settle(gathering=turn.situation is Situation.GATHERING)
        if not waiting:
            parts.triggers.settle()
        batch = Batch(
            self._outbox.next_sequence(),
            outputs,
            waiting,
            received.topics,
            laps.seconds,
            len(evaluated.nodes),
            parts.retrieval.searched,
            parts.retrieval.vectors,
            aside=len(parts.backlog.aside),
            is_gathered=parts.backlog.is_gathered,
        )
        self._outbox.conclude(batch)  # step 10
        self._is_whole, self._is_ahead = True, False
        laps.end("commit")
        if focus is not None and focus.why:
            self._tell_aside(aside, focus.why)
        parts.unsaved += len(evaluated.nodes)
        if turn.situation is Situation.DRAINING and not waiting:
            self._settle()
        return batch

    def _aside(self, received: Received, focus: Focus | None) -> dict[int, bytes | None]:
        """What is set aside, and what is not any more: it has changed, or is tried. The graph keeps it."""
        known = self._parts.backlog.aside
        marks: dict[int, bytes | None] = {node: TO_TRY for node in received.touched if node in known}
        given = [] if focus is None else focus.nodes
        is_set_aside = focus is not None and focus.why != ""
        if not (known or is_set_aside):
            return marks
        out = {*(given or received.changed)} if is_set_aside else set()
        nodes = list(dict.fromkeys([*given, *received.changed]))
        for node, entity in zip(nodes, self._parts.graph.entities(nodes), strict=True):
            if entity is None or entity.deleted:
                marks[node] = None
            elif node in out:
                marks[node] = TO_TRY
                received.after[node] = msgspec.structs.replace(entity, deleted=True)
                received.changed[node] = received.gone[node] = None
            elif node in known:
                marks[node] = None
                received.after[node], received.changed[node] = entity, None
        return marks

    def _tell_aside(self, nodes: Iterable[int], why: str) -> None:
        for entity in self._parts.graph.entities(nodes):
            if entity is not None and not entity.deleted:
                _log.warning(
                    "%s (%s, partition %d, offset %d) is set aside, as if it did not exist: it cannot be "
                    "evaluated (%s). It is tried again when it or a neighbour changes and at the next start; "
                    "please report this",
                    printable(curie(entity.source, entity.id)[:200]),
                    *(entity.topic, entity.partition, entity.offset, printable(why[:200])),
                )

    def _evaluate(self, received: Received, changed: Readings, turn: Turn, focus: Focus | None) -> Evaluated:
        """Rows, index and candidates of what the messages changed, and of a share of the waiting entities."""
        parts, backlog = self._parts, self._parts.backlog
        # An entity that only gained or lost a neighbour waits: many messages name the same ones. While a bulk
        # is gathered so do all others, except those that ceased to be what they were.
        now = received.gone if turn.situation is Situation.GATHERING else received.changed
        self._wait_for([node for node in received.touched if node not in now], fresh=True)
        if turn.situation is Situation.GATHERING:
            parts.embedding.put_off(changed.only(received.after.keys() - now.keys()))
            backlog.defer(received.changed.keys() - now.keys())
        if outdated := backlog.outdated(turn.rows):
            self._suspicion.evaluated += outdated
            self._follow_up(*parts.embedding.refresh(outdated), fresh=False)

        about = [] if focus is None else [node for node in focus.nodes if node not in now]
        nodes = [*now, *about, *backlog.next_entities(turn.entities, without=now)]
        self._suspicion.evaluated += nodes
        unsure = backlog.unsure.intersection(nodes)
        forced = {*now, *about, *unsure, *backlog.deferred.intersection(nodes)}
        if turn.situation is Situation.DRAINING:  # all rows are up to date
            found = parts.retrieval.retrieve(nodes, forced)
            backlog.evaluated(nodes)
        else:
            found = self._evaluate_in_chunks(
                nodes, changed, forced, fresh=turn.situation is not Situation.QUIET
            )
        if turn.neighbours:
            self._look_through_hub(turn.neighbours)
        return Evaluated(nodes, unsure, found)

    def _evaluate_in_chunks(
        self, nodes: Sequence[int], changed: Readings, forced: set[int], *, fresh: bool
    ) -> list[FoundPairs]:
        found: list[FoundPairs] = []
        for first in range(0, len(nodes), EVALUATION_CHUNK):
            chunk = nodes[first : first + EVALUATION_CHUNK]
            some, stale, hubs = self._parts.retrieval.evaluate(
                chunk, changed.only({*chunk}), forced.intersection(chunk)
            )
            found += some
            self._parts.backlog.evaluated(chunk)
            self._follow_up(stale, hubs, fresh=fresh)
        return found

    def _look_through_hub(self, most: int) -> None:
        """Neighbours that were sampled with the newest hub wait, among the next `most` of its neighbours."""
        hub = self._parts.backlog.next_hub()
        if hub is not None:
            stale, rest = self._parts.embedding.expand(hub.node, hub.start, most)
            self._wait_for(stale, fresh=False)
            if rest:
                self._parts.backlog.expand(hub.node, rest)

    def _score(
        self, received: Received, evaluated: Evaluated, turn: Turn, focus: Focus | None
    ) -> list[PairScores]:
        """Scores of the pairs that the messages changed, and of a share of those that wait.

        What the messages moved elsewhere waits and coalesces, and so does what rows of a snapshot bring:
        they change each other's neighbourhoods until the last has come.
        """
        parts, backlog = self._parts, self._parts.backlog
        prompt = received.prompt if turn.situation is Situation.PROMPT else set(focus.nodes if focus else ())
        due: list[FoundPairs] = []
        for part in evaluated.found:
            direct, indirect = parts.retrieval.split(part, prompt)
            due.append(direct)
            backlog.score(indirect, parts.embedding.table)
        waiting = turn.pairs_beside(sum(len(part.pairs.left) for part in due))
        for part in backlog.scored(waiting, distinct=turn.situation is Situation.DRAINING):
            due.append(part)
            self._suspicion.scored.append(parts.embedding.table.rows["node"][np.concatenate(part.pairs)])
        stored = parts.deciding.known_pairs({*evaluated.unsure, *received.gone})
        dropped = parts.scoring.dropped(stored, evaluated.found, parts.graph, backlog.aside)
        try:
            return [*parts.scoring.score(due), *dropped]
        except Exception:
            count = sum(len(part.pairs.left) for part in due)
            place = failing(lambda first, end: parts.scoring.score(cut(due, first, end)), count)
            if place is not None:
                [(_, pair)] = cut(due, place, place + 1)
                self._suspicion.blamed = parts.embedding.table.rows["node"][np.concatenate(pair)].tolist()
            raise

    def _decide(
        self, received: Received, evaluated: Evaluated, scored: Sequence[PairScores]
    ) -> list[Decision]:
        """Decides also on pairs with a verdict of which one entity only looks different.

        Such a pair need not be a candidate, and its record has evidence.
        """
        links = self._parts.links
        linked = dict.fromkeys([*received.links, *links.around(evaluated.nodes)])
        return self._parts.deciding.decide(scored, links.in_force(linked, self._parts.exist))

    def _record(self, decisions: Sequence[Decision]) -> list[Output]:
        records = self._parts.records
        try:
            return records.outputs(decisions)
        except Exception:
            place = failing(lambda first, end: records.outputs(decisions[first:end]), len(decisions))
            if place is not None:
                self._suspicion.blamed = [*decisions[place].pair[:2]]
            raise

    def _settle(self) -> None:
        """After a bulk: a new snapshot if the last one is of little use, and memory back to the system."""
        if self._parts.unsaved * SNAPSHOT_SHARE > len(self._parts.embedding.table):
            self._parts.save_snapshot()
            memory.give_back()

    def _follow_up(self, stale: Sequence[int], hubs: Iterable[int], *, fresh: bool) -> None:
        """What a new row makes stale waits, and so do hubs, whose neighbours are looked through later."""
        self._wait_for(stale, fresh=fresh)
        for hub in hubs:
            self._parts.backlog.expand(hub)

    def _wait_for(self, nodes: Sequence[int], *, fresh: bool) -> None:
        """Entities wait for evaluation; `fresh` ones, which messages made stale, before the others."""
        parts = self._parts
        new = [node for node in nodes if node not in parts.backlog.entities]
        for node, in_force in zip(new, parts.embedding.in_force(new), strict=True):
            parts.backlog.evaluate(node, in_force)
        parts.backlog.outdate(nodes)
        for node in nodes if fresh else ():
            parts.backlog.refresh(node)

    def pending(self) -> Iterator[Batch]:
        """Batches that were stored but not confirmed as published: what a crash left. Publish them first."""
        return self._outbox.pending()

    def published(self, sequence: int, ends: Mapping[int, int] | None = None) -> None:
        """Everything up to this batch is in the broker; its outbox goes with the next commit."""
        self._outbox.published(sequence, ends)

    def published_ends(self) -> Mapping[int, int]:
        """Where the partitions of the alignment topic ended when that was said last."""
        return self._outbox.published_ends()

    @property
    def backlog(self) -> int:
        """Entities that wait for re-evaluation, and entities with pairs that wait for their score."""
        return len(self._parts.backlog)

    @property
    def waiting_pairs(self) -> int:
        """Pairs that wait for their score."""
        return self._parts.backlog.pairs

    @property
    def evaluations(self) -> int:
        """Entities evaluated since the start, again ones included."""
        return self._parts.retrieval.evaluated

    @property
    def origin(self) -> Origin:
        """Which messages the state was made of."""
        return self._parts.inbox.origin

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of every alignment record in force, as last put into an outbox."""
        return self._parts.records.all()

    @_told_as_state_error()
    def copy_to(self, directory: Path) -> None:
        """Puts a copy of the whole store, as it was committed last, into a new directory."""
        self._store.copy_to(directory)

    @_told_as_state_error()
    def supersede(self, former: "Aligner", mark: str) -> Difference:
        """Puts into the outbox what has to be published when this takes the place of `former`.

        Both have applied the same messages, and neither is used meanwhile. The records that differ go out as
        ordinary records and events.

        Args:
            mark: tells this change of place from any other; part of the events' ids.

        Returns:
            How many pairs that changes.
        """
        self._outbox.all_published()
        difference = Difference()
        outputs = self._parts.records.supersede(former._parts.records, mark, difference)
        self._outbox.conclude_all(outputs, len(self._parts.backlog))
        return difference

    def recall(self) -> Mapping[str, float]:
        """By view the share of the nearest that an exhaustive search finds which are candidates; a sample."""
        return self._parts.retrieval.recall(RECALL_SAMPLE)

    @_told_as_state_error()
    def dangling(self) -> Dangling | None:
        """Looks through a piece of the graph; None until it is through, when it gives what it has found."""
        found = self._parts.dangling.look()
        return found and found._replace(entities=self._parts.retrieval.entities())

    def explain(self, name: str, other: str | None = None) -> list[Explanation]:
        """Why an entity is aligned with another one, or is not; without `other`, for all its candidates.

        Args:
            name, other: CURIEs of two sources.

        Raises:
            InvalidInput: there is no such entity, or both are of one source.
        """
        explaining = Explaining(self._parts)
        return explaining.pairs_of(name) if other is None else [explaining.pair(name, other)]

    def exist(self, names: Iterable[str]) -> list[bool]:
        """Whether there are entities with these CURIEs now."""
        return self._parts.graph.exist(node_of(name) for name in names)

    @_told_as_state_error()
    def close(self) -> None:
        """Writes what is pending and releases the state directory. Raises StateError if that fails.

        Of a batch that was broken off nothing is written: it is as if it had never been.
        """
        try:
            if self._is_whole and not self._store.read_only:
                self._store.commit()
                if self._parts.unsaved:
                    self._parts.save_snapshot()
        finally:
            self._store.close()
