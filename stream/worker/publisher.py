"""Outputs into the broker, as whole record batches: a batch costs the event loop what a single send would.

Order holds within a partition, as its next batch goes out when the last one is acknowledged. A key goes to
the partition that Kafka's own clients would choose for it. What is too large for the topic goes out smaller,
or not at all: it would be as large after a restart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from faust.types.transports import ProducerT
from prometheus_client import Counter

from stream.broker.limits import MAX_MESSAGE_BYTES, smaller
from stream.config import TopicSettings
from stream.console import log
from stream.engine.interface import Output
from stream.worker.ownership import Tenure


class Placed(NamedTuple):
    """A record batch that the broker has."""

    topic: str
    partition: int
    first: int  # offset
    records: int


class Publisher:
    """Faust's producer, by the batch."""

    def __init__(
        self,
        producer: Callable[[], ProducerT],
        topics: TopicSettings,
        partitions: Mapping[str, int],
        confirm: Callable[[Tenure | None], Awaitable[None]],
        refused: Counter,
    ) -> None:
        """
        Args:
            producer: there is none before the app starts.
            partitions: of each topic.
            confirm: called before each record batch, see `Ownership.confirm`.
            refused: counts by topic what is too large.
        """
        self._producer = producer
        self._confirm = confirm
        self._refused = refused
        self._told: set[str] = set()  # topics
        self._topic_of = {
            "alignments": topics.alignments,
            "alignment_events": topics.alignment_events,
            "dead_letters": topics.dead_letters,
        }
        self._partitions = partitions

    async def send(self, outputs: Sequence[Output], tenure: Tenure | None = None) -> list[Placed]:
        """Until the broker has all of them; waits until this worker owns the partitions.

        Args:
            tenure: the one in which they may be sent, if not in any.

        Raises:
            NotOwner: that tenure has ended. Some may be sent.
            KafkaError: it does not take them, for another reason than their size.
        """
        producer = self._producer()._ensure_producer()
        queues: dict[tuple[str, int], list[Output]] = {}
        for output in outputs:
            topic = self._topic_of[output.kind]
            partition = output.partition
            if partition is None:
                partition = await self._partition(producer, topic, output)
            queues.setdefault((topic, partition), []).append(output)
        placed = await asyncio.gather(
            *(
                _send_in_order(producer, *place, queue, lambda: self._confirm(tenure), self._refuse)
                for place, queue in queues.items()
            )
        )
        return [batch for batches in placed for batch in batches]

    def _refuse(self, topic: str, output: Output) -> None:
        """Counts what the broker refuses for its size, and tells of the first."""
        self._refused.labels(topic).inc()
        if topic not in self._told:
            self._told.add(topic)
            log.warning(
                f"topic {topic}: record {output.key!r:.200} of {len(output.value or b''):,} bytes is larger "
                "than the broker allows. It goes out smaller or not at all, and so will others, which "
                "sameas_refused_outputs_total counts; raise the topic's max.message.bytes"
            )

    async def _partition(self, producer: AIOKafkaProducer, topic: str, output: Output) -> int:
        if self._partitions[topic] == 1:
            return 0
        await producer.partitions_for(topic)  # known from now on
        partition: int = producer._partition(topic, None, None, None, output.key, output.value)
        return partition


async def _send_in_order(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    outputs: list[Output],
    confirm: Callable[[], Awaitable[None]],
    refused: Callable[[str, Output], None],
) -> list[Placed]:
    placed: list[Placed] = []
    start, most = 0, len(outputs)
    while start < len(outputs):
        batch, end = producer.create_batch(), start
        while end < min(start + most, len(outputs)) and batch.append(
            timestamp=None, key=outputs[end].key, value=outputs[end].value, headers=outputs[end].headers
        ):
            end += 1
        batch.close()  # or another send might add to it
        try:
            if batch.size() > MAX_MESSAGE_BYTES:
                raise MessageSizeTooLargeError
            await confirm()
            accepted = await producer.send_batch(batch, topic, partition=partition)
            first = (await accepted).offset
        except MessageSizeTooLargeError:
            most = max(1, (end - start) // 2)
            if end - start == 1:
                refused(topic, outputs[start])
                replacement = smaller(outputs[start])
                outputs[start : start + 1] = [] if replacement is None else [replacement]
            continue
        placed.append(Placed(topic, partition, first, end - start))
        start = end
    return placed
