"""Two small film catalogues that know each other's films under other names, and a model trained on them."""

import random
from pathlib import Path

from model.contrastive import ContrastiveOptions
from model.training import TrainingOptions
from stream.events import Upsert
from stream.learning.training import TrainedModel, train_model

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll"]
NAMES = ["anna", "boris", "clara", "david", "elena", "felix", "greta", "henry", "irene", "jonas", "karin"]
SURNAMES = ["adler", "berg", "claus", "dorn", "engel", "faber", "gross", "hahn", "iversen"]
PEOPLE = 96
FILMS = 120


def person(source: str, number: int) -> Upsert:
    """A person; the right source writes the surname first."""
    first, last = NAMES[number % len(NAMES)], SURNAMES[number // len(NAMES) % len(SURNAMES)]
    name = f"{first} {last}" if source == "left" else f"{last}, {first}"
    return Upsert(source=source, id=f"p{number}", type="person", attributes={"name": name})


def film(source: str, number: int) -> Upsert:
    """A film with two actors and a director; the right source abbreviates and is sometimes a year off."""
    chance = random.Random(number)
    words = chance.sample(WORDS, 3)
    cast = [f"p{chance.randrange(PEOPLE)}" for _ in range(3)]
    year = 1950 + chance.randrange(70)
    title = " ".join(words)
    if source == "right":
        title = f"the {words[0]} {words[1][:4]} {words[2]}"
        year += number % 5 == 0
    return Upsert(
        source=source,
        id=f"f{number}",
        type="film",
        attributes={"title": title, "year": year},
        relations={"directed_by": cast[:1], "starring": cast[1:]},
    )


def catalogues(films: int = FILMS) -> list[Upsert]:
    """All entities of both sources."""
    return [
        entity
        for source in ("left", "right")
        for entity in [*(person(source, n) for n in range(PEOPLE)), *(film(source, n) for n in range(films))]
    ]


def train_small(directory: Path) -> TrainedModel:
    """A model from half of the films' links, in seconds, with all views."""
    links = [(f"left:f{n}", f"right:f{n}") for n in range(60)]
    options = TrainingOptions(epochs=(5, 5), batch=64)
    levels = ContrastiveOptions(fewest=len(links) // 2, steps=20, batch=16, drawn=16)
    return train_model(catalogues(), links, directory, k=3, worth=0, levels=levels, options=options)
