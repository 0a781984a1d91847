"""The store: one RocksDB in the state directory, written only in whole batches.

Invariant: what is on disk is always the state after some batch, never between two. Writes gather in
`pending`, which reads see at once, and `commit` makes them one synced write-ahead-log entry; `rollback`
forgets them. Keys are a one-byte table name and a table-specific rest, so that a table is a key range.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from index.errors import StoreError
from index.tables import META

SCHEMA_VERSION: Final = 8
BLOCK_CACHE_BYTES: Final = 64 << 20
WRITE_BUFFER_BYTES: Final = 32 << 20
_OPTIONS_FILE: Final = "rocksdict-config.json"


def lock(directory: Path) -> IO[str]:
    """Makes this process the only one with the state directory, until the file that it returns is closed.

    Raises:
        StoreError: in use by another process, or not writable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "LOCK").open("a+")
    except OSError as error:
        raise StoreError(f"state directory {directory}: {error.strerror}; give a writable one") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StoreError(
            f"state directory {directory} is in use by process {owner}; stop it or give another directory"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


class Store:
    """A RocksDB with an exclusive lock, a schema version and atomic batches.

    Args:
        path: the state directory; created if missing.
        read_only: reads what the process that may have it has written until now, and touches nothing in
            the directory.

    Raises:
        StoreError: locked by another process, not writable, another schema version, or corrupt.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._pending: dict[bytes, bytes | None] = {}
        self._pending_of: dict[bytes, dict[bytes, None]] = {}  # the same keys by their table, for scans
        self._failed = False  # whether a write did
        self._lock = None if read_only else lock(path)
        try:
            rocksdb = path / "rocksdb"
            self._db = (
                _open_read_only(rocksdb) if read_only else _open(rocksdb, _options(), AccessType.read_write())
            )
            self._check_schema()
        except StoreError:
            self._unlock()
            raise
        except Exception as error:  # rocksdict raises bare Exception
            self._unlock()
            raise StoreError(
                f"state directory {path} cannot be opened: {error}; "
                "repair the disk, or delete the directory to rebuild it from the topics"
            ) from error
        self._synced = WriteOptions()
        self._synced.sync = True

    def _check_schema(self) -> None:
        raw = self._db.get(META + b"schema")
        if raw is None:
            self._db[META + b"schema"] = json.dumps(SCHEMA_VERSION).encode()
        elif json.loads(raw) != SCHEMA_VERSION:
            found = json.loads(raw)
            self._db.close()
            raise StoreError(
                f"state directory {self.path} has schema {found}, this version reads {SCHEMA_VERSION}; "
                "delete the directory to rebuild it from the topics"
            )

    def get(self, key: bytes) -> bytes | None:
        """The value, with what is pending; None if there is none."""
        if key in self._pending:
            return self._pending[key]
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._unreadable(error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys, with what is pending."""
        try:
            values: list[bytes | None] = self._db.get(list(keys)) if keys else []
        except Exception as error:
            raise self._unreadable(error) from error
        if self._pending:
            pending = self._pending
            return [pending.get(key, value) for key, value in zip(keys, values, strict=True)]
        return values

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key starts with `prefix`, in order, from `prefix + start` on, with what is pending."""
        first = prefix + start
        pending = self._pending_of.get(prefix[:1], {})
        changed = sorted(key for key in pending if key.startswith(prefix) and key >= first)
        position = 0
        key = first
        for key, value in self._db.items(from_key=first):
            if not key.startswith(prefix):
                break
            while position < len(changed) and changed[position] <= key:
                own = self._pending[changed[position]]
                if own is not None:
                    yield changed[position], own
                position += 1
            if key not in self._pending:
                yield key, value
        else:
            self._check_end(key)
        for key in changed[position:]:
            own = self._pending[key]
            if own is not None:
                yield key, own

    def _check_end(self, last: bytes) -> None:
        """Raises if items ended before the table did: they simply end where a block cannot be read."""
        iterator = self._db.iter()
        try:
            iterator.seek(last)
            while iterator.valid():
                iterator.next()
            iterator.status()
        except Exception as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StoreError:
        return StoreError(
            f"state directory {self.path}: cannot read: {error}; "
            "repair the disk, or delete the directory to rebuild it from the topics"
        )

    def _unwritable(self, error: Exception) -> StoreError:
        """RocksDB merges files as it writes, so a damaged one may show here first."""
        if "Corruption" in str(error):
            return self._unreadable(error)
        return StoreError(f"state directory {self.path}: cannot write: {error}")

    def put(self, key: bytes, value: bytes) -> None:
        """Writes with the next commit."""
        self._pending[key] = value
        self._pending_of.setdefault(key[:1], {})[key] = None

    def delete(self, key: bytes) -> None:
        """Deletes with the next commit."""
        self._pending[key] = None
        self._pending_of.setdefault(key[:1], {})[key] = None

    def clear(self, table: bytes) -> None:
        """Deletes a whole table, at once."""
        try:
            self._db.delete_range(table, bytes([table[0] + 1]), self._synced)
        except Exception as error:  # rocksdict raises bare Exception
            raise StoreError(f"state directory {self.path}: cannot write: {error}") from error

    def copy_to(self, directory: Path) -> None:
        """Makes a store in a new directory that is this one as of its last commit; quick (hard links)."""
        try:
            directory.mkdir(parents=True)
            Checkpoint(self._db).create_checkpoint(str(directory / "rocksdb"))
        except Exception as error:  # rocksdict raises bare Exception
            raise StoreError(f"state directory {directory}: cannot be written: {error}") from error

    def compact(self) -> None:
        """Rewrites the files without what was deleted or overwritten. Takes as long as reading them all."""
        try:
            self._db.flush()
            self._db.compact_range(None, None)
        except Exception as error:  # rocksdict raises bare Exception
            raise self._unwritable(error) from error

    def commit(self) -> None:
        """Makes everything pending durable in one write, or raises and leaves the disk as it was."""
        if not self._pending:
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in self._pending.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        try:
            self._db.write(batch, self._synced)
        except Exception as error:  # rocksdict raises bare Exception
            self._failed = True
            raise self._unwritable(error) from error
        self.rollback()

    def rollback(self) -> None:
        """Forgets everything pending."""
        self._pending, self._pending_of = {}, {}

    def close(self) -> None:
        """Forgets what is pending, closes the files and releases the lock."""
        self.rollback()
        try:
            self._db.close()
        except Exception as error:  # rocksdict raises bare Exception
            if not self._failed:  # else that was raised already
                raise self._unwritable(error) from error
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(directory: Path, options: Options, access: AccessType) -> Rdict:
    # Unless the column family is named, a reopened store gets a small cache and no bloom filter.
    return Rdict(str(directory), options, {"default": options}, access)


def _open_read_only(directory: Path) -> Rdict:
    """Opens what another process may be writing to, as it is at some moment.

    RocksDB reads which tables there are, and then the logs; the writes of a log that was deleted in between
    would be missing. And rocksdict writes a file of its own into the directory that it opens. So a directory
    of links to the files is opened, until all of the files are still there afterwards.
    """
    options = _options()
    options.set_max_open_files(-1)  # they stay open, even when their names are deleted
    while True:
        files = {file for file in directory.iterdir() if file.name != _OPTIONS_FILE}
        with tempfile.TemporaryDirectory(prefix="sameas-") as links:
            for file in files:
                (Path(links) / file.name).symlink_to(file.resolve())
            try:
                found = _open(Path(links), options, AccessType.read_only())
            except Exception:  # rocksdict raises bare Exception
                if all(file.exists() for file in files):
                    raise
                continue
        if all(file.exists() for file in files):
            return found
        found.close()


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_max_background_jobs(2)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_open_files(256)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options
