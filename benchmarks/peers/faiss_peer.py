"""Exact FAISS over hashed character n-grams: retrieval alone, without a decision."""

import time
import zlib

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.peers.movies import Movie, data_directory, judged, one_by_one, read, report

DIMENSIONS = 256
LENGTHS = (2, 3, 4)
BATCH = 256
K = 20


def vectors(movies: list[Movie]) -> npt.NDArray[np.float32]:
    """(n, DIMENSIONS) signed sums of hashed n-grams, of unit length."""
    out = np.zeros((len(movies), DIMENSIONS), np.float32)
    for number, movie in enumerate(movies):
        text = f" {movie.text} "
        for length in LENGTHS:
            for at in range(len(text) - length + 1):
                code = zlib.crc32(text[at : at + length].encode())
                out[number, code % DIMENSIONS] += 1 if code & 1 << 20 else -1
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
    return out


def main() -> None:
    data = data_directory()
    faiss.omp_set_num_threads(1)
    left, right = read(data)
    queries, base = vectors(left), vectors(right)
    started = time.perf_counter()
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(base)
    pairs = []
    for first in range(0, len(queries), BATCH):
        scores, places = index.search(queries[first : first + BATCH], K)
        for number, (row, ids) in enumerate(zip(scores.tolist(), places.tolist(), strict=True), start=first):
            pairs += [(left[number].name, right[i].name, score) for score, i in zip(row, ids, strict=True)]
    batch = time.perf_counter() - started

    def answer(movie: Movie) -> str | None:
        _, found = index.search(vectors([movie]), K)
        return right[int(found[0, 0])].name

    report(
        batch_seconds=batch,
        records=len(left) + len(right),
        f1=judged(data, pairs),
        note="search alone, vectors made before; F1 of the similarity as a score",
        **one_by_one(data, answer),
    )


if __name__ == "__main__":
    main()
