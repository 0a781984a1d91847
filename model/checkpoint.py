"""A model on disk: `model.safetensors` (all arrays) and `model.json` (everything else). Nothing is executed.

The model's id is a hash of both, so two models with different scores never share one.

Compiled loops read a model without looking: a tree that points outside of what it sees would read other
memory, and a number that is not finite would make any score of a pair. So a model is checked whole when it is
read, and when it is written: every shape, type and range, before anything is made of it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.encoding.encoder import Encoder
from model.encoding.keys import KeyRow
from model.encoding.levels import Levels, unlearned
from model.encoding.tokens import BUCKETS
from model.errors import ModelError
from model.scoring.network import LEAST_WIDTH, AlignmentNetwork, NetworkOptions
from model.scoring.scorer import Calibration, DenseScorer
from model.scoring.trees import NO_TREES, NODES, SUMMARY, Trees
from model.shapes import FIRST

FORMAT = 7
ARRAYS, VALUES = "model.safetensors", "model.json"
# The largest that training makes, with 16,384 keys, are 3 and 15 MB; what is read takes some times as much.
MAX_BYTES: Final = {VALUES: 8 << 20, ARRAYS: 24 << 20}
# Of a weight and of what a tree says: a thousand times what training makes, and so little that no sum of the
# loops in `model/scoring/kernel.py` leaves the range of float32, being products of at most five of them.
LARGEST: Final = 1e4
_RETRAIN = "train it again with `sameas train`"

_Arrays = dict[str, npt.NDArray[Any]]
_Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]  # which no NaN is


@dataclass(frozen=True)
class Model:
    """All that scoring needs. `options` are the caller's: they say how candidates and contexts were made."""

    encoder: Encoder
    network: AlignmentNetwork
    trees: Trees
    types: tuple[str, ...]  # which had links; the trees know nothing of other types
    calibration: Calibration
    alone: Calibration  # of the network where there are no trees
    threshold: float
    options: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def scorer(self, kind: str | None = None) -> DenseScorer:
        """For pairs of a type, by default one that had links. For other types the network alone decides."""
        return self._with_trees if kind is None or kind in self.types else self._alone

    @cached_property
    def _with_trees(self) -> DenseScorer:
        return DenseScorer(self.network, self.trees, self.calibration)

    @cached_property
    def _alone(self) -> DenseScorer:
        return DenseScorer(self.network, NO_TREES, self.alone)


