"""Two catalogues of any size with the traits that make real ones hard: the same seed makes the same ones.

Types are skewed (films, people, studios, places). Names are drawn from a vocabulary with Zipf's law, so that
words, and now and then whole names, recur; the right source misspells, abbreviates, turns names round and is
a year off. Relations point at people, studios and places with Zipf's law as well, so that the largest studio
is a hub with a fixed share of all films. The two sources call types alike, attributes and relations
differently.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from stream.events import Upsert

SHARES: Final = {"film": 0.55, "person": 0.38, "studio": 0.05, "place": 0.02}
PREFIX: Final = {"film": "f", "person": "p", "studio": "s", "place": "l"}  # of ids
VOCABULARY: Final = 20_000
FIRST_NAMES: Final = 800
OVERLAP: Final = 0.8  # of the entities are in both sources
TYPO: Final = 0.25  # of the right source's names
_ONSETS: Final = [
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
]
_VOWELS: Final = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_CODAS: Final = ["", "", "", "l", "m", "n", "r", "s", "t", "nd", "rk", "st"]


class Film(NamedTuple):
    """What a film is before the two sources describe it."""

    title: str
    year: int
    minutes: int
    director: int
    cast: list[int]
    studio: int
    place: int


class World:
    """What both catalogues describe.

    Args:
        size: entities of all types, described by at least one source.
        seed: of everything.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._chance = chance = np.random.default_rng(seed)
        self.counts = {kind: max(4, int(size * share)) for kind, share in SHARES.items()}
        words = self._words(VOCABULARY)
        firsts, words = words[:FIRST_NAMES], words[FIRST_NAMES:]
        people, films = self.counts["person"], self.counts["film"]
        first, last = self._zipf(people, len(firsts)), self._zipf(people, len(words))
        self.people = [f"{firsts[a]} {words[b]}".title() for a, b in zip(first, last, strict=True)]
        born = chance.integers(1900, 2000, people).tolist()
        self.born: list[int] = born
        self.studios = [f"{words[w]} Pictures".title() for w in self._zipf(self.counts["studio"], len(words))]
        self.places = [words[w].title() for w in self._zipf(self.counts["place"], len(words))]
        lengths = chance.choice([1, 2, 3, 4], films, p=[0.15, 0.4, 0.3, 0.15])
        title_words = iter(self._zipf(int(lengths.sum()), len(words)).tolist())
        years = chance.integers(1930, 2025, films).tolist()
        minutes = chance.integers(60, 200, films).tolist()
        directors = self._zipf(films, people).tolist()
        sizes = chance.integers(1, 7, films)
        cast = iter(self._zipf(int(sizes.sum()), people).tolist())
        studios, places = (self._zipf(films, self.counts[kind]).tolist() for kind in ("studio", "place"))
        self.films = [
            Film(
                " ".join(words[next(title_words)] for _ in range(length)).title(),
                years[n],
                minutes[n],
                directors[n],
                sorted({next(cast) for _ in range(size)}),
                studios[n],
                places[n],
            )
            for n, (length, size) in enumerate(zip(lengths.tolist(), sizes.tolist(), strict=True))
        ]

    def _zipf(self, count: int, most: int) -> npt.NDArray[np.int64]:
        """(count,) numbers below `most`; number n with a weight of 1 / (n + 10)."""
        weights = np.cumsum(1.0 / (np.arange(most) + 10))
        drawn: npt.NDArray[np.int64] = np.searchsorted(weights, self._chance.random(count) * weights[-1])
        return drawn

    def _words(self, count: int) -> list[str]:
        words: dict[str, None] = {}
        while len(words) < count:
            parts = [
                [table[n] for n in self._chance.integers(0, len(table), count)]
                for table in (_ONSETS, _VOWELS, _CODAS, _ONSETS, _VOWELS, _CODAS)
            ]
            words.update(dict.fromkeys(map("".join, zip(*parts, strict=True))))
        return list(words)[:count]


