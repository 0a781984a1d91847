"""The encoder: exact in any batch, sensible about kinds, indifferent to hostile values."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.entity import Value
from model.encoding import values
from model.encoding.encoder import Encoded, Encoder
from model.encoding.values import Kind, measure, recognise
from model.encoding.words import embedded
from model.shapes import NORM, OWN, UNIT
from stream.events import Upsert
from tests.model.arrays import arrays, in_step

WORDS = [
    "the",
    "matrix",
    "reloaded",
    "khaled",
    "rawhiyya",
    "london",
    "paris",
    "zoé",
    "straße",
    "été",
    "東京",
    "été",
    "1999",
    "(i)",
]


def entity(number: int, source: str = "a", /, **attributes: Value) -> Upsert:
    return Upsert(source=source, id=str(number), type="t", attributes=attributes, relations={"knows": ["1"]})


def corpus(size: int, seed: int = 0) -> list[Upsert]:
    rng = np.random.default_rng(seed)
    return [
        entity(
            n,
            "ab"[n % 2],
            name=" ".join(rng.choice(WORDS, rng.integers(0, 5))),
            year=int(rng.integers(1900, 2030)),
            genre=str(rng.choice(["drama", "comedy"])),
            lat=float(rng.uniform(-90, 90)),
            lon=float(rng.uniform(-180, 180)),
            tags=[str(word) for word in rng.choice(WORDS, rng.integers(0, 4))],
        )
        for n in range(size)
    ]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.fit(corpus(400))


def similarity(encoder: Encoder, a: Value, b: Value, key: str = "new") -> tuple[float, bool]:
    encoded = encoder.encode([entity(1, **{key: a}), entity(2, **{key: b})])
    left, right = encoded.items[:, 0].astype(np.int64)
    return float(left @ right) / UNIT, bool(encoded.item_hashes[0, 0] == encoded.item_hashes[1, 0])


def test_the_title_is_the_text_that_tells_most(encoder: Encoder) -> None:
    assert encoder.title(entity(1, genre="drama", name="The Matrix", year=1999)) == "The Matrix"
    assert encoder.title(entity(1, genre="drama", tags=["paris", "london"], lat="51.5")) == "paris"
    assert encoder.title(entity(1, new="The Matrix")) == "The Matrix"
    assert encoder.title(entity(1, year=1999, tags=[])) is None


def same(one: Encoded, other: Encoded) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in in_step(one, other))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 60))
def test_the_same_bits_in_any_batch_and_order(encoder: Encoder, seed: int, size: int) -> None:
    entities = corpus(60, seed=3)
    everything = encoder.encode(entities)
    rows = np.random.default_rng(seed).permutation(60)[:size]
    some = encoder.encode([entities[row] for row in rows])
    assert same(some, Encoded(*(array[rows] for array in arrays(everything))))


@settings(max_examples=60)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=8),
            st.one_of(
                st.text(), st.integers(), st.floats(), st.booleans(), st.lists(st.floats() | st.text())
            ),
        ),
        max_size=4,
    )
)
def test_any_value_is_encoded_and_alone_gives_the_same(
    encoder: Encoder, attributes: list[dict[str, Value]]
) -> None:
    entities = [Upsert("a", str(n), "t", values) for n, values in enumerate(attributes)]
    together = encoder.encode(entities)
    for row, one in enumerate(entities):
        assert same(encoder.encode([one]), Encoded(*(array[row : row + 1] for array in arrays(together))))


def test_vectors_have_one_norm(encoder: Encoder) -> None:
    encoded = encoder.encode(corpus(50))
    norms = np.linalg.norm(encoded.items.astype(float), axis=2)[encoded.item_keys != 0]
    assert np.abs(norms - NORM).max() < 10


def test_items_are_in_canonical_order_and_empty_slots_are_zero(encoder: Encoder) -> None:
    encoded = encoder.encode([*corpus(50), entity(1)])
    for keys, hashes, items in zip(encoded.item_keys, encoded.item_hashes, encoded.items, strict=True):
        filled = int((keys != 0).sum())
        order = [(int(k), int(h)) for k, h in zip(keys[:filled], hashes[:filled], strict=True)]
        assert order == sorted(order)
        assert not items[filled:].any() and not keys[filled:].any() and not hashes[filled:].any()
    assert not encoded.name[-1].any() and encoded.name_hash[-1] == 0


def test_too_many_values_keep_the_most_useful() -> None:
    rng = np.random.default_rng(0)
    many = [
        entity(n, title=f"title {rng.integers(10**9)}", **{f"flag{k}": "yes" for k in range(20)})
        for n in range(50)
    ]
    encoder = Encoder.fit(many)
    encoded = encoder.encode(many)
    assert encoded.item_keys.shape == (50, OWN)
    assert (encoded.item_keys == encoder.keys.attribute("a", "title")[0]).any(axis=1).all()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("The Matrix", Kind.TEXT),
        ("U2", Kind.CODE),
        ("tt0133093", Kind.CODE),
        ("00501", Kind.CODE),
        ("1,234.5", Kind.NUMBER),
        ("-3e5", Kind.NUMBER),
        (1999, Kind.NUMBER),
        ("$ 1.29", Kind.PRICE),
        ("12 EUR", Kind.PRICE),
        ("3:30", Kind.DURATION),
        ("1:02:03", Kind.DURATION),
        ("PT1H2M", Kind.DURATION),
        ("95 min", Kind.DURATION),
        ("1999-03-31", Kind.DATE),
        ("1999-03-31T12:00:00Z", Kind.DATE),
        ("18-May-15", Kind.DATE),
        ("May 18 , 2015", Kind.DATE),
        ("31/12/1999", Kind.DATE),
        ("38.7,-101.4", Kind.COORDINATE),
        ("POINT(-101.4 38.7)", Kind.COORDINATE),
        ([38.7, -101.4], Kind.COORDINATE),
        (["a", "b"], Kind.LIST),
        (True, Kind.TEXT),
        (math.nan, Kind.TEXT),
        (10**400, Kind.TEXT),
        ("", Kind.TEXT),
        ("1999-02-31", Kind.CODE),
    ],
)
def test_kinds_are_recognised(value: Value, kind: Kind) -> None:
    assert recognise(value) is kind


def test_measures_have_base_units() -> None:
    assert measure(Kind.DURATION, "1:02:03") == 3723
    assert measure(Kind.DURATION, "95 min") == 5700
    assert measure(Kind.DATE, "18-May-15") == measure(Kind.DATE, "May 18 , 2015")
    assert measure(Kind.PRICE, "$ 1.29") == 1.29
    assert measure(Kind.NUMBER, "n/a") is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Khaled, Rawhiyya (I)", "Rawhiyya Khaled"),
        ("The Matrix", "Matrix, The (1999)"),
        ("Zoé Straße", "zoe strasse"),
        ("18-May-15", "May 18 , 2015"),
        ("$ 1.29", "1.29 USD"),
        ([1, 2], [2, 1]),
        ("O'Neill", "ONeill"),
    ],
)
def test_spellings_of_one_value_are_equal(encoder: Encoder, a: Value, b: Value) -> None:
    cosine, equal = similarity(encoder, a, b)
    assert equal and cosine > 0.75


@pytest.mark.parametrize(
    "ladder",
    [
        (1999, 1999, 2000, 2010, 1950),
        ("2015-05-18", "2015-05-18", "2015-05-20", "2015-07-18", "1990-05-18"),
        ("3:30", "3:30", "3:32", "4:30", "58:30"),
        ("10.0,179.999", "10.0,-179.999", "10.05,-179.9", "10.5,-179.0", "-40.0,20.0"),
        ("89.999,0.5", "89.999,-179.5", "89.95,90.5", "89.0,10.5", "-40.0,20.5"),
    ],
)
def test_similarity_falls_with_distance(encoder: Encoder, ladder: tuple[Value, ...]) -> None:
    origin, *others = ladder
    falling = [similarity(encoder, origin, other)[0] for other in others]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] > 0.85 and falling[-1] < 0.5


def test_latitude_and_longitude_become_one_item(encoder: Encoder) -> None:
    encoded = encoder.encode(
        [entity(1, lat=38.7, lon=-101.4), entity(2, lat=38.7), entity(3, lat=380, lon=1)]
    )
    assert (encoded.item_keys != 0).sum(axis=1).tolist() == [1, 1, 2]


def test_keys_of_relations_and_unknown_ones(encoder: Encoder) -> None:
    out, back, unknown = (encoder.keys.relation("a", name) for name in ("knows", "~knows", "hates"))
    assert len({out, back, unknown}) == 3 and unknown == 1
    assert encoder.key_name(back) == ("a", "~knows") and encoder.key_name(1) is None
    assert encoder.encode([entity(1, source="z", name="x")]).item_keys[0, 0] == 1


def test_huge_texts_are_cut_and_nothing_gives_nothing(encoder: Encoder) -> None:
    start = "x1 " * 200
    encoded = encoder.encode([entity(1, name=start + "y" * 10_000_000), entity(2, name=start + "z")])
    assert (encoded.items[0] == encoded.items[1]).all()
    assert encoder.encode([]).items.shape == (0, OWN, 128)
    assert Encoder.fit([]).encode([entity(1, name="x")]).name.any()


def test_brackets_do_not_reach_into_other_values(encoder: Encoder) -> None:
    hostile: list[Value] = [
        "a (b",
        "a) b",
        "\x03é",
        "\x02x",
        "x (" + "y " * 300 + ") z",
        ["(" + "q " * 127, "b (c)"],
        "((a) b)",
    ]
    entities = [entity(n, name=value) for n, value in enumerate([*hostile, "plain name"])]
    together = encoder.encode(entities)
    for row, one in enumerate(entities):
        assert same(encoder.encode([one]), Encoded(*(array[row : row + 1] for array in arrays(together))))


def test_rare_values_say_so(encoder: Encoder) -> None:
    encoded = encoder.encode([entity(1, genre="drama"), entity(2, genre="never seen before")])
    common, rare = (int(h) >> 4 & 15 for h in encoded.item_hashes[:, 0])
    assert rare > common


@pytest.mark.parametrize("blanks", [" ", "\t", " ,", "1 ", "1", "1,111,", "a", "a 1 ", "-", "1.", "1:"])
@pytest.mark.parametrize(
    "start", ["jan 1", "1 jan", "1", "1.0", "point(", "point(1", "1h", "1 m", "$", "1999-01-01", ""]
)
def test_no_text_takes_longer_than_reading_it(start: str, blanks: str) -> None:
    text = (start + blanks * 900_000)[:900_000] + "x"  # hours, where two parts of a pattern share the blanks
    for pattern in vars(values).values():
        if isinstance(pattern, re.Pattern):
            pattern.fullmatch(text)
    values.find_dates(text)
    assert values.position(text) is None
    assert recognise(text) is Kind.TEXT
    assert all(measure(kind, text) is None for kind in Kind)
    assert [*embedded(text)] == [*embedded(text[:1024])]
