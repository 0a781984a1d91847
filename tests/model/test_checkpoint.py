"""A model comes back as it was, or not at all."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint import ARRAYS, VALUES, Model, load_model, save_model
from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.scoring.network import AlignmentNetwork
from model.scoring.pairs import PairInputs
from model.scoring.scorer import DenseScorer
from model.scoring.trees import Trees
from stream.events import Upsert
from tests.model.arrays import in_step

ENTITIES = [Upsert("a", str(n), "t", {"name": f"entity {n}", "year": 1900 + n}) for n in range(20)]


@pytest.fixture
def model(random_network: AlignmentNetwork, random_trees: Trees) -> Model:
    encoder = Encoder.fit(ENTITIES)
    return Model(
        encoder, random_network, random_trees, ("film",), 1.25, -0.5, 0.4, {"k": 20}, {"seconds": 1.0}
    )


def test_round_trip(tmp_path: Path, model: Model, random_inputs: Callable[[int, int], PairInputs]) -> None:
    identity = save_model(tmp_path / "m", model)
    found, loaded = load_model(tmp_path / "m")
    assert found == identity
    assert (loaded.threshold, loaded.options, loaded.report) == (0.4, {"k": 20}, {"seconds": 1.0})
    inputs = random_inputs(40, 8)
    logits = model.scorer().logits(inputs)
    assert (loaded.scorer().logits(inputs) == logits).all()
    assert (loaded.scorer().probabilities(logits) == model.scorer().probabilities(logits)).all()
    for a, b in in_step(loaded.encoder.encode(ENTITIES), model.encoder.encode(ENTITIES)):
        assert (a == b).all()


def test_the_id_is_the_content(tmp_path: Path, model: Model) -> None:
    first = save_model(tmp_path / "a", model)
    assert save_model(tmp_path / "b", model) == first
    other = replace(model, threshold=0.41)
    assert save_model(tmp_path / "b", other) != first
    assert not list(tmp_path.glob("*/*.partial"))


def test_refusals_say_what_to_do(tmp_path: Path, model: Model) -> None:
    with pytest.raises(ModelError, match=r"no model\.json; train it again"):
        load_model(tmp_path)
    save_model(tmp_path, model)
    arrays, values = (tmp_path / ARRAYS).read_bytes(), (tmp_path / VALUES).read_text()

    (tmp_path / ARRAYS).unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_model(tmp_path)

    for spoiled in (arrays[:1000], b"", arrays[:-1] + bytes([arrays[-1] ^ 1])):
        (tmp_path / ARRAYS).write_bytes(spoiled)
        with pytest.raises(ModelError):
            load_model(tmp_path)

    (tmp_path / ARRAYS).write_bytes(arrays)
    for spoiled_values in (
        "",
        "[]",
        "{}",
        values[:100],
        json.dumps({**json.loads(values), "threshold": 0.9}),
        json.dumps({**json.loads(values), "format": 99}),
    ):
        (tmp_path / VALUES).write_text(spoiled_values)
        with pytest.raises(ModelError, match="sameas train"):
            load_model(tmp_path)


def test_two_models_are_not_mixed(tmp_path: Path, model: Model) -> None:
    save_model(tmp_path / "a", model)
    other = Encoder.fit([Upsert("a", "1", "t", {"name": "different"})])
    save_model(tmp_path / "b", replace(model, encoder=other))
    (tmp_path / "a" / ARRAYS).write_bytes((tmp_path / "b" / ARRAYS).read_bytes())
    with pytest.raises(ModelError, match="two models"):
        load_model(tmp_path / "a")
    assert np.isfinite(other.encode(ENTITIES).name).all()


def test_of_a_type_without_links_the_trees_say_nothing(
    model: Model, random_inputs: Callable[[int, int], PairInputs]
) -> None:
    inputs = random_inputs(40, 8)
    alone = DenseScorer(model.network)
    other, film = model.scorer("person"), model.scorer("film")
    assert (other.logits(inputs) == alone.logits(inputs)).all()
    assert (film.logits(inputs) == model.scorer().logits(inputs)).all()
    assert (film.logits(inputs) != alone.logits(inputs)).any()
