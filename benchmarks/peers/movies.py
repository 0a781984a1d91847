"""The movies for every peer, and how its pairs are judged. Standard library only: it runs everywhere."""

import csv
import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

SINGLE = 50  # records that are matched one at a time
Pair = tuple[str, str, float]  # left and right `source:id`, and a score


class Movie(NamedTuple):
    """A film as a user would prepare it: letters and figures in lower case, people as 'first last'."""

    name: str  # source:id
    title: str
    year: str
    people: list[str]

    @property
    def text(self) -> str:
        """Everything in one string."""
        return " ".join([self.title, self.year, *self.people]).strip()


def read(data: Path) -> tuple[list[Movie], list[Movie]]:
    """DBpedia's films on the left, IMDb's on the right."""
    left = [
        Movie(
            f"dbpedia:{row['id']}",
            plain(row["title"]),
            "",
            [
                plain(name)
                for key in ("starring", "writer", "editor")
                for name in row[key].split(",")
                if name.strip()
            ],
        )
        for row in _rows(data / "movies" / "dbpedia.csv")
    ]
    right = [
        Movie(
            f"imdb:{row['id']}",
            plain(re.sub(r"\(.*?\)", " ", row["title"])),
            row["year"],
            [_turned(row[key]) for key in ("actor_name", "director_name") if row[key].strip()],
        )
        for row in _rows(data / "movies" / "imdb.csv")
    ]
    return left, right


def links(data: Path, part: str) -> dict[str, str]:
    """The known links of `train`, `valid` or `test`."""
    return {row["left"]: row["right"] for row in _rows(data / "movies" / f"links_{part}.csv")}


def held_out(data: Path) -> list[str]:
    """The left records that are matched one at a time: the first test links' ones."""
    return sorted(links(data, "test"))[:SINGLE]


def plain(text: str) -> str:
    """Without accents, signs and case."""
    letters = unicodedata.normalize("NFKD", text.lower())
    letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join(re.sub(r"[^a-z0-9]+", " ", letters).split())


def _turned(name: str) -> str:
    """'Last, First (I)' as 'first last'."""
    last, _, first = re.sub(r"\(.*?\)", " ", name).partition(",")
    return plain(f"{first} {last}")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def one_to_one(pairs: Iterable[Pair]) -> dict[str, tuple[str, float]]:
    """Greedily by score, each record once: the partner and the score of each left record."""
    matched: dict[str, tuple[str, float]] = {}
    taken: set[str] = set()
    for left, right, score in sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1])):
        if left not in matched and right not in taken:
            matched[left] = right, score
            taken.add(right)
    return matched


def f1(matched: dict[str, tuple[str, float]], gold: dict[str, str], threshold: float) -> float:
    """For the left records that have a link; a missing answer is lost recall."""
    answers = {left: matched[left][0] for left in gold if left in matched and matched[left][1] >= threshold}
    correct = sum(gold[left] == right for left, right in answers.items())
    return 2 * correct / max(len(answers) + len(gold), 1)


def judged(data: Path, pairs: Iterable[Pair]) -> float:
    """F1 on the test links at the threshold that is best on the valid ones."""
    matched, valid = one_to_one(pairs), links(data, "valid")
    scores = sorted({matched[left][1] for left in valid if left in matched})
    steps = scores[:: max(1, len(scores) // 200)] or [0.0]
    threshold = max(steps, key=lambda step: f1(matched, valid, step))
    return f1(matched, links(data, "test"), threshold)


def one_by_one(
    data: Path, answer: Callable[[Movie], str | None], *, unanswered: bool = True
) -> dict[str, object]:
    """Milliseconds of each single record but the first; the share whose best match is the linked one.

    Args:
        unanswered: whether records count that find nobody, where that cannot be told from waiting.
    """
    left, gold = {movie.name: movie for movie in read(data)[0]}, links(data, "test")
    names = held_out(data)
    answer(left[names[0]])
    times, hits = [], 0
    for name in names[1:]:
        started = time.perf_counter()
        found = answer(left[name])
        if found is not None or unanswered:
            times.append((time.perf_counter() - started) * 1e3)
        hits += found == gold[name]
    return {"single_ms": times, "single_hits": hits / (len(names) - 1)}


def report(**figures: object) -> None:
    """What a peer's process has to say: one JSON object, the last line on stdout."""
    print(json.dumps(figures), flush=True)


def data_directory() -> Path:
    """The argument of every peer's process."""
    return Path(sys.argv[1])
