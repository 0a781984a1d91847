"""Opening files, compressed or not, in any encoding, with a meter of what has been read; and their lines."""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, AnyStr

from stream.errors import ConfigError, InvalidInput
from stream.events import MAX_EVENT_BYTES

COMPRESSED = (".gz", ".zst")
MAX_LINE = MAX_EVENT_BYTES  # bytes, or characters of a text; also of a row of several lines
MARKS = {  # those of UTF-32 begin with those of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
RECODED_BYTES = 1 << 16  # at once


class Meter:
    """Counts the bytes read of all files together, as they lie on the disk."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self.total = sum(path.stat().st_size for path in paths if path.is_file())
        self.done = 0

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


def format_of(path: Path) -> str:
    """The suffix that names the format, in lower case: `.csv` of `films.csv.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def check_exists(paths: Iterable[Path]) -> None:
    """Raises ConfigError for the first file that cannot be read, so that nothing is begun in vain."""
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def open_bytes(path: Path, meter: Meter | None = None, encoding: str | None = None) -> Iterator[IO[bytes]]:
    """The file's contents, decompressed, in UTF-8, without a byte order mark in front.

    Args:
        encoding: of the text. None: what the byte order mark says, or else UTF-8. What it cannot be becomes a
            byte that is no UTF-8, so that it is refused where it stands.

    Raises:
        ConfigError: the file is missing, damaged or cut short.
    """
    with _opened(path, meter) as contents:
        if encoding := encoding or marked_encoding(contents.peek(4)):
            contents = io.BufferedReader(_Recoded(contents, encoding))
        if contents.peek(len(codecs.BOM_UTF8)).startswith(codecs.BOM_UTF8):
            contents.read(len(codecs.BOM_UTF8))
        yield contents


def first_bytes(path: Path, count: int) -> bytes:
    """As many of the file's contents, decompressed, and in their own encoding. Raises ConfigError."""
    with _opened(path, None) as contents:
        return contents.read(count)


@contextmanager
def _opened(path: Path, meter: Meter | None) -> Iterator[io.BufferedReader]:
    try:
        with path.open("rb") as file:
            yield _decompressed(path, file if meter is None else _Metered(file, meter))
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path} cannot be read: {reason}") from error


def marked_encoding(start: bytes) -> str | None:
    """The encoding, other than UTF-8, that a byte order mark tells."""
    return next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), None)


def _decompressed(path: Path, file: Any) -> io.BufferedReader:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if suffix == ".zst":
        arrow = require("pyarrow", path)
        return io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(file, mode="r"), "zstd"))
    return io.BufferedReader(file) if isinstance(file, _Metered) else file


def read_lines(file: IO[AnyStr]) -> Iterator[AnyStr | InvalidInput]:
    """The lines of a file; a refusal in place of one that is longer than `MAX_LINE`, which is not held."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith(("\n", "\r") if isinstance(line, str) else b"\n"):
            line = file.readline(MAX_LINE)
        yield too_large()


def too_large() -> InvalidInput:
    """Why a line, or a row of several lines, is refused."""
    return InvalidInput("too-large", f"longer than {MAX_LINE:,} characters")


def require(module: str, path: Path) -> Any:
    """Imports the optional package that reads such a file.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return __import__(module, fromlist=["*"])
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{path}: {package}, which reads such files, is not installed: pip install 'sameas[files]'"
        ) from error


class _Metered(io.RawIOBase):
    """A file that adds to a meter what is read of it."""

    def __init__(self, file: IO[bytes], meter: Meter) -> None:
        self._file = file
        self._meter = meter

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._meter.done += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Recoded(io.RawIOBase):
    """A text of another encoding as UTF-8. A byte that is no UTF-8 stands for what cannot be decoded."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder(encoding)(_UNKNOWN).decode
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        ended = False
        while not self._ahead and not ended:
            chunk = self._file.read(RECODED_BYTES)
            ended = not chunk
            self._ahead = self._decode(chunk, ended).encode(errors="surrogatepass")
        data, self._ahead = self._ahead[: len(buffer)], self._ahead[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _mark_unknown(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


_UNKNOWN = "sameas-unknown"
codecs.register_error(_UNKNOWN, _mark_unknown)
