"""A model comes back as it was, or not at all."""

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from model.checkpoint import ARRAYS, LARGEST, MAX_BYTES, VALUES, Model, content_id, load_model, save_model
from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.scoring.network import LEAST_WIDTH, AlignmentNetwork
from model.scoring.pairs import PairInputs
from model.scoring.scorer import Calibration, DenseScorer
from model.scoring.trees import NO_TREES, SUMMARY, Trees
from stream.events import Upsert
from tests.model.arrays import in_step
from tests.model.conftest import CONTEXT, KEYS

NUMBERS = {f"n{k}": k / 2 for k in range(KEYS - 4)}  # so that there are KEYS keys, with the two of all
ENTITIES = [Upsert("a", str(n), "t", {"name": f"entity {n}", "year": 1900 + n, **NUMBERS}) for n in range(20)]


@pytest.fixture
def model(random_network: AlignmentNetwork, random_trees: Trees) -> Model:
    encoder = Encoder.fit(ENTITIES)
    return Model(
        encoder,
        random_network,
        random_trees,
        ("film",),
        Calibration(1.25, -0.5),
        Calibration(0.75, 0.25),
        0.4,
        {"k": 20},
        {"seconds": 1.0},
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
    other = Encoder.fit([Upsert("a", "1", "t", {**ENTITIES[0].attributes, "name": "different"})])
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
    logits = other.logits(inputs)
    assert (logits == alone.logits(inputs)).all()
    expected = DenseScorer(model.network, NO_TREES, model.alone).probabilities(logits)
    assert (other.probabilities(logits) == expected).all()
    assert (film.logits(inputs) == model.scorer().logits(inputs)).all()
    assert (film.logits(inputs) != alone.logits(inputs)).any()


# ---------------------------------------------------------------------- hostile models

Values = dict[str, Any]
Arrays = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]
HOSTILE = [0, -1, 2, 2**31, 10**30, 1.5, -0.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, True, None]


def write(directory: Path, values: Values, arrays: Arrays) -> None:
    """A model as somebody makes it who means no good: with an id that is right."""
    packed = save(arrays)
    content = {name: value for name, value in values.items() if name not in ("id", "report")}
    (directory / ARRAYS).write_bytes(packed)
    (directory / VALUES).write_text(json.dumps({**values, "id": content_id(content, packed)}))


