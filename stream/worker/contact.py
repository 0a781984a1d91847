"""What the answers to the worker's consumer tell beside what it asked for: whether the broker is there, and
whether its logs may be others than those that the state was compared with.

Of several brokers one that answers is enough: the others' partitions get another leader.

A log that was cut back, and has grown beyond the consumer's position since, is told neither by that position
nor by the name or id of its topic. But it had another leader after that, or its only one was away. Each
leader's batches bear an epoch, which is higher than that of the leader before.
"""

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiokafka import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from faust.types import TP

FAILING_SECONDS = 1.0  # of nothing but failures, until the broker counts as gone

_BATCH = struct.Struct(">qiib")  # of a batch its first offset, the length of the rest, its epoch, its format
_LENGTH_FROM = 12  # bytes of a batch that its length does not count
_EPOCH_FORMAT = 2  # the first that has one


class Logs:
    """Whether the logs may be others than those that were compared with the state.

    Told by the consumer's thread, asked by the worker's.
    """

    def __init__(self) -> None:
        self._epochs: dict[TP, int] = {}  # the newest that is known of each partition
        self._has_failed = False  # a fetch, since the last one that did not
        self.are_doubtful = False

    def compare(self, epochs: Mapping[TP, int]) -> None:
        """They are going to be compared with the state; what is answered from now on counts.

        Args:
            epochs: of the present leaders, as far as known.
        """
        self._has_failed = self.are_doubtful = False
        for tp, epoch in epochs.items():
            self._epochs[tp] = max(epoch, self._epochs.get(tp, epoch))

    def failed(self) -> None:
        """A fetch: there may be another leader, or the same one with another disk."""
        self._has_failed = True

    def fetched(self, topics: Any) -> None:
        """Looks at the answer to a fetch before anything of it is delivered.

        Args:
            topics: as aiokafka has them: names, with partitions as (number, error, ..., batches).
        """
        if self._has_failed:
            self.are_doubtful, self._has_failed = True, False
        for topic, partitions in topics:
            for partition, error, *_, batches in partitions:
                self._has_failed |= error != 0
                for epoch in _epochs(batches or b""):
                    self._look(TP(topic, partition), epoch)

    def _look(self, tp: TP, epoch: int) -> None:
        if epoch > self._epochs.setdefault(tp, epoch):  # for the first time
            self.are_doubtful, self._epochs[tp] = True, epoch


def _epochs(batches: bytes) -> Iterator[int]:
    """Of the leaders of these batches, the last of which may be cut short."""
    start = 0
    while start + _BATCH.size <= len(batches):
        _, length, epoch, batch_format = _BATCH.unpack_from(batches, start)
        if batch_format >= _EPOCH_FORMAT and epoch >= 0:
            yield epoch
        start += _LENGTH_FROM + max(length, 0)


class Contact:
    """Since when the broker has been asked and has not answered; and what fetches tell of its logs.

    Args:
        patience: seconds without an answer until the broker counts as gone, although it takes questions.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._asked: float | None = None  # when first, since the last answer (time.monotonic)
        self._failed: float | None = None  # the same for a question that failed
        self.logs = Logs()

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
            if isinstance(request, FetchRequest):
                self.logs.failed()
            raise
        except asyncio.CancelledError:  # the group gives the partitions anew; no answer is awaited any more
            self._asked = None
            raise
        self._asked = self._failed = None
        if isinstance(request, FetchRequest):
            self.logs.fetched(answer.topics)
        return answer
