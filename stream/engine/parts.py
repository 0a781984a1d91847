"""The parts of an aligner, made of what a store holds."""

from index.candidates import CandidateOptions
from index.graph import GraphStore
from index.store import Store
from model.checkpoint import Model
from model.errors import ModelError
from stream.changes import Decoder
from stream.engine import snapshot
from stream.engine.backlog import Backlog
from stream.engine.deciding import Deciding
from stream.engine.embedding import Embedding
from stream.engine.evidence import EvidenceBuilder
from stream.engine.inbox import Inbox
from stream.engine.links import LinkStore
from stream.engine.recipe import Recipe
from stream.engine.records import Records
from stream.engine.retrieval import Retrieval
from stream.engine.scoring import Scoring
from stream.engine.views import NAMES

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

    def __init__(self, store: Store, model: Model, recipe: Recipe, decode: Decoder) -> None:
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
        self.evidence = EvidenceBuilder(self.graph, self.embedding, self.scoring)
        self.records = Records(store, self.graph, self.links, self.deciding, self.evidence, recipe.model)
        self._snapshot, self._settings = store.path / SNAPSHOT, recipe.settings

        if self.backlog.is_doubtful:
            self.backlog.doubt(node for node, entity in self.graph.scan() if not entity.deleted)
        saved = snapshot.load(self._snapshot, self._settings, options, self.retrieval.indexes)
        rows, lists = (None, None) if saved is None else saved
        self.unsaved = self.embedding.fill(self.backlog.entities, rows)
        self.retrieval.fill(lists)

    def save_snapshot(self) -> None:
        """A start after a crash then encodes and searches only for what has changed since."""
        snapshot.save(self._snapshot, self._settings, self.embedding.saved(), self.retrieval.lists)
        self.unsaved = 0


def candidate_options(model: Model) -> CandidateOptions:
    """How candidates were made when the model was trained.

    Raises:
        ModelError: trained with other views than this version has.
    """
    if model.options.get("views") != list(NAMES):
        raise ModelError(
            f"the model was trained with views {model.options.get('views')}, this version has {list(NAMES)}; "
            "train it again with `sameas train`"
        )
    return CandidateOptions(int(model.options["k"]), tuple(model.options["floors"]))
