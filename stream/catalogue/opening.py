"""Opening files, compressed or not, with a meter of how much of them has been read."""

import gzip
import io
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stream.errors import ConfigError

COMPRESSED = (".gz", ".zst")


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
def open_bytes(path: Path, meter: Meter | None = None) -> Iterator[IO[bytes]]:
    """The file's contents, decompressed, without a byte order mark in front.

    Raises:
        ConfigError: the file is missing, damaged or cut short.
    """
    try:
        with path.open("rb") as file:
            contents = _decompressed(path, file if meter is None else _Metered(file, meter))
            if contents.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
                contents.read(len(BOM_UTF8))
            yield contents
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{path} cannot be read: {reason}") from error


def _decompressed(path: Path, file: Any) -> io.BufferedReader:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if suffix == ".zst":
        arrow = require("pyarrow", path)
        return io.BufferedReader(arrow.CompressedInputStream(arrow.PythonFile(file, mode="r"), "zstd"))
    return io.BufferedReader(file) if isinstance(file, _Metered) else file


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
