"""What the groups of measurements share: catalogues, a model and directories."""

import argparse
from pathlib import Path

from benchmarks.speed import material
from benchmarks.speed.child import in_child
from benchmarks.speed.clocks import Part
from benchmarks.speed.running import store

HELD = 320  # new records: some to warm up, the others are measured


class Bench:
    """One run of the benchmark.

    Args:
        directory: an empty one.
        options: those of the command line.
    """

    def __init__(self, directory: Path, options: argparse.Namespace) -> None:
        self.directory = directory
        self.options = options
        self.model = directory / "model"
        self.events = directory / "events.jsonl"
        self.entities = in_child(material.write, self.events, options.n)
        self.training = in_child(material.train, self.model, options.k)  # seconds
        self.parts: list[Part] = []  # of the engine's last run
        self.held = directory / "held.jsonl"  # new records for the stored ones
        self.stored_films = 0  # of the left catalogue, once there is a stored state
        self._stored: Path | None = None
        self._places = 0

    def new_state(self) -> Path:
        """A path where nothing is yet."""
        self._places += 1
        return self.directory / f"state-{self._places}"

    def small(self, entities: int) -> Path:
        """The events of small catalogues, of about so many entities together."""
        path = self.directory / "small.jsonl"
        if not path.exists():
            in_child(material.write, path, entities // 2)
        return path

    def stored(self) -> Path:
        """A closed state with `--stored` films on the left. To be copied, not written to."""
        if self._stored is None:
            self._stored = self.new_state()
            events = self.directory / "stored.jsonl"
            self.stored_films = in_child(material.write_held, events, self.held, self.options.stored, HELD)
            in_child(store, events, self.model, self._stored)
        return self._stored
