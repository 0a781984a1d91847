"""Are the candidates those of an exact search, and what does a query cost beside FAISS and beside nothing?"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.speed.bench import Bench
from benchmarks.speed.child import in_child
from benchmarks.speed.report import Row
from index.candidates import SLACK
from index.errors import SameasError
from index.search import products
from index.search.arrays import Pairs, Vectors
from index.search.vectors import VectorIndex
from model.shapes import DIM
from stream.engine.aligner import Aligner
from stream.engine.views import OFF, VIEWS
from stream.mapping.canonical import decode_canonical

SAMPLE = 500  # entities of each side of each type whose candidates are looked at
QUERIES = 2048  # that are timed
BATCH = 256

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]


class Found(msgspec.Struct):
    """Shares, and microseconds of CPU a query."""

    recall: float
    worst: float  # recall of the worst type and side
    looked_at: int  # nearest neighbours by exact search
    vectors: int
    ours: float
    flat: float
    quantised: float
    product: float


def measure(bench: Bench) -> list[Row]:
    """On the stored catalogues, in batches of 256 queries on one thread."""
    stored, state = bench.stored(), bench.new_state()
    shutil.copytree(stored, state)
    found = in_child(look, bench.model, state, bench.options.k)
    k = bench.options.k
    sampled = f"{found.looked_at:,} neighbours of sampled entities, k={k} in every view"
    note = f"{sampled}; worst type {found.worst:.4f}"
    size = f"{found.vectors:,} vectors of {DIM}, batches of {BATCH}"
    return [
        Row("retrieval", "recall of exact search", found.recall, "share", at_least=0.98, note=note),
        Row("retrieval", "our search", found.ours, "us of CPU a query and view", note=size),
        Row("retrieval", "FAISS IndexFlatIP (float32)", found.flat, "us of CPU a query"),
        Row("retrieval", "FAISS IndexScalarQuantizer (int8)", found.quantised, "us of CPU a query"),
        Row(
            "retrieval",
            "bare int8 product",
            found.product,
            "us of CPU a query",
            note=f"{products.description()}; nothing selected",
        ),
        Row("retrieval", "FAISS flat over ours", found.flat / found.ours, "times"),
        Row("retrieval", "ours over the bare product", found.ours / found.product, "times"),
    ]


def look(model: Path, state: Path, k: int) -> Found:
    """Opens the state; samples every type from both sides, and times the names of the largest type."""
    faiss.omp_set_num_threads(1)
    aligner = Aligner(state, model, decode_canonical)
    retrieval, chance = aligner._parts.retrieval, np.random.default_rng(0)
    rows = retrieval.embedding.table.rows
    hits: list[tuple[int, int]] = []  # found, and to be found
    largest: tuple[I32, I32] | None = None
    for sources, lists in retrieval.lists.items():
        sides = lists.keys()
        if largest is None or len(sides[0]) > len(largest[0]):
            largest = sides
        for own, others in ((0, sides[1]), (1, sides[0])):
            queries = chance.permutation(sides[own])[:SAMPLE].astype(np.int32)
            found = retrieval.candidates(rows["node"][queries].tolist())
            pairs = next(one.pairs for one in found if one.sources == sources)
            turned = pairs if own == 0 else Pairs(pairs.right, pairs.left)
            for view, floor in zip(VIEWS, retrieval.options.floors, strict=True):
                if floor < OFF:
                    hits.append(recall(view.exact, rows[view.name], queries, others, turned, k, floor))
    if largest is None:
        raise SameasError("the state holds no two sources with entities of one type")
    base, queries_of = (np.ascontiguousarray(rows["name"][side]) for side in largest)
    return Found(
        recall=sum(got for got, _ in hits) / sum(exact for _, exact in hits),
        worst=min(got / exact for got, exact in hits if exact),
        looked_at=sum(exact for _, exact in hits),
        vectors=len(base),
        **times(base, queries_of, k, retrieval.options.floors[0]),
    )


def recall(
    kind: type[VectorIndex], vectors: Vectors, queries: I32, others: I32, pairs: Pairs, k: int, floor: int
) -> tuple[int, int]:
    """How many of the exact k nearest `others` from `floor` up are among the pairs, and how many there are.

    Equal similarities count as equal: whichever of them was found will do.

    Args:
        kind: of index, which knows what is similar.
        vectors: (slots, dimensions).
        pairs: candidates, the queries' slots on the left.
    """
    all_others = vectors[others]
    products = (kind.products(np.repeat(vectors[[q]], len(others), axis=0), all_others) for q in queries)
    nearest = np.stack([-np.sort(np.partition(-row, min(k, len(row)) - 1)[:k]) for row in products])
    wanted = (nearest >= floor).sum(axis=1)
    last = np.where(wanted == k, nearest[:, -1], floor)  # where ties may be cut
    better = (nearest > last[:, None]).sum(axis=1)
    number = np.full(len(vectors), -1)
    number[queries] = np.arange(len(queries))
    of_query = number[pairs.left] >= 0
    query = number[pairs.left[of_query]]
    sims = kind.products(vectors[pairs.left[of_query]], vectors[pairs.right[of_query]])
    found_better, found_last = (
        np.bincount(query[which], minlength=len(queries))
        for which in (sims > last[query], sims == last[query])
    )
    return int((found_better + np.minimum(found_last, wanted - better)).sum()), int(wanted.sum())


def times(base: I8, queries: I8, k: int, floor: int) -> dict[str, float]:
    """Microseconds of CPU a query for ours, both answers, and for what it is compared with.

    Args:
        base, queries: vectors of the two sides; as in the aligner, a row is also told of a query that would
            be among its own nearest.
    """
    flat = faiss.IndexFlatIP(DIM)
    flat.add(base.astype(np.float32))
    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    quantised = faiss.IndexScalarQuantizer(DIM, kind, faiss.METRIC_INNER_PRODUCT)
    quantised.add(base.astype(np.float32))
    reverse = faiss.IndexFlatIP(DIM)
    reverse.add(queries.astype(np.float32))
    bounds = reverse.search(base.astype(np.float32), min(k + SLACK, len(queries)))[0][:, -1]
    ours, keys = VectorIndex(DIM), np.arange(len(base), dtype=np.int32)
    ours.put(keys, base)
    ours.bound(ours.rows(keys), np.maximum(bounds, floor).astype(np.int32))
    order = np.random.default_rng(0).permutation(len(base)).astype(np.uint64)
    multiply, products_of = products.prepare(base, BATCH), np.empty((BATCH, len(base)), np.int32)

    asked, asked32 = queries[:QUERIES], queries[:QUERIES].astype(np.float32)
    return {
        "ours": _timed(asked, lambda part: ours.search(part, k + SLACK, floor, order)),
        "flat": _timed(asked32, lambda part: flat.search(part, k + SLACK)),
        "quantised": _timed(asked32, lambda part: quantised.search(part, k + SLACK)),
        "product": _timed(asked, lambda part: multiply(part, products_of[: len(part)])),
    }


def _timed(queries: npt.NDArray[np.generic], search: Callable[[npt.NDArray[Any]], object]) -> float:
    """Microseconds of CPU a query, in batches, after one that does not count."""
    search(queries[:BATCH])
    started = time.process_time()
    for first in range(0, len(queries), BATCH):
        search(queries[first : first + BATCH])
    return 1e6 * (time.process_time() - started) / len(queries)
