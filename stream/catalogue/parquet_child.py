"""The process that reads a Parquet file, with a bound on its memory (`stream/catalogue/parquet.py`).

Rows become Python's values only as many at once as are not larger together than one row may be.
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import msgspec

from stream.catalogue.opening import MAX_LINE, require, too_large
from stream.catalogue.parquet import (
    MOST_MIB,
    WHOLE_NUMBER,
    End,
    Failed,
    Head,
    Rows,
    Sent,
    Unread,
    read_sized,
    send,
    write_sized,
)
from stream.errors import ConfigError, InvalidInput
from stream.mapping.column_types import plain_decimal, plain_duration
from stream.mapping.row import check_depth

BATCH_ROWS = (4096, 64)  # at once; fewer, where that many take too much memory
BUFFER_BYTES = 1 << 14  # of each column; without, whole columns of a row group would be in memory
VALUE_BYTES = 16  # that a value takes in Python
NESTED_BYTES = 64  # that a list or an object takes beside what is in it
MOST_OF_ROW = 16 * MAX_LINE  # of a row before it is known how long it is as JSON
MOST_SPOOLED = 1 << 30  # bytes of a row group's columns in a file
STATM = Path("/proc/self/statm")


def main() -> None:
    """Sends what the file has: the columns, then rows, and why there are no more."""
    path, out = Path(sys.argv[1]), sys.stdout.buffer
    why = ""
    try:
        _read(path, out)
    except MemoryError:
        why = f"{path} cannot be read: its footer takes more than {MOST_MIB} MiB"
    except ConfigError as error:
        why = str(error)
    except RecursionError:
        why = f"{path} cannot be read: its columns are nested too deep"
    send(out, Failed(why) if why else End())


def _read(path: Path, out: IO[bytes]) -> None:
    # What is only reserved counts, too, and what Arrow's own pool and BLAS reserve does.
    os.environ.update(ARROW_DEFAULT_MEMORY_POOL="system", OPENBLAS_NUM_THREADS="1")
    arrow, parquet = require("pyarrow", path), require("pyarrow.parquet", path)
    require("pyarrow.compute", path)
    arrow.set_cpu_count(1)
    bound_memory(MOST_MIB << 20)
    try:
        with parquet.ParquetFile(path) as file:
            about, names = file.metadata, file.schema_arrow.names
        if sum(map(len, names)) > MAX_LINE:
            raise ConfigError(f"{path} cannot be read: the names of its columns are {too_large()}")
        send(out, Head(names, about.num_rows))
        columns = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
        for number in range(about.num_row_groups):
            group, given = _Group(arrow, path, about, number), 0
            try:
                for rows in group.rows(columns):
                    given += len(rows)
                    send(out, Rows(rows))
            except TooMuch:
                send(out, Unread(max(1, about.row_group(number).num_rows - given)))
    except (OSError, arrow.ArrowException, OverflowError, ValueError, KeyError) as error:
        # the last three: dates beyond the year 9999, text that is not UTF-8 or a name
        # twice in a nested column, unknown time zones
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path} cannot be read: {reason}") from error


def bound_memory(more: int) -> None:
    """From now on this process may take so many bytes more. Only Linux can do that."""
    if STATM.exists():
        data = int(STATM.read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (data + more, data + more))


class TooMuch(Exception):
    """Of a row group no more rows can be read within the memory that there is."""


class _Group:
    """The rows of a row group."""

    def __init__(self, arrow: Any, path: Path, about: Any, number: int) -> None:
        self._arrow, self._path, self._about, self._number = arrow, path, about, number

    def rows(self, columns: Sequence[str], begin: int = 0) -> Iterator[list[Sent]]:
        """All rows from number `begin` on, several at a time, with these columns.

        Of every column there is a page in memory. Where those of all are too much, the halves of the columns
        are read one after the other, into files.

        Raises:
            TooMuch: there is one column, or one row's, that takes too much.
        """
        given = begin
        for count in BATCH_ROWS if len(columns) > 1 else (*BATCH_ROWS, 1):
            try:
                for batch in self._batches(columns, count, given):
                    for rows in _rows(self._arrow, batch):
                        yield rows
                        given += len(rows)
                return
            except MemoryError:  # arrow.ArrowMemoryError is one
                batch = rows = None
        if len(columns) < 2:
            raise TooMuch
        half = len(columns) // 2
        with tempfile.TemporaryFile() as left, tempfile.TemporaryFile() as right:
            for file, part in ((left, columns[:half]), (right, columns[half:])):
                for rows in self.rows(part, given):
                    for row in rows:
                        write_sized(file, msgspec.msgpack.encode(row))
                    if file.tell() > MOST_SPOOLED:
                        raise TooMuch
                file.seek(0)
            while (one := read_sized(left)) and (other := read_sized(right)):
                yield [_joined(one, other)]

    def _batches(self, columns: Sequence[str], count: int, begin: int) -> Iterator[Any]:
        """The batches, of so many rows at most, from a row on."""
        # an open file keeps what was read when memory did not suffice
        with self._arrow.parquet.ParquetFile(
            self._path, metadata=self._about, buffer_size=BUFFER_BYTES
        ) as file:
            for batch in file.iter_batches(count, [self._number], columns, use_threads=False):
                if batch.num_rows > begin:
                    yield batch.slice(begin)
                begin = max(0, begin - batch.num_rows)


def _rows(arrow: Any, batch: Any) -> Iterator[list[Sent]]:
    """The rows of a batch, as many together as take no more than one may."""
    size = sum(_bytes(arrow, column) for column in batch.columns)
    if batch.num_rows > 1 and size > MAX_LINE:
        half = batch.num_rows // 2
        yield from _rows(arrow, batch.slice(0, half))
        yield from _rows(arrow, batch.slice(half))
    elif size > MOST_OF_ROW:
        yield [_refusal(too_large())]
    elif batch.num_rows:
        rows = [_checked(row) for row in batch.to_pylist()]
        is_long = len(rows) == 1 and size > MAX_LINE and len(msgspec.msgpack.encode(rows)) > MAX_LINE
        yield [_refusal(too_large())] if is_long else rows


def _joined(one: bytes, other: bytes) -> Sent:
    """The row that two halves of its columns make."""
    left, right = _decoder.decode(one), _decoder.decode(other)
    if isinstance(left, tuple):
        return left
    if isinstance(right, tuple):
        return right
    return _refusal(too_large()) if len(one) + len(other) > MAX_LINE else left | right


def _checked(row: Mapping[str, object]) -> Sent:
    plain = {name: _plain(value) for name, value in row.items()}
    try:
        check_depth(plain)
    except InvalidInput as error:
        return _refusal(error)
    return plain


def _refusal(error: InvalidInput) -> tuple[str, str]:
    return error.reason, str(error)


def _bytes(arrow: Any, array: Any) -> int:
    """What the values of an array take, a text as often as it stands in it."""
    types, kind = arrow.types, array.type
    if isinstance(array, arrow.ExtensionArray):
        return _bytes(arrow, array.storage)
    if types.is_dictionary(kind):
        lengths = arrow.compute.binary_length(array.dictionary) if _is_text(types, kind.value_type) else None
        longest = 0 if lengths is None else arrow.compute.max(lengths).as_py() or 0
        return len(array) * (VALUE_BYTES + longest)
    if types.is_nested(kind):
        if types.is_map(kind):  # which has no `flatten`; of a slice its keys are those of all
            begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
            inside = [array.keys.slice(begin, end - begin), array.items.slice(begin, end - begin)]
        else:
            inside = array.flatten()
        parts = inside if isinstance(inside, list) else [inside]
        return len(array) * NESTED_BYTES + sum(_bytes(arrow, part) for part in parts)
    return len(array) * VALUE_BYTES + int(array.nbytes)


def _is_text(types: Any, kind: Any) -> bool:
    return any(
        (
            types.is_string(kind),
            types.is_large_string(kind),
            types.is_binary(kind),
            types.is_large_binary(kind),
        )
    )


def _plain(value: object) -> object:
    """A Parquet value as JSON would hold it."""
    if isinstance(value, Decimal):
        value = plain_decimal(value)
    if isinstance(value, int) and value.bit_length() > 63:
        return msgspec.msgpack.Ext(WHOLE_NUMBER, str(value).encode())
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return plain_duration(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()  # text which its writer did not mark as text
        except UnicodeDecodeError:
            return value  # refused where it is used
    return str(value)


_decoder = msgspec.msgpack.Decoder(Sent)

if __name__ == "__main__":
    main()
