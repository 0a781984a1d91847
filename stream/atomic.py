"""Small files that are read, and replaced, as a whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from index.errors import StateError, StoreError
from stream.events import UNDECODABLE

_T = TypeVar("_T")


def read(path: Path, kind: type[_T]) -> _T | None:
    """What `write` wrote into a state directory, None without one. Raises StateError for anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"state directory {path.parent}: {path.name}: {error.strerror}") from error
    except UNDECODABLE as error:
        raise StateError(
            f"state directory {path.parent}: {path.name}: {error}; "
            "delete the directory to rebuild it from the topics"
        ) from error


def write(path: Path, content: msgspec.Struct | str) -> None:
    """`replace` for a file of a state directory. Raises StateError."""
    with refusals(path.parent):
        replace(path, msgspec.json.encode(content))


def replace(path: Path, content: bytes) -> None:
    """Replaces a file for good: it is whole, old or new, whatever happens. Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def refusals(directory: Path) -> Iterator[None]:
    """What the store or the file system refuses within becomes a StateError."""
    try:
        yield
    except StoreError as error:
        raise StateError(str(error)) from error
    except OSError as error:
        raise StateError(f"state directory {directory}: cannot write: {error}") from error
