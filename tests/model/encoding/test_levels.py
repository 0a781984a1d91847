"""Levels 0 and 1: functions of an entity and its neighbours, alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.encoding.encoder import Encoder
from model.encoding.exact import exp, tanh
from model.encoding.levels import Entities, Levels, level1, unlearned, with_degree
from model.shapes import LEVEL, LEVEL_NORM, SAMPLE
from stream.events import Upsert

KEYS, ENTITIES = 9, 40


def some_levels(keys: int = KEYS) -> Levels:
    """Every parameter away from its start."""
    chance = np.random.default_rng(1)

    def near(array: np.ndarray) -> np.ndarray:
        return (array + chance.normal(size=array.shape, scale=0.3)).astype(np.float32)

    start = unlearned(keys)
    tokens = chance.integers(-127, 128, start.tokens.shape).astype(np.int8)
    return Levels(tokens, *(near(array) for array in start[1:]))


def entities() -> Entities:
    chance = np.random.default_rng(2)
    return Entities(
        chance.integers(-60, 60, (ENTITIES, LEVEL)).astype(np.int8),
        chance.random(ENTITIES) < 0.8,
        chance.integers(0, 1 << 40, ENTITIES) << 12 | chance.integers(0, 256, ENTITIES),
        2 ** chance.integers(0, 12, ENTITIES),
    )


def around(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    members = chance.integers(-ENTITIES, ENTITIES, (count, SAMPLE)).astype(np.int32)
    members[members < 0] = -1
    keys = np.where(members < 0, 0, chance.integers(1, KEYS, members.shape)).astype(np.int16)
    return members, keys


def by_the_equations(members: np.ndarray, keys: np.ndarray, levels: Levels) -> np.ndarray:
    """Level 1 of one entity, in floats of 64 bits, as the module's docstring has it."""
    e = entities()
    there = [(int(j), int(r)) for j, r in zip(members, keys, strict=True) if j >= 0 and e.exists[j]]
    if not there:
        return np.zeros(LEVEL)
    messages, logits = [], []
    for j, r in there:
        w = e.level0[j].astype(float) / LEVEL_NORM @ levels.transform
        message = levels.scale[r] * w + levels.shift[r]
        low = int(with_degree(e.hash[j], e.degree[j]))
        rarity = np.array([low >> 8 & 15, low >> 4 & 15, low & 15]) / 15
        messages.append(message)
        logits.append(np.tanh(message) @ levels.attention + levels.key[r] + rarity @ levels.about)
    beta = np.exp(np.array(logits))
    summed = (beta / beta.sum()) @ np.array(messages)
    return np.asarray(summed / np.linalg.norm(summed) * LEVEL_NORM)


def test_level_1_is_what_the_equations_say() -> None:
    members, keys = around(30, 3)
    levels = some_levels()
    expected = [by_the_equations(*row, levels) for row in zip(members, keys, strict=True)]
    np.testing.assert_allclose(level1(entities(), members, keys, levels), expected, atol=0.6)


@given(st.lists(st.integers(0, 29), min_size=1, max_size=40))
def test_level_1_of_an_entity_does_not_depend_on_the_batch(chosen: list[int]) -> None:
    members, keys = around(30, 3)
    levels, every = some_levels(), entities()
    whole = level1(every, members, keys, levels)
    np.testing.assert_array_equal(level1(every, members[chosen], keys[chosen], levels), whole[chosen])


def test_without_neighbours_there_is_no_level_1() -> None:
    nobody = np.full((2, SAMPLE), -1, np.int32)
    assert not level1(entities(), nobody, np.zeros((2, SAMPLE), np.int16), some_levels()).any()
    gone = entities()._replace(exists=np.zeros(ENTITIES, bool))
    assert not level1(gone, *around(2, 3), some_levels()).any()


def test_extreme_parameters_leave_numbers() -> None:
    """A checkpoint may have weights up to 10,000 (`model/checkpoint.py`)."""
    start = some_levels()
    extreme = Levels(start.tokens, *(np.sign(array) * np.float32(1e4) for array in start[1:]))
    assert np.linalg.norm(level1(entities(), *around(20, 3), extreme), axis=1).max() < LEVEL_NORM * 1.1


def test_level_0_follows_the_tokens() -> None:
    people = [Upsert("a", str(n), "t", {"name": name}) for n, name in enumerate(["Zoé Müller", "Bob", ""])]
    encoder = Encoder.fit(people)
    plain = encoder.encode(people).level0
    assert np.linalg.norm(plain, axis=1) == pytest.approx([LEVEL_NORM, LEVEL_NORM, 0], rel=0.02)
    tokens = np.zeros_like(encoder.levels.tokens)
    texts = encoder.text_tokens(people)
    tokens[texts.token[texts.starts[1] :], 3] = 100  # of Bob
    learned = encoder.with_levels(encoder.levels._replace(tokens=tokens))
    assert learned.encode(people).level0[1].argmax() == 3
    alone = learned.encode(people[1:2]).level0
    np.testing.assert_array_equal(alone[0], learned.encode(people).level0[1])
    np.testing.assert_array_equal(learned.encode(people).name, encoder.encode(people).name)


def test_exact_functions_are_those_of_the_library() -> None:
    for x in np.linspace(-30, 30, 1001, dtype=np.float32):
        assert float(exp(x)) == pytest.approx(math.exp(x), rel=5e-6)
        assert float(tanh(x)) == pytest.approx(math.tanh(x), abs=3e-7)
