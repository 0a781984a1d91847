"""Training, evaluation and alignment of whole catalogues without a broker: the worker's code on files."""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash

from index.candidates import CandidateOptions, Pairs
from index.graph import GraphStore, node_of
from index.store import Store
from model.checkpoint import Model, load_model, save_model
from model.encoder import Encoder
from model.evaluation import Quality, ScoredPairs, evaluate
from model.network import NetworkOptions
from model.pairs import PairInputs
from model.training import LabelledPairs, Progress, TrainingOptions, score, train
from model.vectors import UNIT
from stream.aligner import Aligner, candidate_options
from stream.errors import InvalidInput, ModelError
from stream.events import (
    AlignmentRecord,
    Cause,
    EntityEvent,
    Message,
    Upsert,
    decode_entity_event,
    split_curie,
)
from stream.inbox import Inbox
from stream.interface import Batch
from stream.links import LinkStore
from stream.retrieval import VIEWS, Retrieval
from stream.scoring import pair_inputs

BATCH: Final = 512
K: Final = 10  # nearest neighbours in each view that are candidates
FLOOR: Final = UNIT // 5  # the least floor of a view: similarities of unrelated texts lie below it
LOST_BELOW_FLOOR: Final = 0.005  # share of links that a view's floor may lose; other views find most of them
DEFAULT_TRAINING: Final = TrainingOptions()
VALID_SHARE: Final = 0.2  # of the links, if none are given for validation

LinkPair = tuple[str, str]


class LabelledLink(NamedTuple):
    """Two CURIEs, and whether they are the same."""

    left: str
    right: str
    same: bool


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
        with path.open(encoding="utf-8", newline="") as file:
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


def train_model(
    events: Iterable[EntityEvent],
    links: Sequence[LinkPair],
    directory: Path,
    *,
    valid: Sequence[LinkPair] | None = None,
    test: Sequence[LinkPair] = (),
    k: int = K,
    options: TrainingOptions = DEFAULT_TRAINING,
    progress: Callable[[Progress], None] = lambda _: None,
) -> TrainedModel:
    """Learns a model from the graph that the events come to and from known links, and saves it.

    Args:
        links: pairs of CURIEs that are the same. Other candidates of their left entities count as different.
            Those with an entity that does not exist are left out.
        valid: links for early stopping, calibration and the threshold; a fifth of `links` if None.
        test: links to measure the model on afterwards.

    Raises:
        ModelError: too few links are among the entities.
    """
    if valid is None:
        held_out = [_uniform(left) < VALID_SHARE for left, _ in links]
        valid = [link for link, out in zip(links, held_out, strict=True) if out]
        links = [link for link, out in zip(links, held_out, strict=True) if not out]
    with Workspace(events) as workspace:
        links, valid = workspace.present(links), workspace.present(valid)
        if not links or not valid:
            raise ModelError(
                f"{len(links)} training and {len(valid)} validation links join entities that exist; some of "
                "each are needed. Check that links and entities have the same sources and ids"
            )
        encoder = Encoder.fit(workspace.upserts())
        candidates = workspace.retrieve(encoder, CandidateOptions(k, ()), floors_from=[*links, *valid])
        training, validation = workspace.labelled(links), workspace.labelled(valid)
        context = training.inputs(np.zeros(1, np.int64)).context.shape[1]
        trained = train(training, validation, NetworkOptions(len(encoder.keys), context), options, progress)
        quality = None
        if test:
            pairs = score(trained.scorer(), workspace.labelled(test))
            quality = evaluate(pairs, trained.threshold)
    model = Model(
        encoder=encoder,
        network=trained.network,
        slope=trained.slope,
        offset=trained.offset,
        threshold=trained.threshold,
        options={"views": list(VIEWS), "k": candidates.k, "floors": list(candidates.floors)},
        report=dict(trained.report),
    )
    return TrainedModel(save_model(directory, model), len(links), len(valid), trained.report, quality)


def evaluate_model(
    events: Iterable[EntityEvent],
    links: Sequence[LinkPair],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
) -> Quality:
    """How good a model is on the graph that the events come to, for the left entities of `links`."""
    _, model = load_model(checkpoint)
    with Workspace(events) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        pairs = score(model.scorer(), workspace.labelled(links))
    return evaluate(pairs, model.threshold if threshold is None else threshold, one_to_one=one_to_one)


def score_links(aligner: Aligner, links: Sequence[LinkPair], checkpoint: Path) -> dict[str, ScoredPairs]:
    """In an aligner's graph all candidates of the links' left entities, scored, by the left entity's type.

    Links with an entity that does not exist are left out.
    """
    _, model = load_model(checkpoint)
    with Workspace(begin_with=aligner.copy_to) as workspace:
        workspace.retrieve(model.encoder, candidate_options(model))
        return {
            kind: score(model.scorer(), workspace.labelled(some))
            for kind, some in sorted(workspace.by_type(links).items())
        }


