"""What a turn of the aligner is for, and how much of the waiting work it takes: decided once, here.

A turn is one call of `process`. It has messages or none, and its outcome is awaited or not. These are four
situations; in each the waiting work gets another share.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from stream.engine.backlog import Backlog
from stream.events import Message

IDLE_EVALUATIONS, BULK_EVALUATIONS = 32, 4096  # waiting entities that a turn without messages evaluates
IDLE_PAIRS, BULK_PAIRS = 1024, 32_768  # waiting pairs that it scores
BULK_ROWS = 8192  # rows that it makes anew
IDLE_HUB, HUB_SHARE = 8192, 1024  # neighbours of a hub looked through without and with messages
BACKLOG_EVALUATIONS = 16  # with messages, one waiting entity is evaluated for so many of them
BACKLOG_SHARE = 16  # with messages, one waiting pair is scored for so many that the messages changed


class Situation(Enum):
    """What a turn is for."""

    PROMPT = "messages, which are answered at once: what they are about is evaluated and scored in this turn"
    QUIET = "no messages, but one may come at any moment: the backlog is served in small bites"
    GATHERING = "messages of a bulk: only what cannot wait is evaluated, the rest after the last message"
    DRAINING = "a bulk's last message has come: the backlog is served in big bites, rows before lists"


class Turn(NamedTuple):
    """A situation, and the most that is taken of each kind of waiting work."""

    situation: Situation
    rows: int  # made anew
    entities: int  # evaluated
    neighbours: int  # of one hub looked through
    pairs: int  # scored, whatever else is

    def pairs_beside(self, changed: int) -> int:
        """How many waiting pairs to score when the messages changed so many."""
        return changed // BACKLOG_SHARE if self.situation is Situation.PROMPT else self.pairs


# What a turn takes that is about given entities alone.
NOTHING_ELSE = Turn(Situation.QUIET, rows=0, entities=0, neighbours=0, pairs=0)


def take_turn(messages: Sequence[Message], backlog: Backlog, *, bulk: bool) -> Turn:
    """The next turn.

    Without messages it does one thing of three: rows first (in bulk), then evaluations, then pairs. An entity
    evaluated while rows around it are outdated would be evaluated twice, and so would a pair be scored
    twice while one of its entities waits.
    """
    if messages and bulk:
        return Turn(Situation.GATHERING, rows=0, entities=0, neighbours=HUB_SHARE, pairs=0)
    if messages:
        entities = len(messages) // BACKLOG_EVALUATIONS
        return Turn(Situation.PROMPT, rows=0, entities=entities, neighbours=HUB_SHARE, pairs=0)
    if bulk and backlog.has_outdated:
        return Turn(Situation.DRAINING, rows=BULK_ROWS, entities=0, neighbours=IDLE_HUB, pairs=0)
    situation = Situation.DRAINING if bulk else Situation.QUIET
    if backlog.has_entities:
        entities = BULK_EVALUATIONS if bulk else IDLE_EVALUATIONS
        return Turn(situation, rows=0, entities=entities, neighbours=IDLE_HUB, pairs=0)
    pairs = BULK_PAIRS if bulk else IDLE_PAIRS
    return Turn(situation, rows=0, entities=0, neighbours=IDLE_HUB, pairs=pairs)
