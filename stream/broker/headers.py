"""Records whose headers have names that are no UTF-8.

Kafka keeps such records, and kafka-python and aiokafka fail at them: whoever may write to a topic would end
every reader of it, again and again. Here such a name is read with a sign in place of what is no UTF-8.
"""

from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


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

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = AnyText(self._buffer)
            return super()._read_msg()


def accept_any_name() -> None:
    """From now on, in all consumers of kafka-python."""
    memory_records.DefaultRecordBatch = _Batch
