"""dedupe's Gazetteer, trained on known links: a catalogue that is searched with messy records."""

import json
import random
import time

import dedupe

from benchmarks.peers.movies import Movie, data_directory, judged, links, one_by_one, read, report

MATCHES = 300  # training links; all of them take very long
DISTINCT = 600


def record(movie: Movie) -> dict[str, object]:
    return {"title": movie.title or None, "people": tuple(movie.people) or None}


def main() -> None:
    data = data_directory()
    random.seed(0)
    left, right = read(data)
    messy = {movie.name: record(movie) for movie in left}
    canonical = {movie.name: record(movie) for movie in right}
    gold = links(data, "train")
    chosen = random.sample(sorted(gold), MATCHES)
    others = random.choices(right, k=DISTINCT)
    training = {
        "match": [(messy[name], canonical[gold[name]]) for name in chosen],
        "distinct": [
            (messy[name], canonical[other.name])
            for name, other in zip(chosen * 2, others, strict=True)
            if gold[name] != other.name
        ],
    }
    started = time.perf_counter()
    variables = [
        dedupe.variables.String("title", has_missing=True),
        dedupe.variables.Set("people", has_missing=True),
    ]
    gazetteer = dedupe.Gazetteer(variables, num_cores=1)
    text = json.dumps(training, default=list)
    tagged = json.loads(text, object_hook=_tuples)
    gazetteer.prepare_training(messy, canonical, sample_size=1500)
    gazetteer.mark_pairs(tagged)
    gazetteer.train(index_predicates=False, recall=0.9)
    trained = time.perf_counter() - started
    started = time.perf_counter()
    gazetteer.index(canonical)
    found = gazetteer.search(messy, threshold=0.0, n_matches=5, generator=True)
    pairs = [(name, other, float(score)) for name, matches in found for other, score in matches]
    batch = time.perf_counter() - started

    def answer(movie: Movie) -> str | None:
        for _, matches in gazetteer.search({movie.name: record(movie)}, threshold=0.0, n_matches=1):
            return str(matches[0][0]) if matches else None
        return None

    report(
        batch_seconds=batch,
        records=len(left) + len(right),
        f1=judged(data, pairs),
        note=f"{MATCHES} links; training took {trained:.0f} s besides",
        **one_by_one(data, answer),
    )


def _tuples(document: dict[str, object]) -> dict[str, object]:
    """Sets have to be tuples, and pairs too; JSON has lists only."""
    return {
        key: tuple(value) if isinstance(value, list) and key == "people" else value
        for key, value in document.items()
    }


if __name__ == "__main__":
    main()
