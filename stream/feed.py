"""Producing entity events: from files to the entity topic."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from stream.broker import unreachable
from stream.config import Settings
from stream.errors import BrokerError, ConfigError, InvalidInput
from stream.events import MAX_EVENT_BYTES, EntityEvent, curie
from stream.mapping import read_canonical, read_events
from stream.security import client_options
from stream.topics import ensure_topics, input_specs

DELIVERY_TIMEOUT_MS = 25_000  # an event that is not acknowledged by then is an error
LINGER_MS = 20
BATCH_BYTES = 256 * 1024
CHECK_EVERY = 2_000  # events between two looks at what the broker refused

Progress = Callable[[int], None]  # is told the number of events handed over so far
Record = tuple[str, bytes | None, bytes | None]  # topic, key, value
Refused = Callable[[InvalidInput], None]  # is told of each line that cannot be used


def feed_events(settings: Settings, events: Iterable[EntityEvent], progress: Progress | None = None) -> int:
    """Produces events in order, keyed by entity; their number, when the broker has acknowledged all.

    Raises:
        BrokerError: unreachable, no such topic, or an event was not delivered.
        InvalidInput: an event is too large for a message.
    """
    ensure_topics(settings, [spec for spec in input_specs(settings) if spec.role == "entities"])
    topic = settings.topics.entities
    return produce(settings, ((topic, _key(event), encode(event)) for event in events), progress)


def produce(settings: Settings, records: Iterable[Record], progress: Progress | None = None) -> int:
    """Produces records in order; their number, when the broker has acknowledged all.

    Raises:
        BrokerError: unreachable, no such topic, or a record was not delivered.
    """
    failures: list[tuple[str, BaseException]] = []
    sent, topic = 0, "none"
    producer = _producer(settings)
    try:
        for sent, (topic, key, value) in enumerate(records, 1):
            producer.send(topic, key=key, value=value).add_errback(
                lambda error, topic=topic: failures.append((topic, error))
            )
            if sent % CHECK_EVERY == 0:
                _raise_first(failures, settings)
                if progress is not None:
                    progress(sent)
        producer.flush(timeout=DELIVERY_TIMEOUT_MS / 1000 + 5)
        _raise_first(failures, settings)
    except KafkaError as error:
        raise _undelivered(error, settings, topic) from error
    finally:
        producer.close(timeout=0 if failures else 5)
    if progress is not None:
        progress(sent)
    return sent


def encode(event: EntityEvent) -> bytes:
    """The event as a message value.

    Raises:
        InvalidInput: with reason `too-large`.
    """
    value = msgspec.json.encode(event)
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidInput(
            "too-large",
            f"{curie(event.source, event.id)}: {len(value):,} bytes; a message may have {MAX_EVENT_BYTES:,}",
        )
    return value


def read_files(
    settings: Settings, files: Iterable[Path], source: str | None
) -> Iterator[EntityEvent | InvalidInput]:
    """The events of files in order, refusals (which name file and line) in their place.

    Canonical `.jsonl` files need no mapping; others are read with the mapping of `source`. With a source and
    no files, the mapping's own files are read.

    Raises:
        ConfigError: no mapping, a missing file or a missing column.
    """
    files = list(files)
    mapping = settings.sources.get(source) if source is not None else None
    if source is not None and mapping is None and source not in settings.sources:
        names = ", ".join(settings.sources) or "none"
        raise ConfigError(f"there is no [sources.{source}] in the settings; known sources: {names}")
    if mapping is not None and source is not None:
        if files:
            # the files given take the place of those in the mapping
            mapping = msgspec.structs.replace(mapping, file=[str(path.absolute()) for path in files])
        for _, event in read_events(source, mapping, Path()):
            yield event
        return
    if not files:
        raise ConfigError("nothing to feed: name files, or a source with --source")
    for path in files:
        for line, event in read_canonical(path):
            yield (
                InvalidInput(event.reason, f"{path}:{line}: {event}")
                if isinstance(event, InvalidInput)
                else event
            )


def accepted(
    events: Iterable[EntityEvent | InvalidInput], refused: Refused, *, strict: bool
) -> Iterator[EntityEvent]:
    """The usable events; each other one, oversized ones too, is told to `refused`, or raised when `strict`.

    Raises:
        InvalidInput: the first refusal, when `strict`.
    """
    for event in events:
        try:
            if isinstance(event, InvalidInput):
                raise event
            encode(event)
        except InvalidInput as error:
            if strict:
                raise
            refused(error)
        else:
            yield event


def _key(event: EntityEvent) -> bytes:
    return curie(event.source, event.id).encode()


def _producer(settings: Settings) -> KafkaProducer:
    try:
        return KafkaProducer(
            **client_options(settings.kafka),
            acks="all",
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_request_size=2 * MAX_EVENT_BYTES,
            max_block_ms=DELIVERY_TIMEOUT_MS,
            request_timeout_ms=10_000,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            allow_auto_create_topics=False,
        )
    except (KafkaError, ValueError) as error:
        raise unreachable(settings.kafka, error) from error


def _raise_first(failures: list[tuple[str, BaseException]], settings: Settings) -> None:
    if failures:
        topic, error = failures[0]
        raise _undelivered(error, settings, topic)


def _undelivered(error: BaseException, settings: Settings, topic: str) -> BrokerError:
    what: Any = (
        "larger than the topic's max.message.bytes" if isinstance(error, MessageSizeTooLargeError) else error
    )
    return BrokerError(
        f"topic {topic} at {', '.join(settings.kafka.servers)}: an event was not delivered: "
        f"{type(error).__name__}: {what}; feed again, repeated events do no harm"
    )
