"""Cells are a function of the entity: of what it says, not of its batch or of how it is spelt."""

import numpy as np
import pytest

from benchmarks.catalogues import catalogues
from model.encoding.encoder import Encoder
from model.encoding.rarest import NAME_CELLS, VALUE_CELLS, rarest_tokens
from stream.events import Upsert


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.fit(catalogues())


def shared(one: np.ndarray, other: np.ndarray) -> int:
    return len(np.intersect1d(one[one > 0], other[other > 0]))


def test_cells_do_not_depend_on_the_batch(encoder: Encoder) -> None:
    entities = catalogues()
    encoded, together = encoder.encode_with_cells(entities)
    for one, other in zip(encoded, encoder.encode(entities), strict=True):
        np.testing.assert_array_equal(one, other)
    assert together.name.shape == (len(entities), NAME_CELLS)
    assert together.values.shape == (len(entities), VALUE_CELLS)
    for number in (0, 7, len(entities) - 1):
        _, alone = encoder.encode_with_cells(entities[number : number + 1])
        np.testing.assert_array_equal(alone.name[0], together.name[number])
        np.testing.assert_array_equal(alone.values[0], together.values[number])
    assert encoder.encode_with_cells([])[1].name.shape == (0, NAME_CELLS)


def test_a_misspelt_name_and_a_near_year_share_cells_and_others_do_not(encoder: Encoder) -> None:
    def film(title: str, year: int) -> Upsert:
        return Upsert("left", "x", "film", {"title": title, "year": year}, {})

    _, (name, values) = encoder.encode_with_cells(
        [film("The Zyxomat Affair", 1971), film("zyxomatt affair, the", 1972), film("Blorgh", 1911)]
    )
    assert shared(name[0], name[1]) >= 1 and shared(values[0], values[1]) >= 2
    assert shared(name[0], name[2]) == 0 and shared(values[0], values[2]) == 0
    _, nothing = encoder.encode_with_cells([Upsert("left", "x", "film", {}, {})])
    assert not nothing.name.any() and not nothing.values.any()


def test_the_rarest_tokens_come_first_each_once_and_ties_by_token() -> None:
    weights = np.array([9, 1, 9, 5, 7], np.uint8)
    entity, token = np.array([0, 0, 0, 0, 0, 2]), np.array([3, 2, 0, 1, 2, 4])
    assert rarest_tokens(3, entity, token, weights, 3).tolist() == [[1, 3, 4], [0, 0, 0], [5, 0, 0]]
