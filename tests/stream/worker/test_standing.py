"""When a worker is ready, and what it says while it is not."""

import re
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from stream.worker.ownership import Tenure
from stream.worker.standing import SETTLE_SECONDS, WAITS_FOR_GROUP, Standing

FIRST, SECOND = Tenure(1, "a"), Tenure(2, "b")
ONE, OTHER = TP("topic", 0), TP("topic", 1)


class Worker:
    """A standing, and what it looks at."""

    def __init__(self) -> None:
        self.ownership = cast(Any, SimpleNamespace(tenure=FIRST))
        self.contact = cast(Any, SimpleNamespace(lost=None))
        self.standing = Standing(self.ownership, self.contact)

    def obstacle(self, backlog: int = 0, *, is_disputed: bool = False) -> str:
        return self.standing.obstacle(backlog, is_disputed=is_disputed)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_worker_is_active_only_where_it_knows_the_positions_of_this_tenure(worker: Worker) -> None:
    standing = worker.standing
    assert not standing.is_active
    standing.begin(FIRST, {}, {})
    standing.look(0, is_gathered=False)
    assert standing.is_active and standing.has_caught_up
    worker.ownership.tenure = None
    assert not standing.is_active
    worker.ownership.tenure = SECOND
    assert not standing.is_active
    standing.begin(SECOND, {}, {})
    assert standing.is_active and not standing.has_caught_up


def test_it_is_ready_when_it_has_done_what_was_there_and_stays_so_however_much_comes(worker: Worker) -> None:
    standing = worker.standing
    assert worker.obstacle() == WAITS_FOR_GROUP
    standing.begin(FIRST, {ONE: 5, OTHER: 0}, {ONE: 10, OTHER: 2000})
    assert worker.obstacle(7) == "catching up: 2,005 messages behind in 2 of 2 partition(s); 7 entities wait"
    standing.done |= {ONE: 12}
    standing.look(0, is_gathered=False)
    assert worker.obstacle() == "catching up: 2,000 messages behind in 1 of 2 partition(s); 0 entities wait"
    standing.done |= {OTHER: 2500}
    standing.look(3, is_gathered=True)
    assert worker.obstacle(3) == "catching up: 0 messages behind in 0 of 2 partition(s); 3 entities wait"
    standing.look(4, is_gathered=False)
    assert worker.obstacle(4) == ""
    standing.look(9000, is_gathered=True)
    assert worker.obstacle(9000) == ""


def test_it_is_not_ready_before_the_alignment_topic_is_compared(worker: Worker) -> None:
    standing = worker.standing
    standing.begin(FIRST, {ONE: 5}, {ONE: 5})
    standing.look(2, is_gathered=False)
    what, why = "the alignment topic is to be compared with the state", "another process has written to it"
    when = r"as soon as none of 2 entities waits, in \d+ s at the latest"
    assert re.fullmatch(f"{what} {when}, {why}", worker.obstacle(2, is_disputed=True))
    standing.look(0, is_gathered=False)  # for a moment
    assert worker.obstacle(2, is_disputed=True) == f"{what}, {why}"
    assert worker.obstacle(2) == ""


def test_a_load_that_never_lets_up_puts_the_comparison_off_for_a_while(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    standing = worker.standing
    standing.begin(FIRST, {ONE: 5}, {ONE: 5})
    standing.look(2, is_gathered=True)
    now += SETTLE_SECONDS
    standing.look(2, is_gathered=True)  # its messages have no outcome yet
    assert not standing.has_settled
    standing.look(2, is_gathered=False)
    now += SETTLE_SECONDS - 1
    standing.look(2, is_gathered=False)
    assert not standing.has_settled and " 1 s at the latest" in worker.obstacle(2, is_disputed=True)
    now += 1
    standing.look(2, is_gathered=True)
    assert standing.has_settled
    standing.begin(SECOND, {ONE: 5}, {ONE: 5})
    assert not standing.has_settled


def test_it_is_not_ready_while_the_group_gives_the_partitions_anew(worker: Worker) -> None:
    worker.standing.begin(FIRST, {ONE: 5}, {ONE: 5})
    worker.standing.look(0, is_gathered=False)
    assert worker.obstacle() == ""
    worker.ownership.tenure = None
    assert worker.obstacle() == WAITS_FOR_GROUP
    worker.standing.look(0, is_gathered=False)
    worker.ownership.tenure = SECOND
    worker.standing.begin(SECOND, {ONE: 5}, {ONE: 6})
    assert worker.obstacle().startswith("catching up: 1 messages behind")


@pytest.mark.parametrize("role", ["active", "standby"])
def test_it_is_not_ready_while_the_broker_is_gone(worker: Worker, role: Any) -> None:
    worker.standing.begin(FIRST, {}, {})
    worker.standing.look(0, is_gathered=False)
    worker.standing.role = role
    worker.contact.lost = 7.2
    assert worker.obstacle() == "the broker has not answered for 7 s"
    worker.contact.lost = None
    assert worker.obstacle() == ""
