"""Outputs into the broker, as whole record batches: a batch costs the event loop what a single send would.

Order holds within a partition, as its next batch goes out when the last one is acknowledged. A key goes to
the partition that Kafka's own clients would choose for it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from faust.types.transports import ProducerT

from stream.broker.limits import MAX_MESSAGE_BYTES, shortened
from stream.config import TopicSettings
from stream.engine.interface import Output
from stream.errors import BrokerError
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
    ) -> None:
        """
        Args:
            producer: there is none before the app starts.
            partitions: of each topic.
            confirm: called before each record batch, see `Ownership.confirm`.
        """
        self._producer = producer
        self._confirm = confirm
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
            BrokerError: it refuses one for its size.
            KafkaError: it does not take them for another reason.
        """
        producer = self._producer()._ensure_producer()
        queues: dict[tuple[str, int], list[Output]] = {}
        for output in outputs:
            topic = self._topic_of[output.kind]
            partition = 0 if self._partitions[topic] == 1 else await self._partition(producer, topic, output)
            queues.setdefault((topic, partition), []).append(output)
        placed = await asyncio.gather(
            *(
                _send_in_order(producer, *place, queue, lambda: self._confirm(tenure))
                for place, queue in queues.items()
            )
        )
        return [batch for batches in placed for batch in batches]

    async def _partition(self, producer: AIOKafkaProducer, topic: str, output: Output) -> int:
        await producer.partitions_for(topic)  # known from now on
        partition: int = producer._partition(topic, None, None, None, output.key, output.value)
        return partition


async def _send_in_order(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    outputs: list[Output],
    confirm: Callable[[], Awaitable[None]],
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
                outputs[start] = _smaller(outputs[start], topic)
            continue
        placed.append(Placed(topic, partition, first, end - start))
        start = end
    return placed


def _smaller(output: Output, topic: str) -> Output:
    """A dead letter has to get through, whatever is in it: a refused one would come back for ever."""
    smaller = shortened(output)
    if smaller is output:
        raise BrokerError(
            f"topic {topic}: record {output.key!r:.200} of {len(output.value or b''):,} bytes is "
            "larger than the broker allows; raise the topic's max.message.bytes"
        )
    return smaller
