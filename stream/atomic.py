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
    """What `write` wrote, None if it did not. Raises StateError if it is something else."""
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
    """Replaces a file for good: it is whole, old or new, whatever happens. Raises StateError."""
    with refusals(path.parent):
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextlib.contextmanager
def refusals(directory: Path) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StateError(str(error)) from error
    except OSError as error:
        raise StateError(f"state directory {directory}: cannot write: {error}") from error
