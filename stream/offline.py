"""Training, evaluation and alignment of whole catalogues without a broker: the worker's code on files."""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import xxhash

from index.candidates import CandidateOptions
from model.checkpoint import Model, load_model, save_model
from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.evaluation import Quality, ScoredPairs, evaluate
from model.scoring.network import NetworkOptions
from model.training import Progress, Trained, TrainingOptions, score, train
from stream.engine.aligner import Aligner
from stream.engine.batches import batched
from stream.engine.interface import Batch, Search
from stream.engine.parts import candidate_options
from stream.engine.views import VIEWS
from stream.errors import ConfigError, InvalidInput
from stream.events import (
    AlignmentRecord,
    EntityEvent,
    Message,
    split_curie,
)
from stream.workspace import BATCH, WORTH_A_SEARCH, LinkPair, Workspace, as_messages, decode_canonical

K: Final = 10  # nearest neighbours in each view that are candidates
DEFAULT_TRAINING: Final = TrainingOptions()
VALID_SHARE: Final = 0.2  # of the links, if none are given for validation


@dataclass(frozen=True)
class TrainedModel:
    """What training made."""

    id: str
    training_links: int
    valid_links: int
    report: dict[str, float]
    quality: Quality | None  # on the test links, one-to-one among these alone


def read_links(path: Path) -> list[LinkPair]:
    """Gold links from a CSV file with the columns `left,right` of CURIEs.

    Raises:
        InvalidInput: the file cannot be read, lacks a column or holds something that is no CURIE.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput("bad-links", f"{path}: {error}") from error
    links = []
    for number, row in enumerate(rows, start=2):
        left, right = row.get("left"), row.get("right")
        if left is None or right is None:
            raise InvalidInput("bad-links", f"{path}, line {number}: the columns left,right are expected")
        if split_curie(left)[0] == split_curie(right)[0]:
            raise InvalidInput("bad-links", f"{path}, line {number}: {left} and {right} are of one source")
        links.append((left, right))
    return links


def check_writable(option: str, directory: Path) -> None:
    """Makes the directory that something is to be saved in: refused now rather than after the work.

    Args:
        option: which named it.

    Raises:
        ConfigError: it is no directory, or nothing can be written in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {directory}: cannot be written: {error.strerror}") from error


def train_model(
    events: Iterable[EntityEvent],
    links: Sequence[LinkPair],
    directory: Path,
    *,
    valid: Sequence[LinkPair] | None = None,
    test: Sequence[LinkPair] = (),
    k: int = K,
    worth: float = WORTH_A_SEARCH,
    options: TrainingOptions = DEFAULT_TRAINING,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedModel:
    """Learns a model from the graph that the events come to and from known links, and saves it.

    Args:
        links: pairs of CURIEs that are the same. Other candidates of their left entities count as different.
            Those with an entity that does not exist are left out.
        valid: links for early stopping, calibration and the threshold; a fifth of `links` if None.
        test: links to measure the model on afterwards.
        worth: the share of links that an optional view has to find and no view before it, or else it is
            not used.

    Raises:
        ModelError: too few links are among the entities.
    """
    if valid is None:
        links, valid = split_links(links)
    with Workspace(events) as workspace:
        links, valid = workspace.present(links), workspace.present(valid)
        if not links or not valid:
            raise ModelError(
                f"{len(links)} training and {len(valid)} validation links join entities that exist; some of "
                "each are needed. Check that links and entities have the same sources and ids"
            )
        encoder = Encoder.fit(workspace.upserts())
        candidates = workspace.retrieve(encoder, CandidateOptions(k, ()), [*links, *valid], worth)
        trained = learn(workspace, encoder, links, valid, options, progress)
        quality = None
        if test:
            pairs = score(trained.scorer(), workspace.labelled(test))
            quality = evaluate(pairs, trained.threshold)
        types = workspace.by_type(links)
    model = model_of(encoder, candidates, trained, types)
    return TrainedModel(save_model(directory, model), len(links), len(valid), trained.report, quality)


def split_links(links: Sequence[LinkPair]) -> tuple[list[LinkPair], list[LinkPair]]:
    """Links to train on and, a fifth of them, to validate with: which is which depends on the left entity."""
    parts: tuple[list[LinkPair], list[LinkPair]] = [], []
    for link in links:
        parts[_uniform(link[0]) < VALID_SHARE].append(link)
    return parts


def learn(
    workspace: "Workspace",
    encoder: Encoder,
    links: Sequence[LinkPair],
    valid: Sequence[LinkPair],
    options: TrainingOptions,
    progress: Callable[[Progress], None],
) -> Trained:
    """Trains on the candidates that the workspace has retrieved."""
    training, validation = workspace.labelled(links), workspace.labelled(valid)
    context = training.inputs(np.zeros(1, np.int64)).context.shape[1]
    return train(training, validation, NetworkOptions(len(encoder.keys), context), options, progress)


def model_of(encoder: Encoder, candidates: CandidateOptions, trained: Trained, types: Iterable[str]) -> Model:
    """What a checkpoint holds; `types` are those that had links."""
    return Model(
        encoder=encoder,
        network=trained.network,
        trees=trained.trees,
        types=tuple(sorted(types)),
        slope=trained.slope,
        offset=trained.offset,
        threshold=trained.threshold,
        options={"views": list(VIEWS), "k": candidates.k, "floors": list(candidates.floors)},
        report=dict(trained.report),
    )


@dataclass(frozen=True)
class Evaluation:
    """How good a model is: overall, for each type of entity, and the scored pairs that it rests on."""

    quality: Quality
    types: Mapping[str, Quality]
    pairs: ScoredPairs

    def to_json(self) -> dict[str, object]:
        """As JSON-ready values: those of `quality`, and `types`."""
        types = {kind: quality.to_json() for kind, quality in self.types.items()}
        return {**self.quality.to_json(), "types": types}


def evaluate_model(
    events: Iterable[EntityEvent],
    links: Sequence[LinkPair],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
) -> Evaluation:
    """How good a model is on the graph that the events come to, for the left entities of `links`.

    Raises:
        ModelError: no usable model, or no link between entities that exist.
    """
    _, model = load_model(checkpoint)
    threshold = model.threshold if threshold is None else threshold
    with Workspace(events) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        scored = _scored(workspace, model, links)
    if not scored:
        raise ModelError(
            "no link joins entities that exist; check that the links' ids are those of the entities"
        )
    types = {kind: evaluate(pairs, threshold, one_to_one=one_to_one) for kind, pairs in scored.items()}
    parts = [*scored.values()]
    everything = ScoredPairs(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.left for part in parts]),
        np.concatenate([part.right for part in parts]),
        len({*links}),  # also those of entities that do not exist: they are lost
    )
    return Evaluation(evaluate(everything, threshold, one_to_one=one_to_one), types, everything)


