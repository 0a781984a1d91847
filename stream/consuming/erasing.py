"""Erasing an entity: what of it can be reached from here, and where it stands besides.

A tombstone in the entity topic ends the entity: the worker withdraws its alignments by itself, and its state
forgets the values. Logs cannot be rewritten; their records expire.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from index.entity import node_of
from index.graph import GraphStore
from index.store import Store, lock
from stream.atomic import refusals
from stream.broker.folding import Partitions
from stream.broker.producing import Record
from stream.broker.reading import read_topic
from stream.config import Settings
from stream.engine.parts import SNAPSHOT
from stream.errors import InvalidInput
from stream.events import Delete, curie, decode_entity_event, split_curie, unescape_bar
from stream.state.generations import is_held, read_current


class Found(msgspec.Struct):
    """Where an entity stands in topics."""

    tombstones: list[Record]  # which end the entity and the verdicts on it
    aligned: list[str]  # CURIEs of its partners
    pointing: list[str]  # CURIEs of entities with a relation to it
    mentions: dict[str, int]  # records that name it, by log; of dead letters those with its id


def find(settings: Settings, name: str) -> Found:
    """Looks through topics up to their ends.

    Args:
        name: a CURIE.

    Raises:
        InvalidInput: `name` is no CURIE.
        BrokerError: unreachable, or a topic is missing or may not be read.
    """
    source, local_id = split_curie(name)
    topics = settings.topics
    topic, links = canonical_topic(settings, source), topics.links
    names_id, names_it = _spelling(local_id), _spelling(name)

    def is_it(record: Any) -> bool:
        return bool(record.key == name.encode())

    def has_it(record: Any) -> bool:
        return name in _pair(record.key)

    entities = _folded(settings, topic, lambda record: is_it(record) or names_id.search(record.value))
    verdicts = _folded(settings, links, has_it)
    alignments = _folded(settings, topics.alignments, has_it)

    logs = ((topics.alignment_events, names_it), (topics.dead_letters, names_id))
    # a tombstone ends what stands in its own partition, and keys move when partitions are added
    ends = [
        Record(topic, key, None, partition)
        for partition, key, _ in entities.standing()
        if key == name.encode()
    ]
    ends += [Record(links, key, None, partition) for partition, key, _ in verdicts.standing()]
    return Found(
        ends,
        [other for key in alignments.newest() for other in _pair(key) if other != name],
        [at for value in entities.newest().values() for at in _pointing(value, source, local_id)],
        {
            log: sum(
                spelling.search(part or b"") is not None
                for record in read_topic(settings, log)
                for part in [b" ".join(filter(None, (record.key, record.value)))]
            )
            for log, spelling in logs
        },
    )


def canonical_topic(settings: Settings, source: str) -> str:
    """The topic with a source's canonical events."""
    mapping = settings.sources.get(source)
    own = None if mapping is None or mapping.all_tables() else mapping.topic
    return own or settings.topics.entities


def forget_former_values(directory: Path, name: str) -> str | None:
    """Takes the former values of a deleted entity out of the files of a worker's state.

    RocksDB keeps what was overwritten until it merges its files, and the snapshot has vectors that were made
    of it; the next start makes a new one. A generation that is being built began with a copy of all of this,
    and may not have read yet that the entity is gone: the worker begins it anew.

    Returns:
        Why that cannot be done now; None if it is done, or there is no state.

    Raises:
        StateError: the state cannot be read or written.
    """
    current = read_current(directory)
    if current is None:
        return None
    if is_held(directory):
        return "a worker has it; run this command again when the worker is stopped"
    with refusals(directory), lock(directory), Store(directory / current) as store:
        [entity] = GraphStore(store).entities([node_of(name)])
        if entity is not None and not entity.deleted:
            return "no worker has read yet that the entity is gone; start it, and run this command again"
        store.compact()
        unfinished = (path for path in directory.glob("generation-*") if path.name != current)
        for path in (*(directory / current).glob(f"{SNAPSHOT}*"), *unfinished):
            shutil.rmtree(path)
    return None


def _folded(settings: Settings, topic: str, wanted: Callable[[Any], object]) -> Partitions[bytes]:
    """What stands in a compacted topic, of the records that are wanted."""
    found = Partitions[bytes]()
    for record in read_topic(settings, topic):
        found.fold(record, record.value if record.value is not None and wanted(record) else None)
    return found


def _spelling(text: str) -> re.Pattern[bytes]:
    """Finds a text as a whole, as JSON may write it."""
    spellings = {text.encode(), json.dumps(text)[1:-1].encode(), msgspec.json.encode(text)[1:-1]}
    return re.compile(rb"(?<!\w)(?:%s)(?!\w)" % b"|".join(map(re.escape, spellings)))


def _pair(key: bytes | None) -> list[str]:
    """The two names in the key of an alignment or of a link; one or none in any other."""
    return [unescape_bar(part) for part in (key or b"").decode(errors="replace").split("|")]


def _pointing(value: bytes, source: str, local_id: str) -> Iterator[str]:
    """The entity of an event if one of its relations leads to this one."""
    try:
        event = decode_entity_event(None, value)
    except InvalidInput:
        return
    if isinstance(event, Delete) or event.source != source:
        return
    if any(local_id in targets for targets in event.relations.values()):
        yield curie(event.source, event.id)
