"""dedupe's Gazetteer, trained on known links: a catalogue that is searched with messy records."""

import io
import random
import time

import dedupe

from benchmarks.peers.movies import Movie, data_directory, judged, links, one_by_one, read, report

MATCHES = 100  # training links; with more, learning takes very long
DISTINCT = 200
SEARCH_SECONDS = 60.0  # of the batch: everything would take very long
CHUNK = 50  # records
SAMPLE = 400  # records from which the learner draws pairs


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
    file = io.StringIO()
    dedupe.serializer.write_training(training, file)
    file.seek(0)
    # what the learner looks at: with everything, making its blocks alone takes nine minutes
    some = {name: messy[name] for name in [*chosen, *random.sample(sorted(messy), min(SAMPLE, len(messy)))]}
    known = {gold[name]: canonical[gold[name]] for name in chosen}
    known |= {other.name: canonical[other.name] for other in others}
    gazetteer.prepare_training(some, known, training_file=file, sample_size=SAMPLE)
    gazetteer.train(index_predicates=False, recall=0.9)
    trained = time.perf_counter() - started
    started = time.perf_counter()
    gazetteer.index(canonical)
    indexed = time.perf_counter() - started

    def answer(movie: Movie) -> str | None:
        for _, matches in gazetteer.search({movie.name: record(movie)}, threshold=0.0, n_matches=1):
            return str(matches[0][0]) if len(matches) else None
        return None

    singles = one_by_one(data, answer)
    pairs, names, searched = [], sorted(messy), 0
    started = time.perf_counter()
    while searched < len(names) and time.perf_counter() - started < SEARCH_SECONDS:
        part = {name: messy[name] for name in names[searched : searched + CHUNK]}
        for name, matches in gazetteer.search(part, threshold=0.0, n_matches=5):
            pairs += [(name, other, float(score)) for other, score in matches]
        searched += len(part)
    share = searched / len(names)
    report(
        batch_seconds=time.perf_counter() - started + indexed * share,
        records=round((len(left) + len(right)) * share),
        f1=judged(data, pairs) if share == 1 else None,
        note=f"{share:.0%} searched; training with {MATCHES} links took {trained:.0f} s besides",
        **singles,
    )


if __name__ == "__main__":
    main()
