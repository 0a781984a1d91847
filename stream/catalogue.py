"""The entity events of files, and what a feed makes of them: skipping what was fed, finding what is gone."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream.broker.connection import admin_client
from stream.broker.reading import read_topic
from stream.columns import SourceMapping
from stream.config import Settings
from stream.errors import ConfigError, InvalidInput
from stream.events import UNDECODABLE, EntityEvent, encode, event_key
from stream.files import Meter, check_exists
from stream.mapping import read_canonical, read_events

Refused = Callable[[InvalidInput], None]  # is told of each line that cannot be used


def read_files(
    settings: Settings, files: Iterable[Path], source: str | None, meter: Meter | None = None
) -> Iterator[EntityEvent | InvalidInput]:
    """The events of files in order, refusals (which name file and line) in their place.

    Canonical `.jsonl` files need no mapping; others are read with the mapping of `source`. With a source and
    no files, the mapping's own files are read.

    Raises:
        ConfigError: no mapping, a missing file or a missing column.
    """
    files = list(files)
    if source is not None:
        for _, event in read_events(source, _mapping(settings, source, files), Path(), meter):
            yield event
        return
    if not files:
        raise ConfigError("nothing to feed: name files, or a source with --source")
    check_exists(files)
    for path in files:
        for line, event in read_canonical(path, meter=meter):
            yield (
                InvalidInput(event.reason, f"{path}:{line}: {event}")
                if isinstance(event, InvalidInput)
                else event
            )


def files_of(settings: Settings, files: Iterable[Path], source: str | None) -> list[Path]:
    """The files that `read_files` reads.

    Raises:
        ConfigError: one of them cannot be read, or there is no such source.
    """
    files = list(files)
    if source is not None:
        files = [Path(name) for name in _mapping(settings, source, files).all_files()]
    check_exists(files)
    return files


def _mapping(settings: Settings, source: str, files: list[Path]) -> SourceMapping:
    """The mapping of a source; files that are given take the place of its own."""
    mapping = settings.sources.get(source)
    if mapping is None:
        names = ", ".join(settings.sources) or "none"
        raise ConfigError(f"there is no [sources.{source}] in the settings; known sources: {names}")
    if not files:
        return mapping
    if mapping.tables:
        raise ConfigError(f"sources.{source} has several tables: name the file of each in the mapping")
    return msgspec.structs.replace(mapping, file=[str(path.absolute()) for path in files])


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


class FeedProgress(msgspec.Struct, frozen=True):
    """What is written to the file of --resume: so many events of this very feed are in the broker.

    Going on reads the files again and leaves out as many events: they come in the same order as long as the
    files, the mapping and the topic are the same, which `fed` tells. Feeding an event twice does no harm;
    so the file may lag behind.
    """

    fed: dict[str, Any]
    events: int

    def save(self, path: Path) -> None:
        """Replaces the file as a whole."""
        new = path.with_name(f"{path.name}.new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")
        new.replace(path)

    @staticmethod
    def begin(settings: Settings, files: Iterable[Path], source: str | None) -> "FeedProgress":
        """Nothing is fed yet. Raises BrokerError."""
        mapping = None if source is None else settings.sources.get(source)
        stats = {str(path): path.stat() for path in files}
        topic = settings.topics.entities
        with admin_client(settings.kafka) as admin:
            [description] = admin.describe_topics([topic])
        fed: dict[str, Any] = {
            "topic": topic,
            "topic_id": str(description.get("topic_id")),
            "source": source,
            "mapping": None if mapping is None else msgspec.to_builtins(mapping),
            "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
        }
        return FeedProgress(fed, 0)

    def resumed(self, path: Path) -> "FeedProgress":
        """As far as the file says, or from the beginning where there is none.

        Raises:
            ConfigError: the file cannot be read or written, or belongs to another feed.
        """
        if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise ConfigError(f"--resume {path}: cannot be written")
        if not path.exists():
            return self
        try:
            found = msgspec.json.decode(path.read_bytes(), type=FeedProgress)
        except (OSError, *UNDECODABLE) as error:
            raise ConfigError(f"--resume {path}: cannot be read: {error}; delete it to begin anew") from error
        for name, value in self.fed.items():
            if found.fed.get(name) != value:
                raise ConfigError(
                    f"--resume {path} belongs to another feed: {name.replace('_', ' ')} has changed; "
                    "delete it to begin anew"
                )
        return found


class _Op(msgspec.Struct):
    op: Literal["upsert", "delete"]


_op = msgspec.json.Decoder(_Op)


def present_entities(settings: Settings) -> dict[bytes, None]:
    """The keys of all entities in the entity topic, `source:id`, that are not deleted. Raises BrokerError."""
    present: dict[bytes, None] = {}
    for record in read_topic(settings, settings.topics.entities):
        key = record.key or b""
        if record.value is None or _is_delete(record.value):
            present.pop(key, None)
        else:
            present[key] = None
    return present


def _is_delete(value: bytes) -> bool:
    try:
        return _op.decode(value).op == "delete"
    except UNDECODABLE:
        return False  # a dead letter once; deleting its key does no harm


class Export:
    """Which entities a full export has, and so which are gone."""

    def __init__(self, source: str | None) -> None:
        self._keys: set[bytes] = set()
        self._sources = set() if source is None else {source}

    def watch(self, events: Iterable[EntityEvent]) -> Iterator[EntityEvent]:
        """The events as they are, noted."""
        for event in events:
            key = event_key(event)
            (self._keys.discard if event.__struct_config__.tag == "delete" else self._keys.add)(key)
            self._sources.add(event.source)
            yield event

    def gone(self, present: Iterable[bytes]) -> list[bytes]:
        """The keys of `present` that are of the export's sources, and not in it.

        Raises:
            ConfigError: the export is empty, which is more likely a mistake.
        """
        if not self._keys:
            raise ConfigError("--delete-missing: no entity is in the files, which would delete everything")
        own = tuple(f"{source}:".encode() for source in self._sources)
        return [key for key in present if key.startswith(own) and key not in self._keys]
