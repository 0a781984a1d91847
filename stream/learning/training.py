"""Training on whole catalogues without a broker, with the worker's code."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from index.candidates import CandidateOptions
from model.checkpoint import Model, save_model
from model.contrastive import ContrastiveOptions
from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.evaluation import Quality, evaluate
from model.scoring.network import NetworkOptions
from model.training import Epoch, Trained, TrainingOptions, score, train
from stream.engine.parts import candidate_options
from stream.engine.views import NAMES, OFF
from stream.errors import ConfigError
from stream.events import EntityEvent
from stream.learning.known_links import LinkPair, split_links
from stream.learning.levels import Prepared, prepare
from stream.learning.workspace import LEAST_FLOORS, WORTH_A_SEARCH, Workspace

K: Final = 10  # nearest neighbours in each view that are candidates
WEAK_PRAUC: Final = 0.5
USELESS_PRAUC: Final = 0.1
DEFAULT_LEVELS: Final = ContrastiveOptions()
DEFAULT_TRAINING: Final = TrainingOptions()


@dataclass(frozen=True)
class TrainedModel:
    """A trained and saved model."""

    id: str
    training_links: int
    valid_links: int
    report: dict[str, float]
    quality: Quality | None  # on the test links, one-to-one among these alone


def check_writable(option: str, directory: Path) -> None:
    """Makes the directory that something will be saved in: an error comes before the work, not after it.

    Args:
        option: the one that names the directory.

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
    levels: ContrastiveOptions = DEFAULT_LEVELS,
    options: TrainingOptions = DEFAULT_TRAINING,
    progress: Callable[[Epoch], None] = lambda _: None,
) -> TrainedModel:
    """Learns a model from the graph that the events make and from known links, and saves it.

    Args:
        links: pairs of CURIEs that are the same. Other candidates of their left entities count as different.
            Links with an entity that does not exist are left out.
        valid: links for early stopping, calibration and the threshold; a fifth of `links` if None.
        test: links to measure the model on afterwards.
        worth: an optional view is used only if it finds at least this share of links that no view before
            it finds.

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
        prepared = prepare(
            workspace,
            Encoder.fit(workspace.upserts()),
            links,
            lambda encoder, unseen: retrieve(workspace, encoder, links, valid, unseen, k, worth),
            replace(levels, seed=options.seed),
        )
        trained = learn(workspace, prepared, valid, options, progress)
        quality = None
        if test:
            pairs = score(trained.scorer(), workspace.labelled(test))
            quality = evaluate(pairs, trained.threshold)
        types = workspace.by_type(links)
    model = model_of(prepared, trained, types)
    return TrainedModel(save_model(directory, model), len(links), len(valid), trained.report, quality)


def retrieve(
    workspace: Workspace,
    encoder: Encoder,
    links: Sequence[LinkPair],
    valid: Sequence[LinkPair],
    unseen: Sequence[LinkPair],
    k: int,
    worth: float = WORTH_A_SEARCH,
) -> CandidateOptions:
    """Makes candidate lists as known links need them.

    Args:
        links, valid: to train on and to validate with.
        unseen: those of the former from which no levels have learned. Of others, levels find too many.
    """
    candidates = workspace.retrieve(encoder, CandidateOptions(k, ()), [*unseen, *valid], worth)
    if any(workspace.labelled(part).label.all() for part in (links, valid)):
        # equal names put the floors so high that there is nothing to tell the links from
        floors = [
            OFF if f == OFF else least for f, least in zip(candidates.floors, LEAST_FLOORS, strict=True)
        ]
        candidates = workspace.retrieve(encoder, CandidateOptions(k, tuple(floors)))
    return candidates


def weakness(report: Mapping[str, float]) -> str:
    """What is wrong with a model, as its validation links say; empty if they say nothing against it.

    Below a PRAUC of .5 there is no threshold at which precision and recall both reach .71.
    """
    prauc, chance, retrieved = (report[f"valid_{name}"] for name in ("prauc", "chance", "retrieved"))
    if prauc >= WEAK_PRAUC:
        return ""
    what = "the model knows nothing" if prauc < max(2 * chance, USELESS_PRAUC) else "the model is weak"
    return (
        f"{what}: its PRAUC on the validation links is {prauc:.3f}, of 1; the same score for all pairs gives "
        f"{chance:.3f}. {retrieved:.0%} of these links are among the candidates. Are the links right, and do "
        "the mappings have what a person would decide by? `sameas feed --dry-run` shows it"
    )


def learn(
    workspace: Workspace,
    prepared: Prepared,
    valid: Sequence[LinkPair],
    options: TrainingOptions,
    progress: Callable[[Epoch], None],
) -> Trained:
    """Trains on prepared pairs; the workspace's candidates of `valid` say when to stop."""
    training, validation = prepared.training, workspace.labelled(valid, contrasted=True)
    context = training.inputs(np.zeros(0, np.int64)).context.shape[1]  # also where there are no pairs
    network = NetworkOptions(len(prepared.encoder.keys), context)
    return train(training, validation, network, options, progress)


def model_of(prepared: Prepared, trained: Trained, types: Iterable[str]) -> Model:
    """What a checkpoint holds; `types` are those that had links. Raises ModelError if it is of no use."""
    model = Model(
        encoder=prepared.encoder,
        network=trained.network,
        trees=trained.trees,
        types=tuple(sorted(types)),
        calibration=trained.calibration,
        alone=trained.alone,
        threshold=trained.threshold,
        options={
            "views": list(NAMES),
            "k": prepared.candidates.k,
            "floors": list(prepared.candidates.floors),
        },
        report=dict(trained.report),
    )
    candidate_options(model)
    return model