def align(
    events: Iterable[EntityEvent],
    checkpoint: Path,
    *,
    one_to_one: bool = True,
    threshold: float | None = None,
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
            Path(state), checkpoint, decode_canonical, one_to_one=one_to_one, threshold=threshold
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
    for chunk in _chunks(messages):
        batch = aligner.process(chunk, bulk=True)
        backlog = batch.backlog
        yield batch
    while backlog:
        batch = aligner.process([], bulk=True)
        backlog = batch.backlog
        yield batch


def as_messages(events: Iterable[EntityEvent]) -> Iterator[Message]:
    """Canonical messages, as if the events stood in one partition."""
    encode = msgspec.json.Encoder().encode
    for offset, event in enumerate(events):
        yield Message(Cause("events", 0, offset), None, encode(event), 0.0)


def decode_canonical(message: Message) -> Sequence[EntityEvent]:
    """What `as_messages` made."""
    return [decode_entity_event(message.key, message.value)]


class Workspace:
    """A graph in a temporary store with its rows and candidate lists: what training and evaluation look at.

    Args:
        events: the graph is what they come to, applied in this order.
        begin_with: puts a store into a new directory, to begin with its graph.
    """

    def __init__(
        self, events: Iterable[EntityEvent] = (), begin_with: Callable[[Path], None] = lambda _: None
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sameas-")
        state = Path(self._directory.name) / "state"
        begin_with(state)
        self._store = Store(state)
        self._graph = GraphStore(self._store)
        inbox = Inbox(self._store, self._graph, LinkStore(self._store), decode_canonical)
        for chunk in _chunks(as_messages(events)):
            inbox.receive(chunk)
            self._store.commit()

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self._directory.cleanup()

    def upserts(self) -> Iterator[Upsert]:
        """The entities, in an order that depends on nothing but their names."""
        for _, e in self._graph.scan():
            if not e.deleted:
                yield Upsert(e.source, e.id, e.type, e.attributes, e.relations)

    def present(self, links: Sequence[LinkPair]) -> list[LinkPair]:
        """The links whose two entities exist."""
        ends = self._graph.entities(node_of(name) for link in links for name in link)
        exists = [entity is not None and not entity.deleted for entity in ends]
        return [link for number, link in enumerate(links) if exists[2 * number] and exists[2 * number + 1]]

    def by_type(self, links: Sequence[LinkPair]) -> dict[str, list[LinkPair]]:
        """The links whose two entities exist, by the type of the left one."""
        present = self.present(links)
        found: dict[str, list[LinkPair]] = {}
        for link, entity in zip(
            present, self._graph.entities(node_of(left) for left, _ in present), strict=True
        ):
            assert entity is not None
            found.setdefault(entity.type, []).append(link)
        return found

    def retrieve(
        self, encoder: Encoder, options: CandidateOptions, floors_from: Sequence[LinkPair] = ()
    ) -> CandidateOptions:
        """Makes all rows and candidate lists.

        Args:
            floors_from: known links that choose the floors of the views; without any, `options` has them.
        """
        self._retrieval = Retrieval(self._graph, encoder, options)
        self._retrieval.fill_rows({})
        if floors_from:
            left, right = ([node_of(link[side]) for link in floors_from] for side in (0, 1))
            self._retrieval.options = options._replace(
                floors=_floors(self._retrieval.similarities(left, right))
            )
        self._retrieval.fill_lists()
        return self._retrieval.options

    def labelled(self, links: Sequence[LinkPair]) -> LabelledPairs:
        """All candidate pairs of the links' left entities, and which of them are links."""
        table = self._retrieval.table
        gold = {(node_of(left), node_of(right)) for left, right in links}
        lefts = {left for left, _ in gold}
        parts: list[tuple[Pairs, npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]] = []
        for source_pair, pairs in self._retrieval.candidates(lefts):
            nodes = [table.rows["node"][slots].tolist() for slots in pairs]
            # a link's left entity may be of the source whose name sorts last
            turned = np.array([node not in lefts for node in nodes[0]], bool)
            label = np.array([(a, b) in gold or (b, a) in gold for a, b in zip(*nodes, strict=True)], bool)
            left = np.where(turned, pairs.right, pairs.left).astype(np.int64)
            parts.append((pairs, self._retrieval.context(source_pair, pairs)[0], left, label))
        if not parts:
            raise ModelError("no two sources have entities of one type; give matching types one name")
        pairs = Pairs(*(np.concatenate([getattr(part[0], side) for part in parts]) for side in Pairs._fields))
        context, left, label = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))

        def inputs(rows: npt.NDArray[np.int64]) -> PairInputs:
            return pair_inputs(table, Pairs(pairs.left[rows], pairs.right[rows]), context[rows])

        right = np.where(left == pairs.left, pairs.right, pairs.left).astype(np.int64)
        return LabelledPairs(inputs, label, left, right, len(gold))

    def judged(self, pairs: Sequence[LabelledLink]) -> LabelledPairs:
        """These pairs of one type and two sources, whether retrieval proposes them or not."""
        table = self._retrieval.table
        slots = Pairs(
            table.slots([node_of(pair.left) for pair in pairs]),
            table.slots([node_of(pair.right) for pair in pairs]),
        )
        (source_pair,) = self._retrieval.lists
        context = self._retrieval.context(source_pair, slots)[0]
        label = np.array([pair.same for pair in pairs], bool)

        def inputs(rows: npt.NDArray[np.int64]) -> PairInputs:
            return pair_inputs(table, Pairs(slots.left[rows], slots.right[rows]), context[rows])

        left, right = (side.astype(np.int64) for side in slots)
        return LabelledPairs(inputs, label, left, right, int(label.sum()))


def _floors(similarities: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """Per view the similarity that nearly all links reach which have vectors there; (P, views) of links."""
    floors = []
    for column in similarities.T:
        present = column[column != 0]
        reached = float(np.quantile(present, LOST_BELOW_FLOOR)) if len(present) else 0.0
        floors.append(max(FLOOR, int(reached)))
    return tuple(floors)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return xxhash.xxh3_64_intdigest(text.encode()) / 2.0**64


def _chunks(messages: Iterable[Message]) -> Iterator[list[Message]]:
    iterator = iter(messages)
    while chunk := list(islice(iterator, BATCH)):
        yield chunk
