"""Where a worker stands: its role in the group, and how far it is with its messages."""

import time
from collections.abc import Mapping
from typing import Literal

from faust.types import TP

from stream.worker.ownership import Ownership, Tenure

QUIET_SECONDS = 0.5  # without messages, until the worker counts as quiet


class Standing:
    """What the worker's loops have to know of each other."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self.tenure: Tenure | None = None  # for which the positions below were determined
        self.role: Literal["starting", "standby", "active", "stopping"] = "starting"
        self.done: dict[TP, int] = {}  # the outcomes of all messages before these offsets are published
        self.goal: dict[TP, int] = {}  # where the topics ended at the last assignment
        self.has_caught_up = False  # everything before the goal is done, and all that it made stale
        self._last_messages = 0.0  # when they were applied (time.monotonic)

    @property
    def is_active(self) -> bool:
        """Whether it has the partitions now, and knows where to read."""
        return self.role == "active" and self.tenure is not None and self.tenure == self._ownership.tenure

    @property
    def is_quiet(self) -> bool:
        """Whether no message came for a while."""
        return time.monotonic() - self._last_messages > QUIET_SECONDS

    @property
    def is_at_goal(self) -> bool:
        """Whether everything is done that was in the topics at the last assignment."""
        return all(self.done.get(tp, 0) >= end for tp, end in self.goal.items())

    def begin(self, tenure: Tenure | None, positions: Mapping[TP, int], goal: Mapping[TP, int]) -> None:
        """The worker has the partitions and reads from here; `goal` is where they end now."""
        self.done, self.goal, self.has_caught_up = dict(positions), dict(goal), False
        self.tenure, self.role = tenure, "active"

    def messages_applied(self) -> None:
        """Just now."""
        self._last_messages = time.monotonic()
