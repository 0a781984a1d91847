"""Splink: Fellegi and Sunter's model in DuckDB, m from the training links, u from random pairs."""

import logging
import time
from collections import Counter

import pandas as pd
import splink.comparison_library as compare
from splink import DuckDBAPI, Linker, SettingsCreator, block_on

from benchmarks.peers.movies import Movie, data_directory, judged, links, one_by_one, read, report

logging.getLogger("splink").setLevel(logging.ERROR)
RARE = 40  # records of one source that may share a word for it to be compared by
MOST_WORDS = 4  # of a record, the rarest


class Tables:
    """Records as Splink gets them, with the rare words by which pairs are made."""

    def __init__(self, *sides: list[Movie]) -> None:
        self._counts = [Counter(word for movie in side for word in set(movie.text.split())) for side in sides]

    def row(self, movie: Movie) -> dict[str, object]:
        words = set(movie.text.split())
        most = {word: max(counts[word] for counts in self._counts) for word in words}
        rare = sorted((word for word in words if most[word] <= RARE), key=lambda word: (most[word], word))
        return {
            "unique_id": movie.name,
            "title": movie.title or None,
            "people": movie.people or None,
            "words": sorted(words),
            "block": rare[:MOST_WORDS],
        }

    def table(self, movies: list[Movie]) -> pd.DataFrame:
        return pd.DataFrame([self.row(movie) for movie in movies])


def main() -> None:
    data = data_directory()
    left, right = read(data)
    started = time.perf_counter()
    rows = Tables(left, right)
    tables = [rows.table(left), rows.table(right)]
    settings = SettingsCreator(
        link_type="link_only",
        comparisons=[
            compare.JaroWinklerAtThresholds("title", [0.97, 0.92, 0.85]).configure(
                term_frequency_adjustments=True
            ),
            compare.ArrayIntersectAtSizes("people", [2, 1]),
            compare.ArrayIntersectAtSizes("words", [6, 4, 3, 2, 1]),
        ],
        blocking_rules_to_generate_predictions=[
            block_on("title"),
            block_on("block", arrays_to_explode=["block"]),
        ],
        retain_matching_columns=False,
    )
    linker = Linker(tables, settings, DuckDBAPI(), input_table_aliases=["dbpedia", "imdb"])
    prepared = time.perf_counter() - started
    started = time.perf_counter()
    linker.training.estimate_u_using_random_sampling(max_pairs=1e6, seed=1)
    gold = links(data, "train")
    labels = pd.DataFrame(
        {
            "source_dataset_l": "dbpedia",
            "unique_id_l": list(gold),
            "source_dataset_r": "imdb",
            "unique_id_r": list(gold.values()),
        }
    )
    linker.training.estimate_m_from_pairwise_labels(linker.table_management.register_table(labels, "labels"))
    training = time.perf_counter() - started
    started = time.perf_counter()
    found = linker.inference.predict(threshold_match_weight=-20).as_pandas_dataframe()
    batch = prepared + time.perf_counter() - started
    turned = found["source_dataset_l"] != "dbpedia"
    lefts = found["unique_id_l"].where(~turned, found["unique_id_r"])
    rights = found["unique_id_r"].where(~turned, found["unique_id_l"])
    pairs = list(zip(lefts, rights, found["match_weight"], strict=True))

    model = linker.misc.save_model_to_json()
    model["link_type"] = "dedupe_only"
    known = Linker(tables[1], model, DuckDBAPI())

    def answer(movie: Movie) -> str | None:
        matches = known.inference.find_matches_to_new_records(
            pd.DataFrame([rows.row(movie)]),
            blocking_rules=["l.title = r.title", "list_has_any(l.block, r.block)"],
            match_weight_threshold=-20,
        ).as_pandas_dataframe()
        if matches.empty:
            return None
        best = matches.loc[matches["match_weight"].idxmax()]
        return str(best["unique_id_l"] if best["unique_id_r"] == movie.name else best["unique_id_r"])

    report(
        batch_seconds=batch,
        records=len(left) + len(right),
        f1=judged(data, pairs),
        note=f"{len(pairs):,} pairs; training took {training:.0f} s besides",
        **one_by_one(data, answer),
    )


if __name__ == "__main__":
    main()
