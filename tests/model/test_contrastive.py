"""Levels learn from links what no comparison of letters says, and serve what they learned."""

import numpy as np
import pytest
import torch

from model.contrastive import Catalogue, ContrastiveOptions, _Net, both_levels, learn_levels
from model.encoding.encoder import Encoder
from model.encoding.levels import Entities, Levels, level1
from model.shapes import LEVEL_NORM, SAMPLE
from stream.events import Upsert
from tests.model.arrays import in_step

WORDS = {"left": ["haus", "baum", "wald", "berg", "fluss", "stadt", "brot", "salz", "turm", "feld"]}
WORDS["right"] = ["house", "tree", "forest", "mount", "river", "town", "bread", "salt", "spire", "acre"]
SIDE = len(WORDS["left"]) ** 2
OPTIONS = ContrastiveOptions(steps=60, batch=48, drawn=32)
OPTIONS_OF_TWO_STEPS = ContrastiveOptions(steps=2, batch=48, drawn=32)


def name(source: str, number: int) -> str:
    words = WORDS[source]
    return f"{words[number // len(words)]} {words[number % len(words)]}"


ENTITIES = [
    Upsert(source, str(number), "t", {"name": name(source, number)})
    for source in ("left", "right")
    for number in range(SIDE)
]
ENCODER = Encoder.fit(ENTITIES)


def catalogue() -> Catalogue:
    """Each entity has the next two of its source as neighbours, over a relation each."""
    encoded = ENCODER.encode(ENTITIES)
    number = np.arange(2 * SIDE)
    neighbours = np.full((2 * SIDE, SAMPLE), -1, np.int32)
    keys = np.zeros((2 * SIDE, SAMPLE), np.int16)
    for place in range(2):
        neighbours[:, place] = number // SIDE * SIDE + (number + place + 1) % SIDE
        keys[:, place] = place + 2
    return Catalogue(
        ENCODER.text_tokens(ENTITIES),
        neighbours,
        np.ones(2 * SIDE, bool),
        (number // SIDE).astype(np.int32),
        encoded.name_hash,
        np.full(2 * SIDE, 2),
        keys,
    )


def links(numbers: np.ndarray) -> np.ndarray:
    return np.stack([numbers, numbers + SIDE], axis=1)


def served(levels: Levels) -> np.ndarray:
    """(entities, 2, LEVEL) levels 0 and 1."""
    made = catalogue()
    own = ENCODER.with_levels(levels).encode(ENTITIES).level0
    entities = Entities(own, made.exists, made.name_hash, made.degree)
    return np.stack([own, level1(entities, made.neighbours, made.keys, levels)], axis=1).astype(int)


def hits(levels: Levels, numbers: np.ndarray) -> np.ndarray:
    """Of these left entities the share whose partner is the nearest right one, at either level."""
    made = served(levels)
    products = np.einsum("nld,mld->lnm", made[numbers], made[SIDE:])
    return np.asarray((products.argmax(axis=2) == numbers).mean(axis=1))


@pytest.fixture(scope="module")
def parts() -> tuple[np.ndarray, np.ndarray]:
    mixed = np.random.default_rng(0).permutation(SIDE)
    return mixed[:60], mixed[60:]


@pytest.fixture(scope="module")
def learned(parts: tuple[np.ndarray, np.ndarray]) -> Levels:
    torch.set_num_threads(1)
    return learn_levels(catalogue(), links(parts[0]), ENCODER.levels, OPTIONS)


def test_what_is_learned_holds_for_other_entities(
    learned: Levels, parts: tuple[np.ndarray, np.ndarray]
) -> None:
    assert (hits(ENCODER.levels, parts[1]) < 0.3).all()
    assert (hits(learned, parts[1]) > [0.5, 0.9]).all()  # a bag of two words has no order


def test_the_same_links_and_seed_make_the_same_levels(
    learned: Levels, parts: tuple[np.ndarray, np.ndarray]
) -> None:
    again = learn_levels(catalogue(), links(parts[0]), ENCODER.levels, OPTIONS)
    assert all((one == other).all() for one, other in in_step(again, learned))


def test_what_is_served_is_what_was_trained(learned: Levels) -> None:
    """But for the rounding to bytes."""
    torch.manual_seed(0)
    net = _Net(learned, catalogue())
    with torch.no_grad():
        for parameter, array in zip((net.scale, net.shift), learned[2:4], strict=True):
            parameter.copy_(torch.from_numpy(array))  # which begin away from what they are given
        trained = torch.stack(net(np.arange(2 * SIDE), 0.0), dim=1).numpy()
    np.testing.assert_allclose(served(learned), trained * LEVEL_NORM, atol=4)
    np.testing.assert_array_equal(net.levels().tokens, learned.tokens)


def test_levels_of_all_entities_at_once_have_the_bits_that_are_served(learned: Levels) -> None:
    np.testing.assert_array_equal(np.stack(both_levels(catalogue(), learned), axis=1), served(learned))


def test_catalogue_without_texts_leaves_tokens_as_they_are() -> None:
    made = catalogue()
    nothing = made.texts._replace(**{name: array[:0] for name, array in made.texts._asdict().items()})
    learned = learn_levels(
        made._replace(texts=nothing), links(np.arange(SIDE)), ENCODER.levels, OPTIONS_OF_TWO_STEPS
    )
    np.testing.assert_array_equal(learned.tokens, ENCODER.levels.tokens)
