"""A Faust transport that reads from where the local state stands, not from where the group committed.

The graph is on this machine's disk, so this machine's disk knows which messages are in it; the group's
offsets may be ahead of it (an emptied state directory, a standby with older state) or behind (a crash before
the commit). Reading from the state's own offsets loses nothing in either case. The group's offsets are still
committed, as far as outcomes are published: they show the lag to Kafka's tools.

What must never happen is that a message is delivered before one that precedes it: the state would drop the
earlier one as applied. So nothing is fetched between an assignment and its seek, and what a fetch brings that
was under way during a seek is thrown away and read again.

Faust's own delivery makes an event of every message, in some ten calls, and keeps every offset until it is
acknowledged, while the aligner's thread waits for Python's lock. Here a fetch goes into the worker's queue as
a whole, and what is done is one number a partition. While that queue is full, nothing more is fetched.

Not every offset has a message to deliver: transactions take some for themselves, and what aborted ones wrote
does not count. So where a fetch ended goes into the queue, too; otherwise a partition that ends with such an
offset would never be done.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import faust
from aiokafka.consumer.group_coordinator import HeartbeatRequest
from aiokafka.errors import (
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.tables.recovery import RebalanceAgain
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from stream.broker.connection import sasl_password, ssl_context
from stream.broker.limits import BATCH_BYTES, MAX_MESSAGE_BYTES
from stream.broker.reading import FETCH_WAIT_MS, Patience, as_message
from stream.config import KafkaSettings, Settings
from stream.events import Message
from stream.worker.contact import Contact
from stream.worker.ownership import Ownership, Tenure
from stream.worker.records import read_any_batch

read_any_batch()

Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]
Done = Callable[[], Mapping[TP, int]]

IDLE_SECONDS = 0.05
FULL_SECONDS = 0.005  # between two looks at whether there is room for a fetch
METADATA_MS = 20_000  # until a partition that was added is read
FETCH_SECONDS = 1.0  # between two looks at whether to stop


class Reached(NamedTuple):
    """An item of the queue: all messages before these offsets came before it."""

    offsets: Mapping[TP, int]


def sort_out(taken: Iterable[Any]) -> tuple[list[Message], dict[TP, int]]:
    """The messages among what stood in the queue, and the next offsets once they are done."""
    messages: list[Message] = []
    following: dict[TP, int] = {}
    for item in taken:
        if isinstance(item, Reached):
            following |= item.offsets
        else:
            messages.append(as_message(item))
            following[TP(item.topic, item.partition)] = item.offset + 1
    return messages, following


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc]
    reached: Mapping[TP, int] = {}  # where the last fetch ended
    _patience: Patience

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Faust lets a fetch wait for 1.5 s, so that a broker which answers only then delays every message,
        and it reads what aborted transactions wrote."""
        consumer = super()._create_worker_consumer(transport)
        self._patience = Patience()
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        transport.contact.listen(consumer._client)
        return consumer

    def readable_end(self, tp: TP) -> int | None:
        """The end of what may be read: transactions that are still open hold back the rest."""
        end: int | None = self._ensure_consumer().last_stable_offset(tp)
        return end

    async def _fetch_records(self, consumer: Any, *arguments: Any, **options: Any) -> Any:
        try:
            records = await super()._fetch_records(consumer, *arguments, **options)
        except NoOffsetForPartitionError:  # the seek will come, and did not before this was noted
            return {}
        # what the fetcher waits for wakes it; it need not look five times a second
        consumer._fetcher._fetcher_timeout = FETCH_SECONDS
        consumer._fetcher._fetch_max_wait_ms = self._patience.wait_ms(bool(records))
        # the consumer's own `position` would wait for what a rebalance leaves open
        subscription = consumer._subscription.subscription
        if subscription is not None and subscription.assignment is not None:
            consumed = subscription.assignment.all_consumed_offsets()
            self.reached = {TP(*tp): following.offset for tp, following in consumed.items()}
        return records


