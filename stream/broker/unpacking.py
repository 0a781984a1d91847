"""What a compressed batch of records unpacks to, with a bound on it.

A broker bounds a batch as it is sent: a hundred kilobytes may unpack to gigabytes, which would end every
reader of the topic, again and again. In place of the records of such a batch, and of one that cannot be
unpacked, its first offset has a record that becomes a dead letter (`stream/events.py`, `check_bytes`).
Whether a batch is read depends on it alone, so all readers see the same.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Final

import cramjam
import lz4.frame
import zstandard
from kafka.record.util import calc_crc32c, encode_varint

from stream.events import UNREAD

MOST_BYTES: Final = 64 * 2**20  # of a batch, unpacked; and of several batches of one fetch, if they are small
MOST_RECORDS: Final = 250_000
PIECE: Final = 2**10  # of zstd's, which may become 32 MiB
GZIP_WINDOW: Final = 31
XERIAL: Final = b"\x82SNAPPY\0"  # which frames blocks of snappy, behind 16 bytes
XERIAL_HEAD: Final = 16

# base offset, length; epoch of the leader, magic; checksum; attributes, last offset delta, two timestamps,
# producer's id, epoch and sequence; how many records
_HEAD, _CHECKED = struct.Struct(">qiibI"), struct.Struct(">hiqqqhii")
CODEC: Final = 7  # of the attributes
COUNT_AT: Final = _HEAD.size + _CHECKED.size - 4


class Unreadable(Exception):
    """A batch unpacks to too much, or cannot be unpacked."""


class _Total:
    """How many bytes all batches together have unpacked to."""

    bytes = 0


total = _Total()


def unpack(codec: int, content: bytes | memoryview) -> bytes:
    """The records of a batch.

    Args:
        codec: as in the attributes of a batch.

    Raises:
        Unreadable: they are larger than `MOST_BYTES`, or damaged.
    """
    found = bytearray()

    def take(piece: bytes) -> int:
        """Returns how many more bytes there may be; one more than that shows that there are too many."""
        found.extend(piece)
        total.bytes += len(piece)
        if len(found) > MOST_BYTES:
            raise Unreadable(f"its batch unpacks to more than {MOST_BYTES // 2**20} MiB")
        return MOST_BYTES - len(found)

    try:
        _CODECS[codec](bytes(content), take)
    except (
        zlib.error,
        zstandard.ZstdError,
        cramjam.DecompressionError,
        struct.error,
        RuntimeError,
        EOFError,
        MemoryError,
    ) as error:
        raise Unreadable(f"its batch cannot be unpacked: {type(error).__name__}: {error}") from error
    return bytes(found)


def check_count(batch: bytes | memoryview) -> None:
    """Raises Unreadable if a compressed batch says that it has too many records."""
    (count,) = struct.unpack_from(">i", batch, COUNT_AT)
    if count > MOST_RECORDS:
        raise Unreadable(f"its batch has {count:,} records; {MOST_RECORDS:,} are allowed")


def in_place_of(batch: bytes | memoryview, why: Unreadable) -> bytes:
    """A batch in place of one that cannot be read; its one record says why, and for which offsets it is."""
    base, _, epoch, magic, _ = _HEAD.unpack_from(batch)
    attributes, last, first_time, last_time, producer, *sequence, _ = _CHECKED.unpack_from(batch, _HEAD.size)
    value = UNREAD + f"offsets {base} to {base + last}: {why}".encode()
    record = bytearray(b"\0\0\0")  # attributes, timestamp and offset as differences from the batch's
    encode_varint(-1, record.append)  # no key
    encode_varint(len(value), record.append)
    record += value + b"\0"  # no headers
    body = bytearray(_CHECKED.pack(attributes & ~CODEC, last, first_time, last_time, producer, *sequence, 1))
    encode_varint(len(record), body.append)
    body += record
    length = _HEAD.size - 12 + len(body)
    return _HEAD.pack(base, length, epoch, magic, calc_crc32c(memoryview(body))) + bytes(body)


_Take = Callable[[bytes], int]


def _gzip(content: bytes, take: _Take) -> None:
    left = MOST_BYTES
    while content.strip(b"\0"):
        member = zlib.decompressobj(GZIP_WINDOW)
        left = take(member.decompress(content, left + 1))
        if not member.eof:
            raise EOFError("it is cut short")
        content = member.unused_data


def _snappy(content: bytes, take: _Take) -> None:
    if not content.startswith(XERIAL):
        _snappy_block(content, take, MOST_BYTES)
        return
    at, left = XERIAL_HEAD, MOST_BYTES
    while at < len(content):
        (size,) = struct.unpack_from(">i", content, at)
        if size < 1:
            raise EOFError("a block without a size")
        left = _snappy_block(content[at + 4 : at + 4 + size], take, left)
        at += 4 + size


def _snappy_block(block: bytes, take: _Take, left: int) -> int:
    if cramjam.snappy.decompress_raw_len(block) > left:  # which is allocated at once
        return take(bytes(left + 1))
    return take(bytes(cramjam.snappy.decompress_raw(block)))


def _lz4(content: bytes, take: _Take) -> None:
    left = MOST_BYTES
    while content:
        frame = lz4.frame.LZ4FrameDecompressor()
        left = take(frame.decompress(content, max_length=left + 1))
        if not frame.eof:
            raise EOFError("it is cut short")
        content = frame.unused_data or b""


def _zstd(content: bytes, take: _Take) -> None:
    while content:
        frame = zstandard.ZstdDecompressor().decompressobj()
        for at in range(0, len(content), PIECE):
            take(frame.decompress(content[at : at + PIECE]))
            if frame.eof:
                break
        else:
            raise EOFError("it is cut short")
        content = frame.unused_data + content[at + PIECE :]


_CODECS: Final[dict[int, Callable[[bytes, _Take], None]]] = {1: _gzip, 2: _snappy, 3: _lz4, 4: _zstd}
