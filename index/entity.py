"""An entity as the graph keeps it, its values, and the numbers that stand for it and its relations."""

from functools import lru_cache
from typing import Protocol

import msgspec
import xxhash

Scalar = str | bool | int | float
Value = Scalar | list[Scalar]
Version = int | float  # the greater one is the newer


class Profile(Protocol):
    """What the model sees of an entity: of one as stored, or of one as an event brings it."""

    @property
    def source(self) -> str: ...

    @property
    def attributes(self) -> dict[str, Value]: ...

    @property
    def relations(self) -> dict[str, list[str]]: ...


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """An entity as stored: its state, and where that state came from. A deleted one keeps only the latter."""

    source: str
    id: str
    type: str
    attributes: dict[str, str | bool | int | float | list[str | bool | int | float]]
    relations: dict[str, list[str]]
    version: Version | None
    deleted: bool
    topic: str
    partition: int
    offset: int
    timestamp: float


def node_of(curie: str) -> int:
    """The node of an entity: the 64-bit XXH3 of its CURIE."""
    return xxhash.xxh3_64_intdigest(curie.encode())


@lru_cache(4096)
def relation_of(source: str, name: str) -> int:
    """The number of a source's relation (`name` or, at the tail, `~name`): the 64-bit XXH3 of both."""
    return xxhash.xxh3_64_intdigest(f"{source}:{name}".encode())


def node_key(node: int) -> bytes:
    """The node as it stands in keys."""
    return node.to_bytes(8, "big")
