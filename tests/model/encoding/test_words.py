"""The words of an entity, and what two entities share."""

from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.entity import Value
from model.encoding.encoder import Encoder
from model.encoding.words import FEATURES, GATHERED, WORDS, Packed, gather, overlap
from stream.events import Upsert


def song(number: int, **attributes: Value) -> Upsert:
    return Upsert("shop", str(number), "song", attributes)


COMMON = [song(100 + n, title=f"the song of {n}") for n in range(50)]


def words(*entities: Upsert) -> Packed:
    encoder = Encoder.fit([*entities, *COMMON])
    return encoder.encode(entities).words


def compare(left: Upsert, right: Upsert) -> dict[str, float]:
    packed = words(left, right)
    features = overlap(packed, packed, np.array([0]), np.array([1]))[0].tolist()
    names = ["of left", "of right", "both", "left alone", "right alone"]
    return dict(zip([*names, *(f"digit {name}" for name in names), "jaccard"], features, strict=True))


def test_values_in_the_wrong_column_are_the_same_words() -> None:
    right = compare(song(1, title="Silver and Gold", artist="Little Big Town"), song(2, title="x"))
    wrong = compare(
        song(1, title="Silver and Gold", artist="Little Big Town"),
        song(2, title="Little Big Town Silver and Gold"),
    )
    assert right["jaccard"] == 0
    assert wrong["jaccard"] == wrong["of left"] == wrong["of right"] == 1
    assert wrong["left alone"] == wrong["right alone"] == 0


def test_dates_and_durations_inside_texts_are_found() -> None:
    cell = song(1, title="Silver", time="6:30", released="26-Aug-11")
    inside = song(2, title="Silver 6:30 August 26 , 2011")
    other = song(3, title="Silver 6:31 August 27 , 2011")
    assert compare(cell, inside)["digit of left"] == 1
    assert compare(cell, other)["digit of left"] == 0


def test_rare_words_count_more() -> None:
    rare = compare(song(1, title="the zebra"), song(2, title="of zebra"))
    common = compare(song(1, title="the zebra"), song(2, title="the gnu"))
    assert rare["both"] > 2 * common["both"] > 0
    assert common["left alone"] > 2 * rare["left alone"]


def test_words_with_digits_count_for_themselves() -> None:
    parts = compare(song(1, title="Hamlet part 2a"), song(2, title="Hamlet part 3a"))
    assert parts["of left"] == 1
    assert parts["digit of left"] == parts["digit both"] == 0
    assert parts["digit left alone"] > 0


packed = st.lists(st.integers(1, 40).map(lambda n: n << 9 | (n % 2) << 8 | n), unique=True, max_size=WORDS)


@given(left=packed, right=packed)
def test_overlap_agrees_with_sets(left: list[int], right: list[int]) -> None:
    rows = np.zeros((2, WORDS), np.uint32)
    rows[0, : len(left)], rows[1, : len(right)] = left, right
    features = overlap(rows, rows, np.array([0, 1]), np.array([1, 0]))
    assert features.shape == (2, FEATURES)
    for digit in (0, 1):
        a, b = ({word & 255 for word in side if word >> 8 & 1 == digit} for side in (left, right))
        expected = [
            sum(a & b) / sum(a) if a else 0,
            sum(a & b) / sum(b) if b else 0,
            max(a & b, default=0) / 255,
            max(a - b, default=0) / 255,
            max(b - a, default=0) / 255,
        ]
        assert np.allclose(features[0, 5 * digit : 5 * digit + 5], expected)
    every = {*left}, {*right}
    both, total = (sum(word & 255 for word in s) for s in (every[0] & every[1], every[0] | every[1]))
    assert np.isclose(features[0, 10], both / total if total else 0)
    assert np.allclose(features[1], features[0][[1, 0, 2, 4, 3, 6, 5, 7, 9, 8, 10]])


# the first two are common, and every fifth has a digit
word = st.integers(1, 50).map(lambda n: n << 9 | (n % 5 == 0) << 8 | 25 + 4 * n + 3)


@given(st.lists(st.lists(word, unique=True, max_size=6), min_size=1, max_size=12), st.randoms())
def test_gathered_are_the_rarest_words_of_all_in_any_order(entities: list[list[int]], random: Random) -> None:
    rows = np.zeros((len(entities), 6), np.uint32)
    for row, some in zip(rows, entities, strict=True):
        row[: len(some)] = some
    every = sorted(
        {w for some in entities for w in some if w & 255 >= 40 and not w & 256}, key=lambda w: w & 255
    )
    expected = np.zeros((1, GATHERED), np.uint32)
    kept = sorted(every[-GATHERED:])
    expected[0, : len(kept)] = kept
    members = [*range(len(entities)), -1]
    random.shuffle(members)
    np.testing.assert_array_equal(gather(rows, np.array([members])), expected)
