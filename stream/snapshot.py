"""The candidate lists on disk, so that opening a state need not search for them all again.

A snapshot is a convenience, never the truth: it is complete or absent (written beside and renamed), its files
are checked by their digests, and after loading every vector is compared with the one that follows from the
graph store, so that what has changed since is caught up with. Anything wrong with it means searching anew.
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import xxhash

from index.candidates import CandidateOptions, CandidatePairs, Kinds
from index.graph import Nodes
from index.vectors import Slots
from model.vectors import DIM
from stream.retrieval import SourcePair

FORMAT = 2
_log = logging.getLogger("sameas")


class _Manifest(msgspec.Struct):
    format: int
    settings: str  # of the state that the lists belong to
    pairs: list[SourcePair]  # in directories 0, 1, ...
    digests: dict[str, str]  # of every file, by its path in the snapshot


def save(
    directory: Path, settings: str, candidates: Mapping[SourcePair, CandidatePairs], order: Nodes
) -> None:
    """Replaces the snapshot in `directory`, or says why it could not. `order` is the node of every slot."""
    partial = directory.with_suffix(".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for number, pairs in enumerate(candidates.values()):
            (partial / str(number)).mkdir()
            pairs.save(partial / str(number), order)
        manifest = _Manifest(FORMAT, settings, list(candidates), _digests(partial))
        (partial / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except (OSError, RuntimeError) as error:  # FAISS raises RuntimeError when it cannot write
        _log.warning("no snapshot of the candidate lists, the next start searches them anew: %s", error)


def load(
    directory: Path,
    settings: str,
    options: CandidateOptions,
    kinds: Kinds,
    slots_of: Callable[[Nodes], Slots],
) -> dict[SourcePair, CandidatePairs]:
    """The lists as they were saved; empty when there is no usable snapshot."""
    if not directory.exists():
        return {}
    try:
        manifest = msgspec.json.decode((directory / "manifest.json").read_bytes(), type=_Manifest)
        if (manifest.format, manifest.settings) != (FORMAT, settings):
            raise ValueError(f"format {manifest.format} for {manifest.settings}")
        if _digests(directory) != manifest.digests:
            raise ValueError("a file is not what was written")
        return {
            pair: CandidatePairs.load(directory / str(number), DIM, options, kinds, slots_of)
            for number, pair in enumerate(manifest.pairs)
        }
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning("the snapshot in %s is of no use, searching anew: %s", directory, error)
        return {}


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): xxhash.xxh3_64_hexdigest(path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