def score_links(aligner: Aligner, links: Sequence[LinkPair], checkpoint: Path) -> dict[str, ScoredPairs]:
    """In an aligner's graph all candidates of the links' left entities, scored, by the left entity's type.

    Links with an entity that does not exist are left out.
    """
    _, model = load_model(checkpoint)
    with Workspace(begin_with=aligner.copy_to) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        return _scored(workspace, model, links)


def _scored(workspace: Workspace, model: Model, links: Sequence[LinkPair]) -> dict[str, ScoredPairs]:
    return {
        kind: score(model.scorer(kind), workspace.labelled(some))
        for kind, some in sorted(workspace.by_type(links).items())
    }


def align(
    events: Iterable[EntityEvent],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
    search: Search = "exact",
    progress: Callable[[int], None] = lambda _: None,
) -> list[AlignmentRecord]:
    """The alignments of the graph that the events come to, as the worker would leave them in its topic.

    Args:
        progress: told how many events were taken in so far.
    """
    done = 0
    current: dict[bytes | None, AlignmentRecord] = {}
    decode = msgspec.json.Decoder(AlignmentRecord).decode
    with tempfile.TemporaryDirectory(prefix="sameas-") as state:
        aligner = Aligner(
            Path(state),
            checkpoint,
            decode_canonical,
            one_to_one=one_to_one,
            threshold=threshold,
            search=search,
        )
        with closing(aligner):
            for batch in drained(aligner, as_messages(events)):
                for output in batch.outputs:
                    if output.kind == "alignments" and output.value is None:
                        current.pop(output.key, None)
                    elif output.kind == "alignments":
                        current[output.key] = decode(output.value or b"")
                aligner.published(batch.sequence)
                done += batch.counts.received
                progress(done)
    return sorted(current.values(), key=lambda record: (record.subject_id, record.object_id))


def drained(aligner: Aligner, messages: Iterable[Message]) -> Iterator[Batch]:
    """Processes everything, and then the backlog until nothing waits."""
    backlog = 0
    for chunk in batched(messages, BATCH):
        batch = aligner.process(chunk, bulk=True)
        backlog = batch.backlog
        yield batch
    while backlog:
        batch = aligner.process([], bulk=True)
        backlog = batch.backlog
        yield batch


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return xxhash.xxh3_64_intdigest(text.encode()) / 2.0**64
