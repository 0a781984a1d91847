"""How far a feed of files has come, so that the same feed can continue from there."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from stream.atomic import replace
from stream.broker.connection import admin_client
from stream.config import Settings
from stream.errors import ConfigError
from stream.events import UNDECODABLE


class FeedProgress(msgspec.Struct, frozen=True):
    """What is written to the file of --resume: so many events of this very feed are in the broker.

    To continue, the files are read again and as many events left out. These come in the same order as long as
    the files, the mapping and the topic are those that `fed` describes. Feeding an event twice does no harm,
    so the file may lag behind.
    """

    fed: dict[str, Any]
    events: int

    def save(self, path: Path) -> None:
        """Replaces the file as a whole."""
        replace(path, msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @staticmethod
    def begin(settings: Settings, files: Iterable[Path], source: str | None) -> "FeedProgress":
        """The progress of a feed that has fed nothing yet. Raises BrokerError."""
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
        """The progress that the file holds, or this one where there is no file.

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
            raise ConfigError(f"--resume {path}: cannot be read: {error}; delete it to start over") from error
        for name, value in self.fed.items():
            if found.fed.get(name) != value:
                raise ConfigError(
                    f"--resume {path} belongs to another feed: {name.replace('_', ' ')} has changed; "
                    "delete it to start over"
                )
        return found
