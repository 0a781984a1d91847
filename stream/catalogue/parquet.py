"""Rows of Parquet files, read by a process of its own (`stream/catalogue/parquet_child.py`).

A few kilobytes of Parquet can ask for gigabytes: in a footer, in a page, in a text that comes a million times
or in a list. Arrow knows no bound, and a process cannot take memory from itself alone. So the other one has
one, and what it sends is bounded: rows that are no larger than a line may be.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from stream.catalogue.opening import Meter
from stream.errors import ConfigError, InvalidInput
from stream.mapping.gone import columns_to_read
from stream.mapping.row import Row, missing_columns, repeated_columns

PARQUET: Final = {".parquet"}
MOST_MIB: Final = 200  # that reading a file may take, on Linux
WHOLE_NUMBER: Final = 1  # msgpack's extension for those of more than 64 bits
SIZE_BYTES: Final = 4  # before each message of the other process


class Head(msgspec.Struct, tag=True):
    """The columns of the file, and how many rows it says it has."""

    names: list[str]
    rows: int


Sent = dict[str, object] | tuple[str, str]  # a row; in place of one that is refused, the reason and the words


class Rows(msgspec.Struct, tag=True):
    """Rows in order."""

    rows: list[Sent]


class Unread(msgspec.Struct, tag=True):
    """So many rows are too much for the memory that there is."""

    rows: int


class Failed(msgspec.Struct, tag=True):
    """The file cannot be read, or not any further."""

    why: str


class End(msgspec.Struct, tag=True):
    """All is read."""


Told = Head | Rows | Unread | Failed | End


def read_parquet(
    path: Path, required: Sequence[str], mapped: Sequence[str], meter: Meter | None
) -> Iterator[tuple[int, Row | InvalidInput]]:
    """The rows, each with its number. Of the columns those that are mapped; all, if none is.

    Raises:
        ConfigError: the file cannot be read, a required column is not in it, or a mapped one twice.
    """
    with _opened(path) as (head, process):
        names = head.names
        if problem := missing_columns(required, dict.fromkeys(names)) or repeated_columns(mapped, names):
            raise ConfigError(f"{path}: {problem}")
        assert process.stdin is not None
        process.stdin.write(json.dumps(columns_to_read(mapped, names)).encode())
        process.stdin.close()
        line, size, begin = 0, path.stat().st_size, 0 if meter is None else meter.done
        while not isinstance(told := _told(path, process), End):
            if isinstance(told, Unread):
                rows = f"row {line + 1:,}" if told.rows == 1 else f"rows {line + 1:,} to {line + told.rows:,}"
                yield (
                    line + 1,
                    InvalidInput(
                        "too-large",
                        f"{rows}: to read them takes more than {MOST_MIB} MiB; write the file with "
                        "smaller pages and row groups, or map fewer columns",
                    ),
                )
                line += told.rows
            elif isinstance(told, Rows):
                for row in told.rows:
                    line += 1
                    yield line, InvalidInput(*row) if isinstance(row, tuple) else row
            if meter is not None:
                meter.done = begin + size * min(line, head.rows) // max(1, head.rows)
        if meter is not None:
            meter.done = begin + size


def column_names(path: Path) -> list[str]:
    """The names of a file's columns; one may be there twice. Raises ConfigError."""
    with _opened(path) as (head, _):
        return head.names


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Head, subprocess.Popen[bytes]]]:
    """What the footer says, and the process, which waits for the columns to read. Raises ConfigError."""
    # -P: no module of the directory in which the command was called is taken for one of ours
    command = [sys.executable, "-P", "-m", "stream.catalogue.parquet_child", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            head = _told(path, process)
            assert isinstance(head, Head)
            yield head, process
        finally:
            process.kill()


def _told(path: Path, process: subprocess.Popen[bytes]) -> Told:
    """The next message. Raises ConfigError if it is a failure, or if there is none."""
    assert process.stdout is not None and process.stderr is not None
    content = read_sized(process.stdout)
    if not content:
        last = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        status = process.wait()
        if "bad_alloc" in last:  # where Arrow's parser of footers does not catch it
            raise ConfigError(f"{path} cannot be read: its footer takes more than {MOST_MIB} MiB")
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        raise ConfigError(f"{path} cannot be read: its reader ended with {how}{f': {last}' if last else ''}")
    told: Told = _decoder.decode(content)
    if isinstance(told, Failed):
        raise ConfigError(told.why)
    return told


def send(file: IO[bytes], told: Told) -> None:
    """Sends a message, for the other process."""
    write_sized(file, msgspec.msgpack.encode(told))
    file.flush()


def write_sized(file: IO[bytes], content: bytes) -> None:
    """Writes something of at least one byte, and its size in front of it."""
    file.write(len(content).to_bytes(SIZE_BYTES) + content)


def read_sized(file: IO[bytes]) -> bytes:
    """What `write_sized` wrote; nothing at the end."""
    return file.read(int.from_bytes(file.read(SIZE_BYTES)))


def _extension(code: int, data: memoryview) -> object:
    return int(bytes(data))


_decoder = msgspec.msgpack.Decoder(Told, ext_hook=_extension)
