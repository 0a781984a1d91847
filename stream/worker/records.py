"""What a fetch brought, read also where headers have names that are no UTF-8 (`stream/broker/headers.py`).

aiokafka reads a batch with compiled code, which gives up at such a name; its Python code then reads the rest.
The compiled code unpacks with functions that are put in its module.
"""

import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record import default_records
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from stream.broker.headers import AnyText
from stream.broker.unpacking import MOST_BYTES, Unreadable, check_count, in_place_of, total, unpack


class _Lenient(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: Any

    def _read_msg(self) -> Any:
        if not isinstance(self._buffer, AnyText):
            self._buffer = AnyText(self._buffer)
        return super()._read_msg()


class _Batch:
    """A batch as aiokafka has it, but for this."""

    def __init__(self, batch: Any, content: memoryview) -> None:
        self._batch = batch
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        """Of a control batch, whose record says how a transaction ended."""
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        count = 0
        try:
            if self._batch.compression_type:
                check_count(self._content)
            for record in self._batch:
                count += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(_Lenient(self._content), count, None)
        except Unreadable as why:
            yield from DefaultRecordBatch(in_place_of(self._content, why))


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._unpacked = total.bytes

    def has_next(self) -> bool:
        """What is behind `MOST_BYTES`, unpacked, is fetched once more."""
        if total.bytes - self._unpacked > MOST_BYTES:
            self._next_slice = None
        return bool(super().has_next())

    def next_batch(self) -> Any:
        content, batch = self._next_slice, super().next_batch()
        return batch if content is None or batch.magic < 2 else _Batch(batch, content)


def read_any_batch() -> None:
    """From now on, in all consumers of aiokafka."""
    fetcher.MemoryRecords = _Records
    for module in {sys.modules[DefaultRecordBatch.__module__], default_records}:
        for codec, name in enumerate(("gzip", "snappy", "lz4", "zstd"), 1):
            setattr(module, f"{name}_decode", partial(unpack, codec))