class _Encoder(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[KeyRow]


class _Calibration(msgspec.Struct, forbid_unknown_fields=True):
    slope: Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
    offset: _Number

    def made(self) -> Calibration:
        return Calibration(self.slope, self.offset)


class _Values(msgspec.Struct, forbid_unknown_fields=True):
    """What stands in `model.json`."""

    id: str
    format: int
    network: NetworkOptions
    encoder: _Encoder
    calibration: _Calibration
    alone: _Calibration
    threshold: Annotated[float, msgspec.Meta(ge=0, le=1)]
    types: tuple[str, ...]
    options: dict[str, Any]
    report: dict[str, Any]


def save_model(directory: Path, model: Model) -> str:
    """Writes both files, each whole or not at all, and returns the model's id.

    Raises:
        ModelError: it could not be read again.
    """
    weights, keys = model.encoder.state()
    arrays = {"encoder.token_weights": weights}
    arrays |= {f"levels.{name}": array for name, array in model.encoder.levels._asdict().items()}
    for name, tensor in model.network.state_dict().items():
        arrays[f"network.{name}"] = np.ascontiguousarray(tensor.detach().numpy())
    arrays |= {f"trees.{name}": array for name, array in model.trees._asdict().items()}
    packed = save(arrays)
    values = {
        "format": FORMAT,
        "network": model.network.options.to_json(),
        "encoder": {"keys": msgspec.to_builtins(keys)},
        "calibration": model.calibration._asdict(),
        "alone": model.alone._asdict(),
        "threshold": model.threshold,
        "types": list(model.types),
        "options": model.options,
    }
    values = {"id": content_id(values, packed), **values, "report": model.report}
    written = {ARRAYS: packed, VALUES: json.dumps(values, indent=1).encode()}
    _read(directory, written)
    directory.mkdir(parents=True, exist_ok=True)
    partial = {name: directory / f"{name}.partial" for name in written}
    try:
        for name, content in written.items():
            partial[name].write_bytes(content)
        for name, path in partial.items():  # one after the other at once, as they belong together
            path.replace(directory / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        raise
    return str(values["id"])


def load_model(directory: Path) -> tuple[str, Model]:
    """The model's id and the model.

    Raises:
        ModelError: a file is missing, unreadable, too large, of another format, or the two do not belong
            together; or something in them is not what training writes.
    """
    found = {}
    for name, most in MAX_BYTES.items():
        try:
            if not (directory / name).is_file():
                raise ModelError(f"{directory}: no {name}; {_RETRAIN}")
            with (directory / name).open("rb") as file:
                found[name] = file.read(most + 1)
        except (OSError, ValueError) as error:  # a ValueError: no path may be like that
            reason = error.strerror if isinstance(error, OSError) else error
            raise ModelError(f"{directory}: {name} cannot be read: {reason}") from error
    return _read(directory, found)


def _read(directory: Path, files: Mapping[str, bytes]) -> tuple[str, Model]:
    """The model that the contents of its files make. Raises ModelError."""
    try:
        for name, most in MAX_BYTES.items():
            if len(files[name]) > most:
                raise ValueError(f"{name} has more than {most:,} bytes")
        values = json.loads(files[VALUES])
        if not isinstance(values, dict):
            raise ValueError(f"{VALUES} is no JSON object")
        if values.get("format") != FORMAT:
            raise ValueError(f"format {values.get('format')}, this version reads {FORMAT}")
        content = {name: value for name, value in values.items() if name not in ("id", "report")}
        if content_id(content, files[ARRAYS]) != values.get("id"):
            raise ValueError(f"{VALUES} and {ARRAYS} are changed or of two models")
        model = _model(msgspec.convert(values, _Values), load(files[ARRAYS]))
    except (ValueError, KeyError, RecursionError, SafetensorError) as error:
        # a KeyError: an array of a type that NumPy does not have
        reason = re.sub(r"(.*) - at `\$\.(.*)`", r"\2: \1", " ".join(str(error).split()))[:400]
        raise ModelError(f"{directory}: not a usable model: {reason}; {_RETRAIN}") from error
    return str(values["id"]), model


def _model(values: _Values, arrays: _Arrays) -> Model:
    """Raises ValueError, which names the field."""
    options = values.network
    weights = _take(arrays, "encoder.token_weights", (BUCKETS,), np.uint8)
    if not weights.all():
        raise ValueError("encoder.token_weights: 0 is no weight")
    keys = FIRST + len(values.encoder.keys)
    if options.keys != keys:
        raise ValueError(f"network.keys: {options.keys}, where the encoder has {keys}")
    levels = Levels(
        *(
            _take(arrays, f"levels.{name}", like.shape, like.dtype)
            for name, like in unlearned(keys)._asdict().items()
        )
    )
    encoder = Encoder.from_state(weights, values.encoder.keys, levels)
    network = AlignmentNetwork(options)
    parameters = {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape) or (1,)  # a file has no array without an axis
        array = _take(arrays, f"network.{name}", shape, np.float32)
        if name == "bin_width" and not (array >= np.float32(LEAST_WIDTH)).all():
            raise ValueError(f"network.{name}: a bin is narrower than {LEAST_WIDTH}")
        parameters[name] = torch.from_numpy(array)
    network.load_state_dict(parameters)
    trees = _trees(arrays, options)
    for name in arrays:
        raise ValueError(f"{ARRAYS}: there is no array {name[:100]!r}")
    return Model(
        encoder,
        network.eval(),
        trees,
        values.types,
        values.calibration.made(),
        values.alone.made(),
        values.threshold,
        values.options,
        values.report,
    )


def _trees(arrays: _Arrays, options: NetworkOptions) -> Trees:
    value = arrays.get("trees.value")
    count = 0 if value is None or value.ndim == 0 else len(value)
    if count > options.trees:
        raise ValueError(f"trees.value: {count} trees, {options.trees} at most")
    trees = Trees(
        _take(arrays, "trees.base", (1,), np.float64),
        _take(arrays, "trees.feature", (count, NODES), np.int32),
        _take(arrays, "trees.threshold", (count, NODES), np.float32, most=np.inf),
        _take(arrays, "trees.value", (count, NODES + 1), np.float64),
        _take(arrays, "trees.least", (1,), np.float64, most=np.inf),
    )
    seen = options.context + SUMMARY
    if not ((trees.feature >= 0) & (trees.feature < seen)).all():
        raise ValueError(f"trees.feature: a tree looks outside of the {seen} features of a pair")
    return trees


def _take(
    arrays: _Arrays, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, most: float = LARGEST
) -> npt.NDArray[Any]:
    """Takes an array away from the others. Raises ValueError if it is not one such, or not within `most`."""
    array = arrays.pop(name, None)
    if array is None:
        raise ValueError(f"{name} is missing")
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: {array.dtype} {array.shape}, {np.dtype(dtype)} {shape} is expected")
    if np.issubdtype(array.dtype, np.floating) and not (np.abs(array) <= most).all():
        raise ValueError(f"{name}: a number is NaN, or beyond {most:,}")
    return array


def content_id(values: dict[str, Any], arrays: bytes) -> str:
    """16 hexadecimal digits of the content."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    digest.update(arrays)
    return digest.hexdigest()[:16]
