"""What search in cells finds and costs beside exact search, on the films of two catalogues of `-n` entities.

Three figures say what it finds: the share of the 20 exact nearest (*recall*), of those among them that are at
least half alike, and how often the film that is the same is among the 20 of either search (*truth*). Among
very many the nearest are mostly strangers that happen to look a little alike; to lose these costs nothing.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch

from benchmarks.speed import material
from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.report import Row
from benchmarks.synthetic import PREFIX, catalogue, links
from index.entity import node_of
from index.search.arrays import MISSING, UNREACHABLE, Nearest, Order, Slots, Vectors
from index.search.cells import CellIndex
from index.search.vectors import UNIT, VectorIndex
from model.checkpoint import load_model
from stream.engine.embedding import Embedding
from stream.engine.parts import candidate_options
from stream.engine.retrieval import Retrieval
from stream.engine.views import OFF, VIEWS
from stream.learning.workspace import Workspace

NEAREST = 20
QUERIES = 2048  # films of the left catalogue that the right one has, too
BATCH = 256


class Seen(msgspec.Struct):
    """Of one view. Shares, and microseconds of CPU a query."""

    vectors: int
    recall: float
    recall_of_alike: float
    truth: float
    exact_truth: float
    looked_at: float  # share of vectors
    ours: float
    exact: float


def measure(bench: Bench) -> list[Row]:
    """One view after the other, in batches of 256 queries on one thread."""
    found = in_child(look, bench.model, bench.options.n)
    rows = []
    for view, seen in found.items():
        row = partial(Row, "cells")
        rows += [
            row(f"{view}: recall@{NEAREST} of exact search", seen.recall, "share", at_least=0.98),
            row(f"{view}: the same of those half alike", seen.recall_of_alike, "share"),
            row(f"{view}: truth@{NEAREST}", seen.truth, "share", note=f"exact search {seen.exact_truth:.4f}"),
            row(f"{view}: looked at", seen.looked_at, "share of vectors", note=f"{seen.vectors:,} vectors"),
            row(f"{view}: search in cells", seen.ours, "us of CPU a query"),
            row(f"{view}: exact search", seen.exact, "us of CPU a query"),
        ]
    return rows


def look(model: Path, n: int) -> dict[str, Seen]:
    """Makes rows of both catalogues, and no lists; queries the right one's films with the left one's."""
    _, loaded = load_model(model)
    both, options = material.world(n), candidate_options(loaded)
    events = material.interleaved(catalogue(both, "left"), catalogue(both, "right"))
    with Workspace(events) as workspace:
        embedding = Embedding(workspace._graph, loaded.encoder, options.floors, cells=True)
        embedding.fill({})
    table, retrieval = embedding.table, Retrieval(embedding, options)
    linked = [pair for pair in links(both) if pair[0].startswith(f"left:{PREFIX['film']}")]
    chosen = np.random.default_rng(0).permutation(len(linked))[:QUERIES].tolist()
    left, right = (table.slots([node_of(linked[number][side]) for number in chosen]) for side in (0, 1))
    films = retrieval._members(embedding.number_of["film", "right"])
    sides = [
        retrieval._change(embedding.number_of["film", source], slots).vectors
        for source, slots in (("left", left), ("right", films))
    ]
    found = {}
    for number, view in enumerate(VIEWS):
        if view.is_dense and options.floors[number] < OFF:
            index = view.in_cells(view.width)
            index.put(films, sides[1][number])
            found[view.name] = _view(
                index, sides[0][number], right, options.floors[number], table.rows["node"]
            )
    return found


def _view(index: VectorIndex, queries: Vectors, partners: Slots, floor: int, order: Order) -> Seen:
    present = queries.any(axis=1) & (index.rows(partners) >= 0)
    queries, partners = queries[present], partners[present]
    every = np.arange(len(index), dtype=np.int32)
    exhaustive = index.nearest_of_all(queries, NEAREST, floor, order)
    index.bound(every, np.full(len(index), -UNREACHABLE, np.int32))  # whoever is looked at reaches it
    nearest, looked_at = index.search(queries, NEAREST, floor, order)
    # bounds as lists would have them: a row hears of those that would be among its own nearest
    bounds = np.resize(np.maximum(exhaustive.sims[:, -1], floor), len(index)).astype(np.int32)
    index.bound(every, bounds)
    width = queries.shape[1] - CellIndex.EXTRA
    exact = VectorIndex(width)
    exact.put(index.keys, np.ascontiguousarray(index.vectors(every)[:, :width]))
    exact.bound(every, bounds)

    def recall(floor: int) -> float:
        """Of those from `floor` up; equal similarities count as equal."""
        wanted = ((exhaustive.keys != MISSING) & (exhaustive.sims >= floor)).sum(axis=1)
        last = exhaustive.sims[np.arange(len(queries)), wanted - 1]
        as_near = (nearest.keys != MISSING) & (nearest.sims >= np.maximum(last, floor)[:, None])
        return float(np.minimum(as_near.sum(axis=1), wanted).sum() / max(1, wanted.sum()))

    def truth(found: Nearest) -> float:
        return float((found.keys == partners[:, None]).any(axis=1).mean())

    return Seen(
        vectors=len(index),
        recall=recall(floor),
        recall_of_alike=recall(UNIT // 2),
        truth=truth(nearest),
        exact_truth=truth(exhaustive),
        looked_at=len(looked_at.query) / len(queries) / len(index),
        ours=_timed(queries, lambda part: index.search(part, NEAREST, floor, order)),
        exact=_timed(queries[:, :width], lambda part: exact.search(part, NEAREST, floor, order)),
    )


def _timed(queries: Vectors, search: Callable[[Vectors], object]) -> float:
    """Microseconds of CPU a query, in batches, after one that does not count."""
    torch.set_num_threads(1)
    search(queries[:BATCH])
    started = time.process_time()
    for first in range(0, len(queries), BATCH):
        search(queries[first : first + BATCH])
    return 1e6 * (time.process_time() - started) / len(queries)