def read(directory: Path) -> tuple[Values, Arrays]:
    return json.loads((directory / VALUES).read_bytes()), load((directory / ARRAYS).read_bytes())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside of a JSON value, with every key or number of it."""
    for key in list(value if isinstance(value, dict) else range(len(value))):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def spoil_values(values: Values, draw: Draw) -> None:
    at = [*places(values)]
    container, key = at[draw(st.integers(0, len(at) - 1))]
    if draw(st.booleans()):
        key_row = {"source": "a", "direction": "attribute", "name": "year", "weight": 1}
        container[key] = draw(st.sampled_from([*HOSTILE, "", "x", [], {}, [[]], key_row]))
    else:
        del container[key]


def spoil_arrays(arrays: Arrays, draw: Draw) -> None:
    name = draw(st.sampled_from(sorted(arrays)))
    array = np.atleast_1d(arrays.pop(name))
    how = draw(st.sampled_from(["a number", "a number", "its type", "its shape", "its name", "none"]))
    if how == "a number" and array.size:
        number = draw(st.sampled_from([number for number in HOSTILE if isinstance(number, float)]))
        if not np.issubdtype(array.dtype, np.floating):
            most = np.iinfo(array.dtype)
            number = draw(st.sampled_from([0, 1, most.max, most.min]))
        array = array.copy()
        with np.errstate(over="ignore"):
            array.flat[draw(st.integers(0, array.size - 1))] = number
    elif how == "its type":
        with np.errstate(invalid="ignore", over="ignore"):
            array = array.astype(draw(st.sampled_from([np.float64, np.float16, np.int64, np.uint8])))
    elif how == "its shape":
        others = [array[None], array[:0], array[:1], array.ravel(), array.sum()]
        array = others[draw(st.integers(0, len(others) - 1))]
    if how != "none":
        arrays[name + ("x" if how == "its name" else "")] = np.asarray(array)


def check_scores(model: Model, inputs: PairInputs) -> None:
    for kind in ("film", "person"):
        scorer = model.scorer(kind)
        logits = scorer.logits(inputs)
        assert np.isfinite(logits).all()
        assert ((scorer.probabilities(logits) >= 0) & (scorer.probabilities(logits) <= 1)).all()
    for array in model.encoder.encode(ENTITIES):
        assert np.isfinite(array).all()


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_spoiled_model_is_refused_or_scores(
    data: st.DataObject, tmp_path: Path, model: Model, random_inputs: Callable[[int, int], PairInputs]
) -> None:
    """Never a traceback, a score that is no number, or an access outside of an array."""
    if not (tmp_path / "good").exists():
        save_model(tmp_path / "good", model)
    values, arrays = read(tmp_path / "good")
    for _ in range(data.draw(st.integers(1, 2))):
        if data.draw(st.booleans()):
            spoil_values(values, data.draw)
        else:
            spoil_arrays(arrays, data.draw)
    write(tmp_path, values, arrays)
    try:
        _, loaded = load_model(tmp_path)
    except ModelError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{tmp_path}: not a usable model: "), error
    else:
        check_scores(loaded, random_inputs(6, 1))


def test_the_largest_weights_score_finite_numbers(
    tmp_path: Path, model: Model, random_inputs: Callable[[int, int], PairInputs]
) -> None:
    """A sum that leaves float32 would make NaN of the next product; compiled loops take it for granted."""
    save_model(tmp_path, model)
    values, arrays = read(tmp_path)
    values["calibration"] = {"slope": LARGEST, "offset": -LARGEST}
    for sign in (1, -1):
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                arrays[name] = np.full_like(array, sign * LARGEST)
        arrays["network.bin_low"] = np.full_like(arrays["network.bin_low"], -LARGEST)
        arrays["network.bin_width"] = np.full_like(arrays["network.bin_width"], LEAST_WIDTH)
        write(tmp_path, values, arrays)
        check_scores(load_model(tmp_path)[1], random_inputs(20, 2))


def no_tree(values: Values, arrays: Arrays) -> None:
    arrays["trees.feature"][0, 0] = CONTEXT + SUMMARY


def not_a_number(values: Values, arrays: Arrays) -> None:
    arrays["network.head_in.weight"][0, 0] = np.nan


def key_without_a_row(values: Values, arrays: Arrays) -> None:
    values["encoder"]["keys"].append({"source": "b", "direction": "in", "name": "n", "weight": 3})


def turned_around(values: Values, arrays: Arrays) -> None:
    values["calibration"]["slope"] = -1.0


def many_trees(values: Values, arrays: Arrays) -> None:
    for name in ("feature", "threshold", "value"):
        arrays[f"trees.{name}"] = np.repeat(arrays[f"trees.{name}"], 50, axis=0)


def gigabytes(values: Values, arrays: Arrays) -> None:
    values["network"]["context"] = 10**9


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (no_tree, "trees.feature: a tree looks outside of the 23 features of a pair"),
        (not_a_number, "network.head_in.weight: a number is NaN, or beyond 10,000.0"),
        (key_without_a_row, "network.keys: 30, where the encoder has 31"),
        (turned_around, "calibration.slope: Expected `float` > 0.0"),
        (many_trees, "trees.value: 1150 trees, 200 at most"),
        (gigabytes, "network.context: Expected `int` <= 1000"),
    ],
)
def test_the_error_names_the_field(
    tmp_path: Path, model: Model, spoil: Callable[[Values, Arrays], None], field: str
) -> None:
    save_model(tmp_path, model)
    values, arrays = read(tmp_path)
    spoil(values, arrays)
    write(tmp_path, values, arrays)
    with pytest.raises(
        ModelError, match=re.escape(f"{tmp_path}: not a usable model: {field}; train it again")
    ):
        load_model(tmp_path)


@pytest.mark.parametrize("name", [ARRAYS, VALUES])
def test_of_a_large_file_no_more_is_read_than_a_model_may_have(
    tmp_path: Path, model: Model, name: str
) -> None:
    save_model(tmp_path, model)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(1 << 40)  # of which the disk holds nothing
    with pytest.raises(ModelError, match=f"{name} has more than {MAX_BYTES[name]:,} bytes"):
        load_model(tmp_path)


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, model: Model) -> None:
    with pytest.raises(ModelError, match="threshold: Expected `float`"):
        save_model(tmp_path / "m", replace(model, threshold=math.nan))
    assert not (tmp_path / "m").exists()
