"""Where a worker stands: its role in the group, how far it is with its messages, and whether it is ready.

Ready is a worker that has published the outcome of everything that was in its topics when it got them. What
comes in later does not make it less ready, however much it is: that is its lag. Nor does the backlog, what
messages made stale elsewhere: under load there may never be none. It is not ready while the broker is gone.
"""

import time
from collections.abc import Mapping
from typing import Literal

from faust.types import TP

from stream.worker.contact import Contact
from stream.worker.ownership import Ownership, Tenure

SETTLE_SECONDS = 60.0  # after which what still waits, under load, does not hold up a comparison any more
QUIET_SECONDS = 0.5  # without messages, until the worker counts as quiet
WAITS_FOR_GROUP = "waiting for the group to assign partitions"


class Standing:
    """What the worker's loops have to know of each other."""

    def __init__(self, ownership: Ownership, contact: Contact) -> None:
        self._ownership = ownership
        self._contact = contact
        self.tenure: Tenure | None = None  # for which the positions below were determined
        self.role: Literal["starting", "standby", "active", "stopping"] = "starting"
        self.done: dict[TP, int] = {}  # the outcomes of all messages before these offsets are published
        self.goal: dict[TP, int] = {}  # where the topics ended at the last assignment
        self.has_caught_up = False  # everything before the goal is done
        self.has_settled = False  # and all that it made stale, or there has been time enough for it
        self._caught_up = 0.0  # when (time.monotonic)
        self._last_messages = 0.0  # when they were applied (time.monotonic)

    @property
    def is_active(self) -> bool:
        """Whether it has the partitions now, and knows where to read."""
        return self.role == "active" and self.tenure is not None and self.tenure == self._ownership.tenure

    @property
    def waits_for_group(self) -> bool:
        """Whether the group has yet to say what this worker is to do, or the broker where to read."""
        return self.role == "starting" or (self.role == "active" and not self.is_active)

    @property
    def is_quiet(self) -> bool:
        """Whether no message came for a while."""
        return time.monotonic() - self._last_messages > QUIET_SECONDS

    def unless_known(self, trouble: str) -> str:
        """What to say of trouble with the broker: nothing while it is said that the broker is gone."""
        return trouble if self._contact.lost is None else ""

    @property
    def is_at_goal(self) -> bool:
        """Whether everything is done that was in the topics at the last assignment."""
        return all(self.done.get(tp, 0) >= end for tp, end in self.goal.items())

    def look(self, backlog: int, *, is_gathered: bool) -> None:
        """Notes how far the worker has come. Without a backlog it may be for moments, so after every batch.

        Args:
            backlog: entities that wait for re-evaluation.
            is_gathered: whether messages of a bulk have no outcome yet.
        """
        if self.is_active and self.is_at_goal:
            if not self.has_caught_up and not is_gathered:
                self.has_caught_up, self._caught_up = True, time.monotonic()
            self.has_settled |= backlog == 0 or (self.has_caught_up and self._settling() == 0)

    def obstacle(self, backlog: int, *, is_disputed: bool) -> str:
        """Why the worker is not ready, "" when it is.

        Args:
            backlog: entities that wait for re-evaluation.
            is_disputed: whether the alignment topic has yet to be compared with the state.
        """
        if self.role == "stopping":
            return self.role
        if (seconds := self._contact.lost) is not None:
            return f"the broker has not answered for {seconds:.0f} s"
        if self.waits_for_group:
            return WAITS_FOR_GROUP
        if self.role == "standby":
            return ""
        if not self.has_caught_up:
            waiting = (end - self.done.get(tp, 0) for tp, end in self.goal.items())
            behind = [count for count in waiting if count > 0]
            return (
                f"catching up: {sum(behind):,} messages behind in {len(behind)} of {len(self.goal)} "
                f"partition(s); {backlog:,} entities wait"
            )
        if not is_disputed:
            return ""
        when = f" as soon as none of {backlog:,} entities waits, in {self._settling():.0f} s at the latest"
        when = "" if self.has_settled else when
        return (
            f"the alignment topic is to be compared with the state{when}, another process has written to it"
        )

    def _settling(self) -> float:
        """Seconds that are left for what waits since the worker has caught up."""
        return max(0.0, self._caught_up + SETTLE_SECONDS - time.monotonic())

    def begin(self, tenure: Tenure | None, positions: Mapping[TP, int], goal: Mapping[TP, int]) -> None:
        """The worker has the partitions and reads from here; `goal` is where they end now."""
        self.done, self.goal = dict(positions), dict(goal)
        self.has_caught_up = self.has_settled = False
        self.tenure, self.role = tenure, "active"

    def messages_applied(self) -> None:
        """Just now."""
        self._last_messages = time.monotonic()
