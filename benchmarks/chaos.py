"""Everything that can come along a stream, in any order.

The films and people of `catalogues.py` appear, change, vanish and return; relations come before what they
point at, or instead of it; messages are repeated, arrive out of date, or are no messages at all. The same
seed makes the same stream.
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import msgspec

from benchmarks.catalogues import FILMS, PEOPLE, film, person
from benchmarks.hostile import Bytes, hostile
from stream.events import EntityEvent, Link, Upsert, alignment_key, curie

Role = Literal["entities", "links"]


class Input(NamedTuple):
    """One record to produce; `role` names the topic in the settings."""

    role: Role
    key: Bytes
    value: Bytes


class Chaos:
    """An endless stream of inputs.

    Args:
        plain: nothing hostile, and all messages on one entity have versions or none has.
    """

    def __init__(self, seed: int, *, plain: bool = False) -> None:
        self._chance = random.Random(seed)
        self._plain = plain
        self._sent: list[Input] = []
        self._versions: dict[str, int] = {}
        self._kinds: list[tuple[Callable[[], Input], int]] = [
            (self._upsert, 55),
            (self._update, 14),
            (self._delete, 10),
            (self._other_type, 2),
            (self._repeat, 7),
            (self._stale, 4),
            (self._link, 4),
            (self._link_taken_back, 2),
            (self._hostile, 0 if plain else 2),
        ]

    def __iter__(self) -> Iterator[Input]:
        makers, weights = zip(*self._kinds, strict=True)
        while True:
            [make] = self._chance.choices(makers, weights)
            made = make()
            self._sent.append(made)
            yield made

    def _side(self) -> str:
        return self._chance.choice(["left", "right"])

    def _some(self) -> Upsert:
        if self._chance.random() < 0.4:
            return person(self._side(), self._chance.randrange(PEOPLE))
        return film(self._side(), self._chance.randrange(FILMS))

    def _upsert(self) -> Input:
        return self._entity(self._some())

    def _update(self) -> Input:
        """A film with the title or the cast of another, or with relations to nobody and to itself."""
        entity, other = film(self._side(), self._chance.randrange(FILMS)), self._some()
        fate = self._chance.randrange(3)
        if fate == 0:
            return self._entity(msgspec.structs.replace(entity, attributes=other.attributes))
        if fate == 1:
            return self._entity(msgspec.structs.replace(entity, relations=other.relations))
        nowhere = {"starring": [entity.id, f"nobody{self._chance.randrange(9)}", "p1"]}
        return self._entity(msgspec.structs.replace(entity, relations=nowhere))

    def _delete(self) -> Input:
        entity = self._some()
        key = curie(entity.source, entity.id).encode()
        version = self._version(entity)
        if self._chance.random() < 0.5 and not (self._plain and version):
            return Input("entities", key, None)
        body = {"op": "delete", "source": entity.source, "id": entity.id, "version": version}
        return Input("entities", key, msgspec.json.encode(body))

    def _other_type(self) -> Input:
        """The id of a film, used for a person."""
        new = person(self._side(), self._chance.randrange(PEOPLE))
        return self._entity(msgspec.structs.replace(new, id=f"f{self._chance.randrange(FILMS)}"))

    def _repeat(self) -> Input:
        return self._chance.choice(self._sent) if self._sent else self._upsert()

    def _stale(self) -> Input:
        """A version that is behind; of an entity without versions it is simply an upsert."""
        entity = self._some()
        version = self._versions.get(curie(entity.source, entity.id), 1) - 1
        has_none = self._plain and not self._has_versions(entity)
        return _encoded(msgspec.structs.replace(entity, version=None if has_none else version))

    def _link(self) -> Input:
        left, right = self._chance.randrange(FILMS), self._chance.randrange(FILMS)
        if self._chance.random() < 0.5:
            right = left
        link = Link(f"left:f{left}", f"right:f{right}", self._chance.choice(["same", "different"]))
        return Input("links", alignment_key(link.left, link.right).encode(), msgspec.json.encode(link))

    def _link_taken_back(self) -> Input:
        links = [made for made in self._sent if made.role == "links" and made.value is not None]
        return Input("links", self._chance.choice(links).key, None) if links else self._link()

    def _hostile(self) -> Input:
        role: Role = "links" if self._chance.random() < 0.2 else "entities"
        key, value = hostile(self._chance)
        return Input(role, key or b"", value)  # compacted topics take no record without a key

    def _entity(self, entity: Upsert) -> Input:
        """With a version, for every other entity."""
        return _encoded(msgspec.structs.replace(entity, version=self._version(entity)))

    def _has_versions(self, entity: Upsert) -> bool:
        return curie(entity.source, entity.id).encode()[-1] % 2 == 0

    def _version(self, entity: Upsert) -> int | None:
        if not self._has_versions(entity):
            return None
        name = curie(entity.source, entity.id)
        self._versions[name] = self._versions.get(name, 0) + 1
        return self._versions[name]


def _encoded(event: EntityEvent) -> Input:
    return Input("entities", curie(event.source, event.id).encode(), msgspec.json.encode(event))
