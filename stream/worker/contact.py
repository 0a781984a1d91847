"""Whether the broker answers, told by what the worker's consumer asks it: fetches, heartbeats, commits.

Of several brokers one that answers is enough: the others' partitions get another leader.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

FAILING_SECONDS = 1.0  # of nothing but failures, until the broker counts as gone


class Contact:
    """Since when the broker has been asked and has not answered.

    Args:
        patience: seconds without an answer until the broker counts as gone, although it takes questions.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._asked: float | None = None  # when first, since the last answer (time.monotonic)
        self._failed: float | None = None  # the same for a question that failed

    @property
    def lost(self) -> float | None:
        """For how many seconds the broker has been gone, None while it is there."""
        now, asked, failed = time.monotonic(), self._asked, self._failed
        if failed is not None and now - failed > FAILING_SECONDS:
            return now - failed
        if asked is not None and now - asked > self._patience:
            return now - asked
        return None

    def listen(self, client: AIOKafkaClient) -> None:
        """From now on takes note of what becomes of this client's questions."""
        send = client.send

        async def listened(node_id: int, request: Any, **options: Any) -> Any:
            return await self.ask(lambda: send(node_id, request, **options), request)

        client.send = listened

    async def ask(self, send: Callable[[], Awaitable[Any]], request: Any) -> Any:
        """What `send` returns, or raises, for this request."""
        if not isinstance(request, JoinGroupRequest | SyncGroupRequest):  # which wait for other workers
            self._asked = time.monotonic() if self._asked is None else self._asked
        try:
            answer = await send()
        except KafkaError:
            self._failed = time.monotonic() if self._failed is None else self._failed
            raise
        except asyncio.CancelledError:  # the group gives the partitions anew; no answer is awaited any more
            self._asked = None
            raise
        self._asked = self._failed = None
        return answer