class _PositionedConsumer(Consumer):  # type: ignore[misc]
    _positioned = False  # since the last assignment
    _seeks = 0
    _interrupted = False  # what a fetch brought was not delivered

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    def readable_end(self, tp: TP) -> int | None:
        """The end of what may be read, which open transactions hold back; `highwater` is that of all."""
        end: int | None = self._thread.readable_end(tp)
        return end

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.transport.ownership.tenure = None
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """The coordinator waits for this, so its member id is that of the generation."""
        member = self._thread._ensure_consumer()._coordinator.member_id
        self.transport.ownership.tenure = Tenure(generation_id, member) if assigned else None
        self._positioned = False
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """Faust calls this after every assignment, and when a fetch met a rebalance."""
        await super().perform_seek()
        assigned = self._assigned()
        positions = await self.transport.positions(assigned)
        try:
            await self.seek_wait(positions)
        except (AssertionError, IllegalStateError) as error:
            raise RebalanceAgain from error  # a partition went away meanwhile; its seek will follow
        # unknown, so they are committed at once: the group may have been reset
        self._committed_offset.update(dict.fromkeys(positions))
        if assigned != self._assigned():
            raise RebalanceAgain
        self._seeks += 1
        self._thread.reached = {}
        self._positioned, self._interrupted = True, False

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        if not self._positioned:
            await asyncio.sleep(IDLE_SECONDS)
            return {}
        if self._interrupted:
            await self.perform_seek()
        seeks = self._seeks
        try:
            records = await super()._getmany(active_partitions, timeout)
        except OffsetOutOfRangeError:  # cut back, another topic, or removed: `positions` tells which
            await self._ask_again()
            return {}
        if self._positioned and seeks == self._seeks:
            if self.transport.contact.logs.are_doubtful:
                await self._ask_again()
                return {}
            return records
        if self._positioned:
            self._positioned = False
            await self.perform_seek()
        return {}

    async def _ask_again(self) -> None:
        """Where to read, once everything that was read is applied."""
        self._positioned = False
        while not self.transport.records.empty():
            await asyncio.sleep(IDLE_SECONDS)
        with contextlib.suppress(RebalanceAgain):  # Faust asks after that
            await self.perform_seek()

    async def _drain_messages(self, fetcher: Any) -> None:
        queue = self.transport.records
        said: tuple[int, Mapping[TP, int]] = (0, {})
        try:
            while not (self.should_stop or fetcher.should_stop):
                if queue.full():
                    await asyncio.sleep(FULL_SECONDS)
                    continue
                records, _ = await self._wait_next_records(timeout=FETCH_SECONDS)
                seeks, self._interrupted = self._seeks, bool(records)
                await self.app.flow_control.acquire()  # when it opens the queue is emptied
                self._interrupted = False
                if seeks != self._seeks:  # all of it comes again
                    continue
                for record in chain.from_iterable(records.values()):
                    queue.force_put_nowait(record)
                reached = seeks, self._thread.reached
                if self._positioned and reached != said:
                    queue.force_put_nowait(Reached(self._thread.reached))
                    said = reached
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.transport.app.should_stop:
                raise

    async def is_present(self, tenure: Tenure) -> bool:
        """Whether the group's coordinator accepts a heartbeat of this tenure; False if none answers."""
        coordinator = self._thread._ensure_consumer()._coordinator
        request = HeartbeatRequest(coordinator.group_id, *tenure)
        asked = asyncio.run_coroutine_threadsafe(coordinator._send_req(request), self._thread.thread_loop)
        timeout = self.app.conf.broker_session_timeout
        try:
            answer = await asyncio.wait_for(asyncio.wrap_future(asked), timeout)
        except (KafkaError, TimeoutError):
            return False
        return bool(answer.error_code == 0)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter(self.transport.done())

    def _new_offset(self, tp: TP) -> int | None:
        offset: int | None = self.transport.done().get(tp)
        return offset

    def _assigned(self) -> set[TP]:
        return {TP(tp.topic, tp.partition) for tp in self.assignment()}


class PositionedTransport(Transport):  # type: ignore[misc]
    """Asks `positions` for the next offset to read of every assigned partition, `done` for what to commit.

    Args:
        waiting: so many messages are read ahead, and the rest of a fetch.
        ownership: its tenure begins with an assignment and ends with a revocation.
        contact: listens to the consumer.
    """

    Consumer = _PositionedConsumer

    def __init__(
        self,
        app: faust.App,
        waiting: int,
        positions: Positions,
        done: Done,
        ownership: Ownership,
        contact: Contact,
    ) -> None:
        super().__init__(app.conf.broker_consumer, app, loop=app.loop)
        self.records: Any = app.FlowControlQueue(waiting, clear_on_resume=True)  # aiokafka's, that wait
        self.positions: Any = positions
        self.done: Any = done
        self.ownership = ownership
        self.contact = contact


def build_app(
    settings: Settings,
    waiting: int,
    positions: Positions,
    done: Done,
    ownership: Ownership,
    contact: Contact,
) -> faust.App:
    """A Faust app that reads this way, and whose producer takes batches.

    Args: as for `PositionedTransport`.
    """
    kafka = settings.kafka
    app = _App(
        kafka.group_id,
        broker=";".join(f"kafka://{server}" for server in kafka.servers),
        broker_credentials=faust_credentials(kafka),
        broker_session_timeout=kafka.session_timeout_seconds,
        broker_heartbeat_interval=kafka.session_timeout_seconds / 4,
        broker_request_timeout=max(30.0, kafka.session_timeout_seconds),
        broker_client_id="sameas",
        consumer_auto_offset_reset="none",  # a position that is not there is asked for, not chosen
        consumer_metadata_max_age_ms=METADATA_MS,
        stream_wait_empty=False,  # positions come from the state, so nothing has to be waited for
        producer_max_request_size=MAX_MESSAGE_BYTES,
        producer_max_batch_size=BATCH_BYTES,
        producer_compression_type=kafka.codec,
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        web_enabled=False,
        autodiscover=False,
    )
    app.transport = PositionedTransport(app, waiting, positions, done, ownership, contact)
    return app


class _App(faust.App):  # type: ignore[misc]
    def _create_directories(self) -> None:
        """Faust's own tables are not used, so neither is its data directory."""


def faust_credentials(kafka: KafkaSettings) -> Any:
    """Credentials for a Faust app, None without TLS and SASL.

    Raises:
        ConfigError: the certificates or the password file cannot be used.
    """
    import faust.auth

    context = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        return faust.auth.SASLCredentials(
            username=kafka.sasl_plain_username,
            password=sasl_password(kafka),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.auth.SSLCredentials(context) if context else None
