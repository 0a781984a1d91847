"""A generated data set of look-alikes: songs and films in versions, as in the article's example of a remix.

A song is recorded, covered, remixed and played live; a film is made again. Versions of one work share title
and songwriters or writers, and differ in who performs or directs and in the year. So what a pair shares says
little: a model has to weigh what tells one version from the next. The right catalogue misspells, abbreviates
people, lacks years, and calls everything by other names. The same seed makes the same catalogues.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from benchmarks.synthetic import World, misspelt
from index.entity import Value
from stream.events import Upsert
from stream.learning.known_links import LinkPair, uniform

SONGS: Final = 2_000  # works
FILMS: Final = 600
VERSIONS: Final = (0.35, 0.3, 0.2, 0.15)  # share of works with one, two, three and four of them
KINDS: Final = {"song": ("cover", "remix", "live"), "film": ("remake",)}  # beside the original
KNOWN: Final = 0.85  # of the versions, by either catalogue
NAMED: Final = 0.35  # of the later versions, by either catalogue: "(Live)" stands in the title
TYPO: Final = 0.3  # of the right catalogue's names
YEARLESS: Final = 0.4  # of its versions
LOST: Final = 0.15  # chance that it lacks a performer or director
INITIAL: Final = 0.3  # of its people: "Lovelace, A."
PARTS: Final = {"train": 0.4, "valid": 0.55, "test": 1.0}  # of the works, up to this share

# What the two sides call the same: attributes, then relations.
NAMES: Final = (
    {"title": "title", "year": "year", "by": "performer", "written": "songwriter"},
    {"title": "name", "year": "released", "by": "artist", "written": "composer"},
)


class Version(NamedTuple):
    """One of the versions of a work."""

    type: str
    work: int
    number: int  # 0 is the original
    title: str
    kind: str
    year: int
    written: list[int]  # people
    by: list[int]

    @property
    def id(self) -> str:
        """In either catalogue."""
        return f"{self.type}{self.work}-{self.number}"


def catalogues(seed: int = 0) -> tuple[list[Upsert], dict[str, list[LinkPair]]]:
    """The entities of both catalogues, and the links by part. All versions of a work are in one part."""
    world = World(4 * (SONGS + FILMS), seed)
    chance = np.random.default_rng((seed, 3))
    versions = [*_versions(world, "song", SONGS, chance), *_versions(world, "film", FILMS, chance)]
    known = chance.random((2, len(versions))) < KNOWN
    entities = [
        *_people(world, versions, 0, chance),
        *_people(world, versions, 1, chance),
        *(_entity(version, 0, chance) for version, here in zip(versions, known[0], strict=True) if here),
        *(_entity(version, 1, chance) for version, here in zip(versions, known[1], strict=True) if here),
    ]
    links: dict[str, list[LinkPair]] = {part: [] for part in PARTS}
    for version, both in zip(versions, known[0] & known[1], strict=True):
        if both:
            place = uniform("part", version.type, str(version.work))
            part = next(part for part, end in PARTS.items() if place < end)
            links[part].append((f"left:{version.id}", f"right:{version.id}"))
    return entities, links


def _versions(world: World, kind: str, works: int, chance: np.random.Generator) -> Iterator[Version]:
    people = len(world.people)
    for work in range(works):
        film = world.films[work if kind == "song" else SONGS + work]
        written = chance.integers(people, size=chance.integers(1, 4)).tolist()
        by = [film.director, *film.cast[:2]] if kind == "film" else [film.director]
        year = film.year
        yield Version(kind, work, 0, film.title, "", year, written, by)
        for number in range(1, int(chance.choice(4, p=VERSIONS)) + 1):
            made = str(chance.choice(KINDS[kind]))
            year += int(chance.integers(1, 15))
            yield Version(
                kind,
                work,
                number,
                film.title,
                made,
                year,
                written,
                by if made == "live" else chance.integers(people, size=len(by)).tolist(),
            )


def _entity(version: Version, side: int, chance: np.random.Generator) -> Upsert:
    """The version as the left catalogue (0) or the right one (1) has it."""
    names, title = NAMES[side], version.title
    if version.number and chance.random() < NAMED:
        title = f"{title} ({version.kind.title()})" if side == 0 else f"{title} - {version.kind}"
    if side and chance.random() < TYPO:
        title = misspelt(title, chance)
    attributes: dict[str, Value] = {names["title"]: title}
    if not side or chance.random() >= YEARLESS:
        attributes[names["year"]] = version.year
    relations = {names["written"]: [f"p{person}" for person in version.written]}
    if not side or chance.random() >= LOST:
        relations[names["by"]] = [f"p{person}" for person in version.by]
    return Upsert(("left", "right")[side], version.id, version.type, attributes, relations)


def _people(
    world: World, versions: list[Version], side: int, chance: np.random.Generator
) -> Iterator[Upsert]:
    for person in sorted({person for version in versions for person in (*version.written, *version.by)}):
        name = world.people[person]
        if side:
            first, _, last = name.partition(" ")
            name = f"{last}, {first[0]}." if chance.random() < INITIAL else f"{last}, {first}"
            name = misspelt(name, chance) if chance.random() < TYPO else name
        yield Upsert(("left", "right")[side], f"p{person}", "person", {("name", "label")[side]: name}, {})
