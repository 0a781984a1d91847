"""Baseline: Splink, probabilistic record linkage (Fellegi and Sunter) on DuckDB.

It is given what a user would map by hand: the attributes that both sources have (or, where they share none,
all of an entity's texts as one), its words, and the words of its neighbours' names. Pairs that share all of
the former, or a rare word of their own or around them, are compared; m is estimated from the training
links, u from random pairs.
"""

import logging
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import splink.comparison_library as compare
from splink import DuckDBAPI, Linker, SettingsCreator, block_on

from benchmarks.quality.datasets import DataSet
from benchmarks.quality.task import NotApplicable, Scored, Task, stopwatch
from index.entity import node_of
from model.encoding.tokens import normalise
from model.evaluation import ScoredPairs
from stream.events import Upsert
from stream.learning.known_links import LinkPair

RARE = 60  # entities of one source that may share a word for it to be compared by
MOST_BLOCKING_WORDS = 6  # of an entity, the rarest
SHORT = 64  # letters of texts that are compared by likeness
RANDOM_PAIRS = 1e6  # for u


def splink(task: Task, seed: int) -> Scored:
    """Estimates and predicts."""
    if task.dataset.pairs:
        raise NotApplicable("there are no catalogues to link")
    spent = stopwatch()
    tables, shared = _tables(task)
    comparisons = [
        *(_comparison(name, tables) for name in shared or ["name"]),
        compare.ArrayIntersectAtSizes("words", [6, 4, 3, 2, 1]),
        compare.ArrayIntersectAtSizes("around", [6, 4, 2, 1]),
    ]
    settings = SettingsCreator(
        link_type="link_only",
        probability_two_random_records_match=1 / max(map(len, tables.values())),
        comparisons=comparisons,
        blocking_rules_to_generate_predictions=[
            block_on("name"),
            block_on("block", arrays_to_explode=["block"]),
        ],
        retain_matching_columns=False,
        retain_intermediate_calculation_columns=False,
    )
    linker = Linker(
        list(tables.values()),
        settings,
        DuckDBAPI(),
        input_table_aliases=[f"from_{source}" for source in tables],
    )
    logging.getLogger("splink").setLevel(logging.ERROR)  # it has set that itself
    linker.training.estimate_u_using_random_sampling(max_pairs=RANDOM_PAIRS, seed=seed + 1)
    labels = linker.table_management.register_table(_labels(task.dataset.links["train"]), "labels")
    linker.training.estimate_m_from_pairwise_labels(labels)
    predicted = linker.inference.predict(threshold_match_weight=-20).as_pandas_dataframe()
    took = spent()
    left_source = task.dataset.links["test"][0][0].split(":", 1)[0]
    turned = (predicted["source_dataset_l"] != f"from_{left_source}").to_numpy()
    ids = [predicted[f"unique_id_{side}"].to_numpy() for side in "lr"]
    pairs = pd.DataFrame(
        {
            "left": np.where(turned, ids[1], ids[0]),
            "right": np.where(turned, ids[0], ids[1]),
            "score": predicted["match_weight"].to_numpy(),
        }
    )
    valid, test = (_scored(pairs, task.dataset, part) for part in ("valid", "test"))
    return Scored(took, valid, test)


def _comparison(name: str, tables: dict[str, pd.DataFrame]) -> Any:
    """By likeness where texts are short, by equality where they are long or no texts."""
    values = [value for table in tables.values() for value in table[name].dropna()]
    short = np.median([len(value) for value in values] or [0]) <= SHORT
    if short and not all(value.isdecimal() for value in values):
        comparison = compare.JaroWinklerAtThresholds(name, [0.97, 0.92, 0.85, 0.75])
    else:
        comparison = compare.ExactMatch(name)
    return comparison.configure(term_frequency_adjustments=True)


def _tables(task: Task) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """A table for each source, and the attributes that both have."""
    entities = {f"{e.source}:{e.id}": e for e in task.workspace.upserts()}
    ends = {link[0] for links in task.dataset.links.values() for link in links}
    kinds = {entities[name].type for name in ends if name in entities}
    linked = {name: entity for name, entity in entities.items() if entity.type in kinds}
    texts = {name: " ".join(_texts(entity).values()) for name, entity in entities.items()}
    around: dict[str, list[str]] = {name: [] for name in linked}
    for name, entity in entities.items():
        for target in {t for targets in entity.relations.values() for t in targets}:
            other = f"{entity.source}:{target}"
            if name in linked and other in texts:
                around[name].append(texts[other])
            if other in linked:
                around[other].append(texts[name])
    words = {name: sorted({*texts[name].split()}) for name in linked}
    beside = {name: sorted({*" ".join(around[name]).split()}) for name in linked}
    counts = {source: Counter[str]() for source in {e.source for e in linked.values()}}
    for name, entity in linked.items():
        counts[entity.source].update({*words[name], *beside[name]})
    common = {word for count in counts.values() for word, n in count.items() if n > RARE}
    rows: dict[str, list[dict[str, object]]] = {source: [] for source in sorted(counts)}
    names = [{a for e in linked.values() if e.source == source for a in e.attributes} for source in rows]
    shared = sorted(set.intersection(*names))
    for name, entity in linked.items():
        count = counts[entity.source]
        rare = sorted({*words[name], *beside[name]} - common, key=lambda word: (count[word], word))
        own = _texts(entity)
        cells = {a: own.get(a) or str(entity.attributes.get(a, "")) or None for a in shared}
        rows[entity.source].append(
            {
                "unique_id": name,
                "name": " ".join(own[a] for a in shared or own if a in own) or None,
                "words": words[name],
                "around": beside[name],
                "block": rare[:MOST_BLOCKING_WORDS],
                **cells,
            }
        )
    return {source: pd.DataFrame(found) for source, found in rows.items()}, shared


def _texts(entity: Upsert) -> dict[str, str]:
    """Normalised, by attribute."""
    return {
        name: " ".join(normalise(value).decode(errors="ignore").translate({2: " ", 3: " "}).split())
        for name, value in sorted(entity.attributes.items())
        if isinstance(value, str)
    }


def _labels(links: list[LinkPair]) -> pd.DataFrame:
    ends = zip(*links, strict=True)
    left, right = ([*end] for end in ends)
    sources = [[f"from_{name.split(':', 1)[0]}" for name in side] for side in (left, right)]
    return pd.DataFrame(
        {
            "source_dataset_l": sources[0],
            "unique_id_l": left,
            "source_dataset_r": sources[1],
            "unique_id_r": right,
            "clerical_match_score": 1.0,
        }
    )


def _scored(pairs: pd.DataFrame, dataset: DataSet, part: str) -> ScoredPairs:
    links = dataset.links[part]
    gold = {link for link in links if link[1] not in dataset.absent}
    some = pairs[pairs["left"].isin({left for left, _ in links})]
    left, right = (
        np.array([node_of(name) >> 1 for name in some[side]], np.int64) for side in ("left", "right")
    )
    label = np.array([pair in gold for pair in zip(some["left"], some["right"], strict=True)], bool)
    weight = some["score"].to_numpy(np.float64)
    return ScoredPairs(1 / (1 + np.exp2(-np.clip(weight, -60, 60))), label, left, right, len(gold))
