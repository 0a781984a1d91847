"""Pathway's incremental fuzzy join: loaded as a stream, then one record at a time."""

import os
import threading
import time

import pathway as pw
from pathway.stdlib.ml.smart_table_ops import fuzzy_match_tables

from benchmarks.peers.movies import (
    Movie,
    data_directory,
    held_out,
    judged,
    one_by_one,
    read,
    report,
)

QUIET_SECONDS = 3.0  # without any change, everything is taken in
LIMIT_SECONDS = 2.0  # for one record; some find nobody
COMMIT_MS = 20  # both inputs' time has to move on for an outcome to appear


class Film(pw.Schema):  # type: ignore[misc]
    name: str = pw.column_definition(primary_key=True)
    text: str


class Source(pw.io.python.ConnectorSubject):  # type: ignore[misc]
    """Rows first, then those that are pushed."""

    def __init__(self, movies: list[Movie]) -> None:
        super().__init__()
        self._movies = movies
        self.more = threading.Semaphore(0)
        self.queue: list[Movie] = []
        self.closing = False

    def run(self) -> None:
        for movie in self._movies:
            self.next(name=movie.name, text=movie.text)
        self.commit()
        while True:
            self.more.acquire()
            if self.closing:
                return
            movie = self.queue.pop(0)
            self.next(name=movie.name, text=movie.text)
            self.commit()


class Matches:
    """The join's output as it is now."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], float] = {}
        self.changed = time.perf_counter()
        self._news = threading.Condition()

    def take(self, key: object, row: dict[str, object], time_: int, is_addition: bool) -> None:
        pair = str(row["left"]), str(row["right"])
        with self._news:
            if is_addition:
                self.now[pair] = float(row["weight"])  # type: ignore[arg-type]
            else:
                self.now.pop(pair, None)
            self.changed = time.perf_counter()
            self._news.notify_all()

    def wait_for_left(self, name: str) -> str | None:
        """The partner of a left record as soon as it has one."""
        deadline = time.perf_counter() + LIMIT_SECONDS
        with self._news:
            while time.perf_counter() < deadline:
                for left, right in self.now:
                    if left == name:
                        return right
                self._news.wait(0.05)
        return None

    def settle(self) -> float:
        """When the last change came, after a while without any."""
        while time.perf_counter() - self.changed < QUIET_SECONDS or not self.now:
            time.sleep(0.05)
        return self.changed


def main() -> None:
    data = data_directory()
    left, right = read(data)
    new = {*held_out(data)}
    lefts = Source([movie for movie in left if movie.name not in new])
    rights = Source(right)
    tables = [
        pw.io.python.read(source, schema=Film, autocommit_duration_ms=COMMIT_MS) for source in (lefts, rights)
    ]
    texts = [table.select(text=table.text) for table in tables]
    joined = fuzzy_match_tables(texts[0], texts[1])
    named = joined.select(
        left=tables[0].ix(joined.left).name, right=tables[1].ix(joined.right).name, weight=joined.weight
    )
    matches = Matches()
    pw.io.subscribe(named, lambda key, row, time, is_addition: matches.take(key, row, time, is_addition))
    started = time.perf_counter()
    matches.changed = started
    thread = threading.Thread(target=lambda: pw.run(monitoring_level=pw.MonitoringLevel.NONE), daemon=True)
    thread.start()
    batch = matches.settle() - started

    def answer(movie: Movie) -> str | None:
        lefts.queue.append(movie)
        lefts.more.release()
        return matches.wait_for_left(movie.name)

    singles = one_by_one(data, answer, unanswered=False)
    pairs = [(a, b, weight) for (a, b), weight in matches.now.items()]
    report(
        batch_seconds=batch,
        records=len(left) - len(new) + len(right),
        f1=judged(data, pairs),
        note=f"as a stream; single records that find nobody in {LIMIT_SECONDS:.0f} s do not count",
        **singles,
    )
    os._exit(0)


if __name__ == "__main__":
    main()
