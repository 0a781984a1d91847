"""What the groups of measurements share: catalogues, a model and directories."""

import argparse
from pathlib import Path

from benchmarks.speed import material
from benchmarks.speed.child import in_child
from benchmarks.speed.clocks import Part


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
        self._places = 0

    def new_state(self) -> Path:
        """A path where nothing is yet."""
        self._places += 1
        return self.directory / f"state-{self._places}"
