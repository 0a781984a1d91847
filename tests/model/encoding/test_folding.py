"""Words of every script: what a spelling may leave out goes, what makes another name stays."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.entity import Value
from model.encoding.encoder import Encoder
from model.encoding.folding import fold
from model.encoding.tokens import MAX_TEXT_UNITS, normalise
from model.shapes import UNIT
from stream.events import Upsert


def entity(number: int, name: Value) -> Upsert:
    return Upsert("a", str(number), "t", {"name": name})


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """It has learned from Latin names alone: no token of another script is known to be frequent."""
    return Encoder.fit([entity(n, f"the {word} of {n}") for n, word in enumerate(["song", "river"] * 50)])


def similarity(encoder: Encoder, a: str, b: str) -> tuple[float, bool]:
    encoded = encoder.encode([entity(1, a), entity(2, b)])
    left, right = encoded.items[:, 0].astype(np.int64)
    return float(left @ right) / UNIT, bool(encoded.item_hashes[0, 0] == encoded.item_hashes[1, 0])


@pytest.mark.parametrize(
    ("names", "romanised"),
    [
        (("राम", "रीमा"), ("Ram", "Rima")),
        (("काली", "कुल"), ("Kali", "Kul")),
        (("मीरा", "रमी"), ("Mira", "Rami")),
        (("शांति देवी", "शंति देव"), ("Shanti Devi", "Shanti Dev")),
        (("कमल", "कोमल"), ("Kamal", "Komal")),
        (("குமார்", "குமாரி"), ("Kumar", "Kumari")),
        (("கமலா", "குமிலி"), ("Kamala", "Kumili")),
        (("สมชาย", "สมใจ"), ("Somchai", "Somjai")),
        (("ปู่", "ปู"), ("Puu", "Pu")),
        (("かき", "がぎ"), ("kaki", "gagi")),
        (("ハナ", "バナ"), ("hana", "bana")),
        (("パン", "バン"), ("pan", "ban")),
        (("דוד", "דודה"), ("David", "Davida")),
        (("שָׁלוֹם", "שִׁלוּם"), ("Shalom", "Shilum")),
        (("علي", "علوي"), ("Ali", "Alawi")),
        (("محمد", "محمود"), ("Muhammad", "Mahmud")),
        (("كَتَبَ", "كُتُب"), ("kataba", "kutub")),
        (("김철수", "김철호"), ("Gim Cheolsu", "Gim Cheolho")),
        (("한", "헌"), ("Han", "Heon")),
        (("王伟", "王芳"), ("Wang Wei", "Wang Fang")),
        (("北京", "南京"), ("Beijing", "Nanjing")),
        (("Мой", "Мои"), ("Moy", "Moi")),
        (("Їв", "Ів"), ("Yiv", "Iv")),
        (("Νίκος", "Νίκη"), ("Nikos", "Niki")),
        (("Άννα", "Άννη"), ("Anna", "Anni")),
    ],
)
def test_names_of_any_script_are_told_apart_as_well_as_in_latin_letters(
    encoder: Encoder, names: tuple[str, str], romanised: tuple[str, str]
) -> None:
    alike, equal = similarity(encoder, *names)
    assert not equal
    assert alike < max(0.6, similarity(encoder, *romanised)[0])  # Kumar and Kumari: .75


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("हिन्दी (1)", "हिन्दी"),
        ("श\u094d\u200dरी", "श\u094dरी"),
        ("क़लम", "क\u093cलम"),
        ("भाग २", "भाग 2"),
        ("ශ්‍රී ලංකා", "ශ්රී ලංකා"),
        ("ﾃﾞｽｸ", "デスク"),
        ("한국", unicodedata.normalize("NFD", "한국")),
        ("葛\U000e0100城", "葛城"),
        ("Пётр", "Петр"),
        ("за́мок", "замок"),
        ("ג׳ורג׳", "ג'ורג'"),
        ("علـــي", "علي"),
        ("کریم", "كريم"),
        ("Ἀθῆναι", "Αθηναι"),
        ("Ångström", "angstrom"),
        ("Nguyễn Thị", "nguyen thi"),
    ],
)
def test_spellings_of_one_name_are_equal(encoder: Encoder, a: str, b: str) -> None:
    assert similarity(encoder, a, b)[1]


@pytest.mark.parametrize(
    ("a", "b"), [("שָׁלוֹם עולם", "שלום עולם"), ("مُحَمَّد عَلِيّ", "محمد علي"), ("أحمد بن", "احمد بن")]
)
def test_words_with_vowel_points_and_without_are_alike(encoder: Encoder, a: str, b: str) -> None:
    cosine, equal = similarity(encoder, a, b)
    assert 0.5 < cosine < 0.95 and not equal


ACCENTED = st.characters(max_codepoint=0x3FF) | st.characters(min_codepoint=0x1E00, max_codepoint=0x2BFF)


@given(st.text(ACCENTED | st.sampled_from("\x02\x03\ufe0f"), max_size=20))
def test_latin_and_greek_are_folded_the_same_beside_any_other_script(text: str) -> None:
    assert fold(text + " я") == fold(text) + " я"


@given(st.text(max_size=400))
def test_a_text_is_cut_between_characters_and_brackets_are_closed(text: str) -> None:
    words = normalise(text)
    assert words.count(b"\x02") <= words.count(b"\x03")
    assert len(words) <= 4 * MAX_TEXT_UNITS + 1
    if len(words) <= MAX_TEXT_UNITS:
        words.decode()


def test_other_scripts_are_compared_as_far_as_latin(encoder: Encoder) -> None:
    start = "ကောင်းသောနေ့" * 10
    assert not similarity(encoder, start + "က", start + "ခ")[1]
    assert similarity(encoder, "東" * MAX_TEXT_UNITS + "a", "東" * MAX_TEXT_UNITS + "b")[1]
