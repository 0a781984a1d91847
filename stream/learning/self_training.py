"""A model without any link: self-supervision.

    1  pairs of entities that are each other's nearest by name, and clearly so, pass for links
    2  in a copy of the graph half of the entities are noised: values and neighbours are lost, letters change
    3  the model learns to find the links of 1 in the graph of 2

Pairs that are clear by name teach what else such pairs share. The noise hides names, so that this is used.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from index.candidates import CandidateOptions
from index.entity import Value
from model.checkpoint import save_model
from model.encoding.encoder import Encoder
from model.errors import ModelError
from model.training import Epoch, TrainingOptions
from stream.engine.views import NAMES
from stream.events import EntityEvent, Upsert
from stream.learning.known_links import split_links
from stream.learning.levels import prepare
from stream.learning.training import DEFAULT_LEVELS, DEFAULT_TRAINING, K, TrainedModel, learn, model_of
from stream.learning.workspace import LEAST_FLOORS, Workspace

ALIKE: Final = 0.4  # similarity of names that pass for the same
LEAD: Final = 0.05  # by which a pair is ahead of the next best, on both sides
FEWEST: Final = 20  # links of step 1; fewer teach nothing
MOST: Final = 5000  # links of step 1, of each type
NOISED: Final = 0.5  # share of entities
LOST: Final = 0.3  # chance that a value or neighbour of a noised entity is lost
MISSPELT: Final = 0.2  # chance that a word of what is left loses or changes a letter


def train_without_links(
    events: Iterable[EntityEvent],
    directory: Path,
    *,
    k: int = K,
    options: TrainingOptions = DEFAULT_TRAINING,
    progress: Callable[[Epoch], None] = lambda _: None,
) -> TrainedModel:
    """Learns a model from the graph that the events make, and saves it.

    Raises:
        ModelError: hardly any names of the sources are alike.
    """
    with Workspace(events) as workspace:
        entities = list(workspace.upserts())
        encoder = Encoder.fit(entities)
        workspace.retrieve(encoder, CandidateOptions(k, LEAST_FLOORS))
        links = workspace.clearly_alike(NAMES.index("name"), ALIKE, LEAD, MOST, options.seed)
    if len(links) < FEWEST:
        raise ModelError(
            f"{len(links)} pairs of entities have names that are clearly alike, {FEWEST} are needed; "
            "name some links with --links"
        )
    links, valid = split_links(links)
    with Workspace(noised(entities, options.seed)) as workspace:
        prepared = prepare(
            workspace,
            encoder,
            links,
            lambda encoder, _: workspace.retrieve(encoder, CandidateOptions(k, LEAST_FLOORS)),
            replace(DEFAULT_LEVELS, seed=options.seed),
        )
        trained = learn(workspace, prepared, valid, options, progress)
        types = workspace.by_type(links)
    model_id = save_model(directory, model_of(prepared, trained, types))
    return TrainedModel(model_id, len(links), len(valid), trained.report, None)


def noised(entities: Iterable[Upsert], seed: int) -> Iterator[Upsert]:
    """The entities, some with losses and misspellings that depend on the entity and the seed alone."""
    for entity in entities:
        chance = random.Random(f"{seed} {entity.source}:{entity.id}")
        if chance.random() < NOISED:
            attributes = {
                name: _misspelt(value, chance)
                for name, value in entity.attributes.items()
                if chance.random() >= LOST
            }
            relations = {
                name: [target for target in targets if chance.random() >= LOST]
                for name, targets in entity.relations.items()
            }
            entity = msgspec.structs.replace(entity, attributes=attributes, relations=relations)
        yield entity


def _misspelt(value: Value, chance: random.Random) -> Value:
    if not isinstance(value, str):
        return value
    words = value.split(" ")
    for number, word in enumerate(words):
        if len(word) > 2 and word.isalpha() and chance.random() < MISSPELT:
            at = chance.randrange(len(word))
            words[number] = word[:at] + chance.choice(["", word[at] * 2, "e"]) + word[at + 1 :]
    return " ".join(words)
