"""The parts of an aligner, made of what a store holds."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from index.candidates import CONTEXT, CandidateOptions
from index.graph import GraphStore
from index.store import Store
from model.checkpoint import Model, load_model
from model.encoding.words import FEATURES
from model.errors import ModelError
from stream.changes import Decoder
from stream.console import waiting
from stream.engine import snapshot
from stream.engine.backlog import Backlog
from stream.engine.dangling import DanglingSearch
from stream.engine.deciding import Deciding
from stream.engine.drafts import Drafts
from stream.engine.embedding import Embedding
from stream.engine.evidence import EvidenceBuilder
from stream.engine.inbox import Inbox
from stream.engine.interface import MAX_CANDIDATES
from stream.engine.links import LinkStore
from stream.engine.recipe import Recipe
from stream.engine.records import Records
from stream.engine.retrieval import Retrieval
from stream.engine.scoring import Scoring
from stream.engine.triggers import Triggers
from stream.engine.views import NAMES, OFF

SNAPSHOT = "snapshot"  # directory in the state


class Parts:
    """Everything of an aligner that is in memory. One thread owns it.

    After a rollback parts are made anew: what they know in memory may be ahead of the store.

    Attributes:
        unsaved: entities that were encoded or evaluated since the snapshot on disk was written.

    Raises:
        ModelError: trained with other views than this version has.
        StoreError: the store cannot be read.
    """

    def __init__(
        self, store: Store, model: Model, recipe: Recipe, decode: Decoder, min_change: float = 0.0
    ) -> None:
        options = candidate_options(model)
        self.encoder = model.encoder
        self.graph = GraphStore(store)
        self.links = LinkStore(store)
        self.inbox = Inbox(store, self.graph, self.links, decode)
        self.backlog = Backlog(store)
        self.embedding = Embedding(self.graph, model.encoder, options.floors, cells=recipe.search == "cells")
        self.retrieval = Retrieval(self.embedding, options)
        self.scoring = Scoring(self.embedding, self.retrieval, model.encoder, model.scorer)
        self.deciding = Deciding(store, recipe.threshold, one_to_one=recipe.one_to_one)
        self.evidence = EvidenceBuilder(self.graph, self.embedding, self.scoring, model.encoder)
        self.dangling = DanglingSearch(store, self.graph)
        self.triggers = Triggers(self.graph, self.retrieval, self.inbox.origin)
        self.drafts = Drafts(
            self.graph, self.links, self.evidence, recipe.model, model.types, recipe.evidence
        )
        self.records = Records(store, self.deciding, self.drafts, self.triggers, min_change)
        self._snapshot, self._settings = store.path / SNAPSHOT, recipe.settings

        if self.backlog.is_doubtful:
            self.backlog.doubt(node for node, entity in self.graph.scan() if not entity.deleted)
        with waiting("loading the snapshot of rows and candidate lists"):
            saved = snapshot.load(self._snapshot, self._settings, options, self.retrieval.indexes)
        rows, lists = (None, None) if saved is None else saved
        with waiting("reading the entities, and encoding those that the snapshot does not have"):
            self.unsaved = self.embedding.fill(self.backlog.entities, rows, self.backlog.aside)
        with waiting(f"building the candidate lists of {len(self.embedding.table):,} entities"):
            self.retrieval.fill(lists)

    def exist(self, nodes: Iterable[int]) -> list[bool]:
        """Whether there are such entities now that are not set aside."""
        nodes = list(nodes)
        found = zip(nodes, self.graph.exist(nodes), strict=True)
        return [exists and node not in self.backlog.aside for node, exists in found]

    def save_snapshot(self) -> None:
        """A start after a crash then encodes and searches only for what has changed since."""
        snapshot.save(self._snapshot, self._settings, self.embedding.saved(), self.retrieval.lists)
        self.unsaved = 0


def usable_model(directory: Path) -> tuple[str, Model]:
    """The id of a model that this version can align with, and the model.

    Raises:
        ModelError: there is none in the directory.
    """
    model_id, model = load_model(directory)
    try:
        candidate_options(model)
    except ModelError as error:
        raise ModelError(f"{directory}: {error}") from error
    return model_id, model


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    """The options of a model."""

    views: tuple[str, ...]
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_CANDIDATES)]
    floors: tuple[Annotated[int, msgspec.Meta(ge=0, le=OFF)], ...]


def candidate_options(model: Model) -> CandidateOptions:
    """How candidates were made when the model was trained.

    Raises:
        ModelError: not in a way that this version has.
    """
    try:
        options = msgspec.convert(model.options, _Options)
        if options.views != NAMES:
            told = f"{', '.join(options.views)}; this version has {', '.join(NAMES)}"
            raise ValueError(f"options.views: {told}")
        if len(options.floors) != len(NAMES):
            raise ValueError(f"options.floors: {len(options.floors)} for {len(NAMES)} views")
        context, given = model.network.options.context, CONTEXT * len(NAMES) + FEATURES
        if context != given:
            raise ValueError(f"network.context: {context} features, where retrieval gives {given}")
    except ValueError as error:
        reason = re.sub(r"(.*) - at `\$\.(.*)`", r"options.\2: \1", str(error))
        raise ModelError(f"not a usable model: {reason[:400]}; train it again with `sameas train`") from error
    return CandidateOptions(options.k, options.floors)
