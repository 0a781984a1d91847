"""A model on disk: `model.safetensors` (all arrays) and `model.json` (everything else). Nothing is executed.

The model's id is a hash of both, so two models with different scores never share one.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.scoring.network import AlignmentNetwork, NetworkOptions
from model.scoring.scorer import DenseScorer
from model.scoring.trees import Trees

FORMAT = 5
ARRAYS, VALUES = "model.safetensors", "model.json"
_RETRAIN = "train it again with `sameas train`"


@dataclass(frozen=True)
class Model:
    """All that scoring needs. `options` are the caller's: they say how candidates and contexts were made."""

    encoder: Encoder
    network: AlignmentNetwork
    trees: Trees
    types: tuple[str, ...]  # which had links; the trees know nothing of other types
    slope: float
    offset: float
    threshold: float
    options: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def scorer(self, kind: str | None = None) -> DenseScorer:
        """For pairs of a type, by default one that had links. For other types the network alone decides."""
        return self._with_trees if kind is None or kind in self.types else self._alone

    @cached_property
    def _with_trees(self) -> DenseScorer:
        return DenseScorer(self.network, self.trees, self.slope, self.offset)

    @cached_property
    def _alone(self) -> DenseScorer:
        return DenseScorer(self.network)


def save_model(directory: Path, model: Model) -> str:
    """Writes both files, each whole or not at all, and returns the model's id."""
    encoder_arrays, encoder_values = model.encoder.state()
    arrays = {f"encoder.{name}": np.ascontiguousarray(array) for name, array in encoder_arrays.items()}
    for name, tensor in model.network.state_dict().items():
        arrays[f"network.{name}"] = np.ascontiguousarray(tensor.detach().numpy())
    arrays |= {f"trees.{name}": array for name, array in model.trees._asdict().items()}
    packed = save(arrays)
    values = {
        "format": FORMAT,
        "network": model.network.options.to_json(),
        "encoder": encoder_values,
        "calibration": {"slope": model.slope, "offset": model.offset},
        "threshold": model.threshold,
        "types": list(model.types),
        "options": model.options,
    }
    values = {"id": _identity(values, packed), **values, "report": model.report}
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in ((ARRAYS, packed), (VALUES, json.dumps(values, indent=1).encode())):
        partial = directory / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(directory / name)
    return str(values["id"])


def load_model(directory: Path) -> tuple[str, Model]:
    """The model's id and the model.

    Raises:
        ModelError: a file is missing, unreadable, of another format, or the two do not belong together.
    """
    try:
        for name in (VALUES, ARRAYS):
            if not (directory / name).is_file():
                raise ModelError(f"{directory}: no {name}; {_RETRAIN}")
        values = json.loads((directory / VALUES).read_bytes())
        packed = (directory / ARRAYS).read_bytes()
        arrays = load(packed)
        if values["format"] != FORMAT:
            raise ModelError(
                f"{directory}: format {values['format']}, this version reads {FORMAT}; {_RETRAIN}"
            )
        content = {name: value for name, value in values.items() if name not in ("id", "report")}
        if _identity(content, packed) != values["id"]:
            raise ModelError(f"{directory}: {VALUES} and {ARRAYS} are changed or of two models; {_RETRAIN}")
        encoder = {name[8:]: array for name, array in arrays.items() if name.startswith("encoder.")}
        weights = {name[8:]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("network.")}
        network = AlignmentNetwork(NetworkOptions(**values["network"]))
        network.load_state_dict(weights)
        model = Model(
            encoder=Encoder.from_state(encoder, values["encoder"]),
            network=network.eval(),
            trees=Trees(*(arrays[f"trees.{name}"] for name in Trees._fields)),
            types=tuple(values["types"]),
            slope=float(values["calibration"]["slope"]),
            offset=float(values["calibration"]["offset"]),
            threshold=float(values["threshold"]),
            options=values["options"],
            report=values["report"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{directory}: not a usable model ({type(error).__name__}: {error}); {_RETRAIN}"
        ) from error
    return str(values["id"]), model


def _identity(values: dict[str, Any], arrays: bytes) -> str:
    """16 hexadecimal digits of the content."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    digest.update(arrays)
    return digest.hexdigest()[:16]
