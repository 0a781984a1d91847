"""What a fetch brought, read also where headers have names that are no UTF-8 (`stream/broker/headers.py`).

aiokafka reads a batch with compiled code, which gives up at such a name; its Python code then reads the rest.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from stream.broker.headers import AnyText


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
            for record in self._batch:
                count += 1
                yield record
        except UnicodeDecodeError:
            yield from islice(_Lenient(self._content), count, None)


class _Records(_MemoryRecordsPy):  # type: ignore[misc]
    def next_batch(self) -> Any:
        content, batch = self._next_slice, super().next_batch()
        return batch if batch is None or batch.magic < 2 else _Batch(batch, content)


def accept_any_name() -> None:
    """From now on, in all consumers of aiokafka."""
    fetcher.MemoryRecords = _Records
