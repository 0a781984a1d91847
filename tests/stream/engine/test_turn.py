"""Which share of the waiting work a turn takes."""

from pathlib import Path

import pytest

from index.store import Store
from stream.engine import turn as module
from stream.engine.backlog import Backlog
from stream.engine.turn import Situation, take_turn
from stream.events import Cause, Message

MESSAGES = [Message(Cause("t", 0, number), None, None, 0.0) for number in range(40)]


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    """Two entities wait; the row of one is outdated."""
    backlog = Backlog(Store(tmp_path))
    for node in (1, 2):
        backlog.evaluate(node, b"")
    backlog.outdate([1])
    return backlog


def test_messages_that_are_awaited_take_a_little_of_what_waits(backlog: Backlog) -> None:
    turn = take_turn(MESSAGES, backlog, bulk=False)
    assert turn.situation is Situation.PROMPT and (turn.rows, turn.entities) == (0, 2)
    assert turn.neighbours == module.HUB_SHARE and turn.pairs_beside(100) == 6


def test_messages_of_a_bulk_take_nothing_but_a_hub_s_share(backlog: Backlog) -> None:
    turn = take_turn(MESSAGES, backlog, bulk=True)
    assert turn == (Situation.GATHERING, 0, 0, module.HUB_SHARE, 0) and turn.pairs_beside(100) == 0


@pytest.mark.parametrize("bulk", [False, True])
def test_without_messages_rows_come_first_then_entities_then_pairs(backlog: Backlog, bulk: bool) -> None:
    taken = []
    for _ in range(3):
        turn = take_turn([], backlog, bulk=bulk)
        assert turn.situation is (Situation.DRAINING if bulk else Situation.QUIET)
        assert turn.neighbours == module.IDLE_HUB
        taken.append((turn.rows, turn.entities, turn.pairs_beside(100)))
        if not backlog.outdated(turn.rows):
            backlog.evaluated(backlog.next_entities(turn.entities, without=()))
    if bulk:
        assert taken == [(8192, 0, 0), (0, 4096, 0), (0, 0, 32_768)]
    else:  # a row is made anew when its entity is evaluated
        assert taken == [(0, 32, 0), (0, 0, 1024), (0, 0, 1024)]
