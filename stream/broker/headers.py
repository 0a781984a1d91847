"""Records whose headers have names that are no UTF-8, and batches that unpack to gigabytes.

Kafka keeps such records, and kafka-python and aiokafka fail at them: whoever may write to a topic would end
every reader of it, again and again. Here such a name is read with a sign in place of what is no UTF-8, and of
such a batch one record (`stream/broker/unpacking.py`).
"""

from typing import Any

from kafka.consumer import fetcher
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch

from stream.broker.unpacking import MOST_BYTES, Unreadable, check_count, in_place_of, total, unpack


class AnyText(bytes):
    """Bytes of which every part is text."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return part if isinstance(part, int) else AnyText(part)

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        return super().decode("utf-8", "replace")


class _Batch(DefaultRecordBatch):  # type: ignore[misc]
    """kafka-python's."""

    _buffer: Any
    _decompressed: bool
    _pos: int

    def _maybe_uncompress(self) -> None:
        if self._decompressed or self.compression_type == self.CODEC_NONE:
            return
        self._assert_has_codec(self.compression_type)
        content = memoryview(self._buffer)
        try:
            check_count(content)
            self._buffer, self._pos = bytearray(unpack(self.compression_type, content[self._pos :])), 0
        except Unreadable as why:
            self._buffer = bytearray(in_place_of(content, why))
            self._num_records = 1
        self._decompressed = True

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = AnyText(self._buffer)
            return super()._read_msg()


class _Records(memory_records.MemoryRecords):  # type: ignore[misc]
    """What a fetch brought of a partition; what is behind `MOST_BYTES`, unpacked, is fetched once more."""

    def __init__(self, content: Any) -> None:
        super().__init__(content)
        self._unpacked = total.bytes

    def next_batch(self) -> Any:
        if total.bytes - self._unpacked > MOST_BYTES:
            self._next_slice = None
        return super().next_batch()


def read_any_batch() -> None:
    """From now on, in all consumers of kafka-python."""
    memory_records.DefaultRecordBatch = _Batch
    fetcher.MemoryRecords = _Records
