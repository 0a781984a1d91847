"""A model is checked before an aligner is made of it, by whatever command."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.catalogues import catalogues
from model.checkpoint import load_model, save_model
from model.errors import ModelError
from model.scoring.network import AlignmentNetwork
from stream.engine.aligner import Aligner
from stream.engine.views import NAMES
from stream.learning.evaluation import evaluate_model
from stream.mapping.canonical import decode_canonical
from stream.state.generations import keep_model


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("k", 0, "options.k: Expected `int` >= 1"),
        ("k", 1_000_000, "options.k: Expected `int` <= 100"),
        ("k", 2.5, "options.k: Expected `int`, got `float`"),
        ("k", None, "options.k: Expected `int`, got `null`"),
        ("views", ["name", "\x1b[2J"], "options.views: name, \x1b[2J; this version has name, values, "),
        ("floors", [1], f"options.floors: 1 for {len(NAMES)} views"),
        ("floors", [1 << 40] * len(NAMES), "options.floors[0]: Expected `int` <= 1073741824"),
        ("more", 1, "Object contains unknown field `more`"),
    ],
)
def test_options_that_no_training_has(
    checkpoint: Path, tmp_path: Path, option: str, value: Any, told: str
) -> None:
    model = load_model(checkpoint)[1]
    save_model(tmp_path / "m", replace(model, options={**model.options, option: value}))
    told = re.escape(f"{tmp_path / 'm'}: not a usable model: {told}")
    with pytest.raises(ModelError, match=told):
        keep_model(tmp_path / "kept", tmp_path / "m")
    with pytest.raises(ModelError, match=told):
        evaluate_model(catalogues(1), [("left:f0", "right:f0")], tmp_path / "m")
    with pytest.raises(ModelError, match=told):
        Aligner(tmp_path / "state", tmp_path / "m", decode_canonical)
    assert not (tmp_path / "kept").exists() and not (tmp_path / "state").exists()


def test_a_network_for_other_features_than_retrieval_gives(checkpoint: Path, tmp_path: Path) -> None:
    """Compiled loops would read beyond the end of its bins."""
    model = load_model(checkpoint)[1]
    context = model.network.options.context
    network = AlignmentNetwork(replace(model.network.options, context=context - 1))
    trees = model.trees._replace(feature=model.trees.feature * 0)
    save_model(tmp_path / "m", replace(model, network=network, trees=trees))
    with pytest.raises(ModelError, match=f"context: {context - 1} features, where retrieval gives {context}"):
        keep_model(tmp_path / "kept", tmp_path / "m")
