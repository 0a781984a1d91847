"""When processing fails, less is tried at once, until it is known what it fails for; everything else goes on.

A message that cannot be applied or encoded fails before anything in memory has changed. That costs a rollback
of the store, and the message becomes a dead letter. What fails later leaves rows and lists half changed:
everything in memory is loaded again. Then the entity that it fails for is *set aside*: the graph keeps it,
while vectors, scores and decisions are as if it did not exist. So the alignments are a function of the graph,
the links, the model, and of what is set aside, which the store knows; and that is tried again.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple, Protocol

import msgspec

from index.errors import StateError
from index.graph import Nodes
from stream.console import printable
from stream.engine.backlog import TRIED, Backlog
from stream.engine.inbox import NO_POISON, failed
from stream.engine.interface import Batch, Counts
from stream.errors import InvalidInput
from stream.events import Cause, Message

PIECES: Final = 64  # into which what fails together is divided, to find what fails alone
# So often, within so many seconds, messages that fail are tried alone at the price of a reload each.
MAX_RELOADS, RELOADS_SECONDS = 4, 60.0

_log = logging.getLogger("sameas")


class Focus(NamedTuple):
    """Entities that a turn is about, without messages about no others. All pairs of theirs are scored."""

    nodes: list[int]  # when they are set aside and there are none: what the turn's messages change
    why: str = ""  # they are set aside; "" when they are tried


class Suspicion:
    """For which entities a turn may fail, by their nodes."""

    def __init__(self) -> None:
        self.evaluated: list[int] = []
        self.scored: list[Nodes] = []  # ends of pairs that waited
        self.blamed: list[int] = []  # those for which it failed, where that is known

    @property
    def tried(self) -> list[int]:
        """All, each once."""
        return list(dict.fromkeys(chain(self.evaluated, *(nodes.tolist() for nodes in self.scored))))


class Take(Protocol):
    """Takes a turn: whole, or it raises."""

    def __call__(
        self,
        messages: Sequence[Message],
        poison: Mapping[Cause, InvalidInput] = NO_POISON,
        *,
        bulk: bool,
        focus: Focus | None = None,
    ) -> Batch:
        """Messages in `poison` become dead letters."""


class Recovery:
    """Takes turns, and what has to follow when one fails.

    Args:
        roll_back: makes store and memory what they were before a turn that failed; how many reloads it took.
        pause: a turn in which nothing is done.
        backlog: the present one; a reload replaces it.
        suspicion: of the last turn.
    """

    def __init__(
        self,
        take: Take,
        roll_back: Callable[[], int],
        pause: Callable[[], Batch],
        backlog: Callable[[], Backlog],
        suspicion: Suspicion,
    ) -> None:
        self._take = take
        self._undo = roll_back
        self._pause = pause
        self._backlog = backlog
        self._suspicion = suspicion
        self._pieces: list[list[int]] = []  # of nodes, some of which failed together; the next is the last
        self._reloads: deque[float] = deque(maxlen=MAX_RELOADS)  # when there were the last ones

    def process(
        self,
        messages: Sequence[Message],
        *,
        bulk: bool,
        level: int = logging.WARNING,
        focus: Focus | None = None,
    ) -> Batch:
        """A turn with messages, or several with some of them each.

        Args:
            level: at which a failure is logged.
            focus: what is set aside with them.

        Raises:
            StateError: the outcome cannot be stored.
        """
        bulk = bulk or self._has_reloaded_often()
        try:
            return self._take(messages, bulk=bulk, focus=focus)
        except StateError:  # not the message's fault
            raise
        except Exception as error:
            _log.log(level, "a batch of %d failed, trying less of it at once: %r", len(messages), error)
            poison = failed(error)
        # Outside of the handler, whose traceback keeps what the failed call made, and without the old parts:
        # memory may be short.
        aside = dict.fromkeys([*(focus.nodes if focus else ()), *self._suspicion.blamed])
        is_news = len(aside) > (len(focus.nodes) if focus else 0)
        reloads = self._roll_back()
        if reloads and is_news:
            more = Focus([*aside], why=str(poison))
            done = self.process(messages, bulk=bulk, level=logging.DEBUG, focus=more)
        elif len(messages) == 1 and reloads:
            done = self._set_aside(messages[0], poison, bulk=bulk)
        elif len(messages) == 1:
            done = self._take(messages, {messages[0].cause: poison}, bulk=bulk)
        else:
            # another try may cost another reload; else halves leave less to store a message at a time
            step = 1 if reloads and not self._has_reloaded_often() else len(messages) // 2
            parts = [messages[first : first + step] for first in range(0, len(messages), step)]
            done = _joined([self.process(part, bulk=bulk, level=logging.DEBUG) for part in parts])
        return msgspec.structs.replace(done, reloads=done.reloads + reloads)

    def work_off(self, *, bulk: bool) -> Batch:
        """A turn without messages. If it fails, the next ones try the same in pieces, down to one entity.

        Raises:
            StateError: the outcome cannot be stored.
        """
        focus, waiting = None, self._backlog().to_try()
        if self._pieces:
            focus = Focus(self._pieces.pop())
        elif waiting and len(waiting) == len(self._backlog()):  # nothing else waits
            focus = Focus(waiting[:PIECES])
        try:
            return self._take([], bulk=bulk, focus=focus)
        except StateError:
            raise
        except Exception as error:
            tried = [node for node in self._suspicion.tried if node not in self._backlog().aside]
            nodes = tried if focus is None else focus.nodes
            if not nodes:
                raise
            what = printable(f"{type(error).__name__}: {error}"[:200])
        blamed = self._suspicion.blamed
        reloads = self._roll_back()
        is_known = focus is not None and nodes[0] in self._backlog().aside
        if blamed and not is_known:
            done = self._take([], bulk=bulk, focus=Focus(blamed, why=what))
        elif len(nodes) > 1:
            level = logging.WARNING if focus is None else logging.DEBUG  # said once
            _log.log(level, "evaluating %d entities failed, trying less of it at once: %s", len(nodes), what)
            size = -(-len(nodes) // PIECES)
            self._pieces += [nodes[first : first + size] for first in range(0, len(nodes), size)]
            done = self._pause()
        elif is_known:
            self._backlog().mark(nodes[0], TRIED)
            done = self._pause()
        else:
            done = self._take([], bulk=bulk, focus=Focus(nodes, why=what))
        return msgspec.structs.replace(done, reloads=reloads)

    def _set_aside(self, message: Message, poison: InvalidInput, *, bulk: bool) -> Batch:
        """Applies a message and sets aside what it changes; a dead letter where that fails, too."""
        try:
            return self._take([message], bulk=bulk, focus=Focus([], why=str(poison)))
        except StateError:
            raise
        except Exception as error:
            _log.debug("it cannot be set aside: %r", error)
        reloads = self._roll_back()
        done = self._take([message], {message.cause: poison}, bulk=bulk)
        return msgspec.structs.replace(done, reloads=reloads)

    def _roll_back(self) -> int:
        reloads = self._undo()
        self._reloads.extend([time.monotonic()] * reloads)
        return reloads

    def _has_reloaded_often(self) -> bool:
        """Whether messages are only stored for now, as in bulk; what may fail is found when they are not."""
        last = self._reloads
        return len(last) == last.maxlen and time.monotonic() - last[0] < RELOADS_SECONDS


def _joined(batches: Sequence[Batch]) -> Batch:
    """What several batches did together."""
    topics: defaultdict[str, Counts] = defaultdict(Counts)
    for batch in batches:
        for topic, counts in batch.topics.items():
            topics[topic] += counts
    last = batches[-1]
    return Batch(
        last.sequence,
        [output for batch in batches for output in batch.outputs],
        last.backlog,
        topics,
        evaluations=sum(batch.evaluations for batch in batches),
        searched=last.searched,
        vectors=last.vectors,
        reloads=sum(batch.reloads for batch in batches),
        aside=last.aside,
        is_gathered=last.is_gathered,
    )
