"""Data sets: a folder with files, and a mapping file that says what they mean.

A mapping file holds `folder` (relative to the data directory), then either `links = {train, valid, test}`,
CSV files with the columns `left,right`, and `[sources.NAME]` as in sameas.toml; or
`pairs = {train, valid}`, CSV files in which a row is a labelled pair with the columns `label`,
`left_*` and `right_*`. Pairs without a `test` are tested on `valid`.
"""

import csv
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import xxhash

from benchmarks.quality import versions
from index.entity import Value
from stream.catalogue.reading import read_events
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent, Upsert
from stream.learning.known_links import LabelledLink, LinkPair, partners, read_links
from stream.mapping.language import SourceMapping

BUILT_IN = Path(__file__).parent.parent / "datasets"
VERSIONS = "versions"  # which is generated
LEFT, RIGHT = "left", "right"
ALONE = 0.4  # the share of right entities that the open world lacks


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    folder: str
    links: dict[str, str] = {}
    pairs: dict[str, str] = {}
    type: str = "entity"
    sources: dict[str, SourceMapping] = {}


@dataclass(frozen=True)
class DataSet:
    """Entities, and links (candidates come from retrieval) or labelled pairs (these are the candidates)."""

    name: str
    events: list[EntityEvent]
    links: dict[str, list[LinkPair]] = field(default_factory=dict)  # by part: train, valid, test
    pairs: dict[str, list[LabelledLink]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()  # entities of valid and test links that were left out


def built_in() -> list[str]:
    """The names of the data sets that come with the benchmark."""
    return sorted([VERSIONS, *(path.stem for path in BUILT_IN.glob("*.toml"))])


def read_dataset(name: str, data: Path, test_links: Path | None = None) -> DataSet:
    """Reads a data set.

    Args:
        name: of a built-in one, or the path of a mapping file.
        data: the directory that the mapping's `folder` is in.
        test_links: replaces the test links; for a set of labelled pairs, a file of such pairs.

    Raises:
        ConfigError: there is no such set, or a file cannot be used.
    """
    if name == VERSIONS:
        entities, known = versions.catalogues()
        return DataSet(name, [*entities], known)
    path = Path(name) if name.endswith(".toml") else BUILT_IN / f"{name}.toml"
    try:
        document = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _Document)
    except FileNotFoundError as error:
        raise ConfigError(
            f"no data set {name}: give one of {', '.join(built_in())}, or a mapping file"
        ) from error
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    folder = data / document.folder
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not there; DATA=DIRECTORY names the directory that the data are in")
    if document.pairs:
        files = {part: folder / file for part, file in document.pairs.items()}
        files["test"] = test_links or files.get("test", files["valid"])
        return _read_pairs(path.stem, document.type, files)
    files = {part: folder / file for part, file in document.links.items()}
    if test_links is not None:
        files["test"] = test_links
    if files.keys() != {"train", "valid", "test"}:
        raise ConfigError(f"{path}: links: train, valid and test are needed")
    events = [
        event
        for source, mapping in document.sources.items()
        for _, event in read_events(source, mapping, folder)
        if not isinstance(event, InvalidInput)
    ]
    return DataSet(path.stem, events, {part: read_links(file).links for part, file in files.items()})


def in_the_open(dataset: DataSet) -> DataSet:
    """The data set without some right entities of valid and test links. Labelled pairs stay as they are."""
    absent = partners([link for part in ("valid", "test") for link in dataset.links.get(part, [])], ALONE)
    events = [event for event in dataset.events if f"{event.source}:{event.id}" not in absent]
    return replace(dataset, events=events, absent=absent)


def _read_pairs(name: str, kind: str, files: dict[str, Path]) -> DataSet:
    entities: dict[tuple[str, str], Upsert] = {}
    pairs: dict[str, list[LabelledLink]] = {}
    for part, path in files.items():
        pairs[part] = []
        for row in _rows(path):
            names = []
            for side in (LEFT, RIGHT):
                attributes: dict[str, Value] = {
                    column.removeprefix(f"{side}_"): cell
                    for column, cell in row.items()
                    if column.startswith(f"{side}_") and cell
                }
                entity = Upsert(side, _id_of(attributes), kind, attributes)
                entities[entity.source, entity.id] = entity
                names.append(f"{side}:{entity.id}")
            pairs[part].append(LabelledLink(names[0], names[1], row["label"] == "1"))
    return DataSet(name, list(entities.values()), pairs=pairs)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _id_of(attributes: dict[str, Value]) -> str:
    """The same values are the same entity, in whichever pairs they come."""
    return xxhash.xxh3_64_hexdigest(msgspec.json.encode(sorted(attributes.items())))


__all__ = ["DataSet", "built_in", "read_dataset"]