def catalogue(world: World, source: str, seed: int = 1) -> list[Upsert]:
    """What "left" or "right" knows of the world, in an order of its own. Ids say what the entities are."""
    side = {"left": 0, "right": 1}[source]
    chance = np.random.default_rng((seed, side))
    entities = [*_films(world, side, chance), *_others(world, side, chance)]
    shared = np.random.default_rng((seed, 2)).random(len(entities))
    only_here = (shared >= OVERLAP) & ((shared < (1 + OVERLAP) / 2) == (side == 0))
    known = [entity for entity, keep in zip(entities, (shared < OVERLAP) | only_here, strict=True) if keep]
    return [known[n] for n in chance.permutation(len(known)).tolist()]


def links(world: World, seed: int = 1) -> list[tuple[str, str]]:
    """All pairs of entities that both catalogues have."""
    shared = np.random.default_rng((seed, 2)).random(sum(world.counts.values()))
    names = [f"{PREFIX[kind]}{n}" for kind, count in world.counts.items() for n in range(count)]
    return [(f"left:{n}", f"right:{n}") for n, place in zip(names, shared, strict=True) if place < OVERLAP]


def renamed(entity: Upsert, chance: np.random.Generator) -> Upsert:
    """The same entity with its name misspelt."""
    key, name = next(iter(entity.attributes.items()))
    return msgspec.structs.replace(entity, attributes={**entity.attributes, key: misspelt(str(name), chance)})


def _films(world: World, side: int, chance: np.random.Generator) -> Iterator[Upsert]:
    off = (chance.random(len(world.films)) < 0.1).tolist()
    typo = chance.random(len(world.films)) < TYPO
    for n, film in enumerate(world.films):
        if side == 0:
            yield Upsert(
                "left",
                f"f{n}",
                "film",
                {"title": film.title, "year": film.year, "runtime": film.minutes},
                {
                    "directed_by": [f"p{film.director}"],
                    "starring": [f"p{p}" for p in film.cast],
                    "studio": [f"s{film.studio}"],
                    "set_in": [f"l{film.place}"],
                },
            )
        else:
            title = misspelt(film.title, chance) if typo[n] else film.title
            yield Upsert(
                "right",
                f"f{n}",
                "film",
                {"name": title, "released": film.year + off[n], "minutes": film.minutes + off[n]},
                {
                    "director": [f"p{film.director}"],
                    "cast": [f"p{p}" for p in film.cast[:4]],
                    "company": [f"s{film.studio}"],
                    "location": [f"l{film.place}"],
                },
            )


def _others(world: World, side: int, chance: np.random.Generator) -> Iterator[Upsert]:
    source, name_key = ("left", "name") if side == 0 else ("right", "label")
    typo = iter((chance.random(sum(world.counts.values())) < TYPO).tolist())

    def spelt(name: str) -> str:
        return misspelt(name, chance) if next(typo) and side else name

    for n, (name, born) in enumerate(zip(world.people, world.born, strict=True)):
        first, _, last = name.partition(" ")
        shown = spelt(name if side == 0 else f"{last}, {first}")
        year = {"born": born} if side == 0 else {"birth": born}
        yield Upsert(source, f"p{n}", "person", {name_key: shown, **year}, {})
    for n, name in enumerate(world.studios):
        yield Upsert(source, f"s{n}", "studio", {name_key: spelt(name)}, {})
    for n, name in enumerate(world.places):
        yield Upsert(source, f"l{n}", "place", {name_key: spelt(name)}, {})


def misspelt(name: str, chance: np.random.Generator) -> str:
    """One letter lost, doubled or swapped with the next, or the last word cut short."""
    kind, at = int(chance.integers(4)), int(chance.integers(max(1, len(name) - 1)))
    if kind == 0:
        return name[:at] + name[at + 1 :]
    if kind == 1:
        return name[:at] + name[at : at + 1] + name[at:]
    if kind == 2:
        return name[:at] + name[at + 1 : at + 2] + name[at : at + 1] + name[at + 2 :]
    return name[:-2] + "."
