"""Rows and candidate lists on disk, so that opening a state need not encode and search for them all again.

A snapshot is a convenience, never the truth: it is complete or absent (written beside and renamed), and its
files are checked by their digests. After loading, a row counts only if it was made of the entity that the
graph store has, and the vectors of lists are compared with those that follow from the rows, so that what has
changed since is caught up with. Anything wrong with it means encoding and searching anew.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from index.candidates import CandidateOptions, CandidatePairs, Kinds
from index.search.arrays import MISSING
from stream.engine.embedding import SavedRows
from stream.engine.node_cells import NodeCells
from stream.engine.node_table import NodeTable
from stream.engine.pairs import SourcePair
from stream.engine.views import WIDTHS

FORMAT = 4
_ROWS = "rows"  # directory beside those of the lists
_log = logging.getLogger("sameas")


class _Manifest(msgspec.Struct):
    format: int
    settings: str  # of the state that this belongs to
    spaces: list[tuple[str, str]]
    pairs: list[SourcePair]  # with lists in directories 0, 1, ...
    has_cells: bool
    digests: dict[str, str]  # of every file, by its path in the snapshot


Lists = Mapping[SourcePair, CandidatePairs]


def save(directory: Path, settings: str, rows: SavedRows, lists: Lists) -> None:
    """Replaces the snapshot in `directory`, or says why it could not."""
    partial = directory.with_suffix(".partial")
    kept = rows.table.rows["exists"].copy()  # slots of entities that are gone are given away
    for pairs in lists.values():
        kept[np.concatenate(pairs.keys())] = True
    slots = np.flatnonzero(kept).astype(np.int32)
    numbers = np.full(len(kept), MISSING, np.int32)
    numbers[slots] = np.arange(len(slots))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / _ROWS).mkdir(parents=True)
        rows.table.save(partial / _ROWS, slots)
        np.save(partial / _ROWS / "stored.npy", rows.stored[slots])
        if rows.cells is not None:
            rows.cells.save(partial / _ROWS, slots)
        for number, pairs in enumerate(lists.values()):
            (partial / str(number)).mkdir()
            pairs.save(partial / str(number), numbers)
        manifest = _Manifest(
            FORMAT,
            settings,
            rows.spaces,
            list(lists),
            rows.cells is not None,
            _digests(partial),
        )
        (partial / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    except (OSError, RuntimeError) as error:  # FAISS raises RuntimeError when it cannot write
        _log.warning("no snapshot, the next start encodes and searches anew: %s", error)


def load(
    directory: Path, settings: str, options: CandidateOptions, kinds: Kinds
) -> tuple[SavedRows, Lists] | None:
    """What was saved; None when there is no usable snapshot."""
    if not directory.exists():
        return None
    try:
        manifest = msgspec.json.decode((directory / "manifest.json").read_bytes(), type=_Manifest)
        if (manifest.format, manifest.settings) != (FORMAT, settings):
            raise ValueError(f"format {manifest.format} for {manifest.settings}")
        if _digests(directory) != manifest.digests:
            raise ValueError("a file is not what was written")
        table = NodeTable()
        table.load(directory / _ROWS)
        cells = NodeCells() if manifest.has_cells else None
        if cells is not None:
            cells.load(directory / _ROWS)
        lists = {
            pair: CandidatePairs.load(directory / str(number), WIDTHS, options, kinds)
            for number, pair in enumerate(manifest.pairs)
        }
        stored = np.load(directory / _ROWS / "stored.npy")
        return SavedRows(manifest.spaces, table, cells, stored), lists
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning("the snapshot in %s is of no use, encoding and searching anew: %s", directory, error)
        return None


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): xxhash.xxh3_64_hexdigest(path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }
