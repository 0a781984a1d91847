"""The state directory: generations of embeddings, one of which is in force.

    CURRENT           the name of the generation in force; replacing this file is the switch
    generation-N/     an aligner's state, and in recipe.json what it is made with
    models/ID/        the models of these generations, and one that is to come
    promotion.json    the model that was promoted, instead of the one in the settings
    progress.json     how far the next generation is

Invariant: all vectors, lists, scores, matchings and records in a generation were made by one model, with one
threshold and one rule of one-to-one. They leave it only when it is CURRENT, and a generation becomes CURRENT
only when it is whole; so two never mix. Whatever is neither CURRENT nor the next generation is deleted.
"""

import fcntl
import os
import re
import shutil
from pathlib import Path
from typing import IO, Final

import msgspec

from index import tables
from index.entity import node_key
from index.errors import StateError
from index.graph import GraphStore
from index.store import Store, lock
from model.checkpoint import ARRAYS, VALUES, load_model
from model.errors import ModelError
from stream.atomic import read, refusals, write
from stream.changes import Decoder
from stream.config import Settings
from stream.console import log
from stream.engine.aligner import Aligner
from stream.engine.interface import Search
from stream.engine.parts import usable_model
from stream.engine.recipe import Recipe
from stream.state.wishes import BuildProgress, Promotion, Wish

DERIVED: Final = (
    tables.QUEUE,
    tables.WAITING,
    tables.HUBS,
    tables.SCORED,
    tables.MATCHES,
    tables.RECORDS,
    tables.OUTBOX,
    tables.ASIDE,
)
COMMIT_KEYS: Final = 10_000


class Generations:
    """A worker's state directory. `open` makes this process the only one with it.

    Args:
        settings: those of the worker; the model in them counts unless another was promoted.
    """

    def __init__(self, settings: Settings, decode: Decoder) -> None:
        self.directory = settings.state.dir
        self._settings = settings
        self._decode = decode
        self._lock: IO[str] | None = None
        self._configured = ""  # the id of the settings' model
        self._thresholds: dict[str, float] = {}
        self._outgrown = False  # once too large for exact search
        self.current: Recipe

    def open(self) -> Aligner:
        """The generation in force; the first one is made with what the settings say.

        Raises:
            StateError: in use by another process, not usable, or of another version.
            ModelError: no usable model.
        """
        with refusals(self.directory):
            self._lock = lock(self.directory)
            warn_of_readers(self.directory)
            if (self.directory / "rocksdb").exists():
                raise StateError(
                    f"state directory {self.directory} was written by an earlier version; "
                    "delete it to rebuild it from the topics"
                )
            self._configured = keep_model(self.directory, self._settings.model.dir)
            name = read_current(self.directory)
            if name is None:
                name = "generation-1"
                recipe = self.wanted().recipe
                shutil.rmtree(self.directory / name, ignore_errors=True)
                (self.directory / name).mkdir()
                write(self.directory / name / "recipe.json", recipe)
                write(self.directory / "CURRENT", name)
            self.current = self.recipe(name)
            self._outgrown = self.current.search == "cells"
            return self.aligner(name)

    def wanted(self, searched: int = 0) -> Wish:
        """What should be in force: the promoted model or that of the settings, with the settings' rules.

        Args:
            searched: entities of the largest type. Where the search adapts to it, there is no way back from
                cells: a catalogue that shrinks a little would be built anew again and again.
        """
        model, asked, most = self._configured, 0.0, self._settings.promotion.max_withdrawn
        promotion = read(self.directory / "promotion.json", Promotion)
        if promotion is not None and promotion.configured is None:
            promotion = msgspec.structs.replace(promotion, configured=self._configured)
            write(self.directory / "promotion.json", promotion)
        if promotion is not None and promotion.configured == self._configured:
            model, asked = promotion.model, promotion.asked
            most = most if promotion.max_withdrawn is None else promotion.max_withdrawn
        elif promotion is not None:  # the settings were changed since, so they are the newer wish
            (self.directory / "promotion.json").unlink()
        threshold = self._settings.model.threshold
        if threshold is None:
            if model not in self._thresholds:
                self._thresholds[model] = load_model(self.directory / "models" / model)[1].threshold
            threshold = self._thresholds[model]
        align = self._settings.align
        self._outgrown |= searched >= align.cells_from
        adapted: Search = "cells" if self._outgrown else "exact"
        search = adapted if align.search == "auto" else align.search
        evidence = self._settings.records.evidence
        return Wish(Recipe(model, threshold, align.one_to_one, search, evidence), asked, most)

    def recipe(self, name: str) -> Recipe:
        """What a generation is made with."""
        recipe = read(self.directory / name / "recipe.json", Recipe)
        if recipe is None:
            raise StateError(
                f"state directory {self.directory}: {name} has no recipe.json; "
                "delete the directory to rebuild it from the topics"
            )
        return recipe

    def look(self) -> Aligner:
        """The generation in force, to be read only: a worker may have the directory and go on.

        Raises:
            StateError: there is none, or it cannot be used.
            ModelError: its model cannot be used.
        """
        while True:
            name = read_current(self.directory)
            if name is None:
                raise StateError(
                    f"state directory {self.directory} has no generation in force (CURRENT); name one that a "
                    "worker has run with, or that `sameas align` left"
                )
            try:
                return self.aligner(name, read_only=True)
            except (StateError, ModelError):
                if read_current(self.directory) == name:
                    raise  # else another one is in force by now, and this one was deleted

    def aligner(self, name: str, *, read_only: bool = False) -> Aligner:
        """Opens a generation."""
        recipe = self.recipe(name)
        return Aligner(
            self.directory / name,
            self.directory / "models" / recipe.model,
            self._decode,
            one_to_one=recipe.one_to_one,
            threshold=recipe.threshold,
            search=recipe.search,
            evidence=recipe.evidence,
            min_change=self._settings.records.min_change,
            read_only=read_only,
        )

    def unfinished(self, recipe: Recipe) -> str | None:
        """The generation that was begun with this recipe; others that are not in force are deleted."""
        current, found = read_current(self.directory), None
        for path in self.directory.glob("generation-*"):
            if path.name == current:
                continue
            whole = path.suffix != ".partial" and read(path / "recipe.json", Recipe) == recipe
            if whole and found is None:
                found = path.name
            else:
                with refusals(path):
                    shutil.rmtree(path)
        return found

    def begin(self, recipe: Recipe, copied: Path) -> str:
        """Makes the next generation of a copy of the store in force: its graph, its links, and nothing else.

        Args:
            copied: the copy, as `partial` named it; becomes the generation.
        """
        with refusals(copied), Store(copied) as store:
            for table in DERIVED:
                store.clear(table)
            store.put(tables.META + b"settings", recipe.settings.encode())
            for number, (node, entity) in enumerate(GraphStore(store).scan(), start=1):
                if not entity.deleted:
                    store.put(tables.WAITING + node_key(node), b"")
                if number % COMMIT_KEYS == 0:
                    store.commit()
            store.commit()
        write(copied / "recipe.json", recipe)
        with refusals(copied):
            copied.rename(copied.with_suffix(""))
        return copied.stem

    def partial(self) -> Path:
        """Where the copy goes of which the next generation is made."""
        current = read_current(self.directory) or "generation-0"
        path = self.directory / f"generation-{int(current.partition('-')[2]) + 1}.partial"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def switch(self, name: str) -> None:
        """Puts a generation in force: one atomic write."""
        write(self.directory / "CURRENT", name)
        self.current = self.recipe(name)

    def clean(self) -> None:
        """Deletes what only former generations needed."""
        self.unfinished(self.current)
        promotion = read(self.directory / "promotion.json", Promotion)
        needed = {self.current.model, self._configured, promotion.model if promotion else ""}
        for path in (self.directory / "models").iterdir():
            if path.name not in needed and not path.suffix:  # a suffix: a copy is under way
                shutil.rmtree(path, ignore_errors=True)

    def report(self, progress: BuildProgress) -> None:
        """For `sameas model status`, and for the next start."""
        write(self.directory / "progress.json", progress)

    def reported(self, wish: Wish) -> BuildProgress:
        """How far this wish had come when that was reported last."""
        try:
            progress = read(self.directory / "progress.json", BuildProgress)
        except StateError:  # the next report replaces it
            progress = None
        return progress if progress is not None and progress.wish == wish else BuildProgress(wish, "new")

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()


def keep_model(directory: Path, checkpoint: Path) -> str:
    """Copies a model into a state directory, where later changes do not reach it; its id.

    Raises:
        ModelError: no usable model.
        StateError: it cannot be copied.
    """
    model_id, _ = usable_model(checkpoint)
    kept = directory / "models" / model_id
    if not kept.exists():
        with refusals(directory):
            partial = kept.with_suffix(f".{os.getpid()}")
            partial.mkdir(parents=True)
            for name in (ARRAYS, VALUES):
                shutil.copyfile(checkpoint / name, partial / name)
            partial.rename(kept)
    if load_model(kept)[0] != model_id:
        raise ModelError(f"{kept} is not the model {model_id}; delete it")
    return model_id


def warn_of_readers(directory: Path) -> None:
    """Says so where other users of the machine can read a directory: it was made by hand, or earlier."""
    mode = directory.stat().st_mode & 0o777
    if mode & 0o077:
        log.warning(
            f"{directory} can be read by other users of this machine (mode {mode:o}), with the values of "
            f"entities that are in it: chmod -R go= {directory}"
        )


def read_current(directory: Path) -> str | None:
    """The name of the generation in force, None in a new state directory, or where it was deleted."""
    name = read(directory / "CURRENT", str)
    if name is not None and not re.fullmatch(r"generation-\d+", name):
        raise StateError(
            f"state directory {directory}: CURRENT names no generation; "
            "delete the directory to rebuild it from the topics"
        )
    return name if name is not None and (directory / name).is_dir() else None


def is_held(directory: Path) -> bool:
    """Whether a worker has this state directory now."""
    try:
        with (directory / "LOCK").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
