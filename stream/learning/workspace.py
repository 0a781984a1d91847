"""A graph on which models learn and are measured: a worker's store, rows and candidate lists, in a temporary
directory."""

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from index.candidates import CandidateOptions
from index.entity import node_of
from index.graph import GraphStore
from index.search.arrays import Pairs, Sims
from index.store import Store
from model.contrastive import Catalogue, both_levels
from model.encoding.encoder import Encoder
from model.encoding.tokens import mix
from model.errors import ModelError
from model.scoring.pairs import PairInputs, Side
from model.training import LabelledPairs
from stream.engine.batches import batched
from stream.engine.embedding import Embedding
from stream.engine.inbox import Inbox
from stream.engine.links import LinkStore
from stream.engine.node_table import NodeTable
from stream.engine.pair_inputs import pair_inputs
from stream.engine.pairs import SourcePair
from stream.engine.retrieval import Retrieval
from stream.engine.views import LEARNED, OFF, VIEWS
from stream.events import EntityEvent, Upsert
from stream.learning.known_links import LabelledLink, LinkPair
from stream.mapping.canonical import as_messages, decode_canonical

BATCH: Final = 512
_LEARNED: Final = [place for place, view in enumerate(VIEWS) if view.name in LEARNED]
LEAST_FLOORS: Final = tuple(view.least_floor for view in VIEWS)
LOST_BELOW_FLOOR: Final = 0.005  # share of links that may lie below a view's floor; other views find most

WORTH_A_SEARCH: Final = 0.002  # share of links that an optional view finds and no view before it
GAIN_LINKS: Final = 2000  # at most, from which that share is estimated


class _Answered(NamedTuple):
    """P pairs of two sources."""

    slots: npt.NDArray[np.int32]  # (P, 2)
    context: npt.NDArray[np.float32]  # (P, C)
    left: npt.NDArray[np.int64]  # (P,) the slot of the one that is left in links
    label: npt.NDArray[np.bool_]  # (P,) whether they are a link

    def where(self, rows: npt.NDArray[np.bool_]) -> "_Answered":
        return _Answered(self.slots[rows], self.context[rows], self.left[rows], self.label[rows])


class _WithLevels(NamedTuple):
    """Rows from which those of encoders with other levels are made."""

    encoder: Encoder
    embedding: Embedding
    catalogue: Catalogue


class Workspace:
    """A graph in a temporary store, with its rows and candidate lists.

    Args:
        events: they make the graph, in this order.
        absent: CURIEs of entities that are left out of it. A link with one of them says that its left entity
            has no partner (an "open world").
        begin_with: puts a store into the directory that it is given. The graph begins with that store's.
    """

    def __init__(
        self,
        events: Iterable[EntityEvent] = (),
        *,
        absent: Collection[str] = (),
        begin_with: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self._absent = absent
        self._with_levels: _WithLevels | None = None
        events = (event for event in events if f"{event.source}:{event.id}" not in absent)
        with contextlib.ExitStack() as stack:  # for what breaks off while it is filled
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sameas-"))
            state = Path(directory) / "state"
            begin_with(state)
            self._store = stack.enter_context(contextlib.closing(Store(state)))
            self._graph = GraphStore(self._store)
            inbox = Inbox(self._store, self._graph, LinkStore(self._store), decode_canonical)
            for chunk in batched(as_messages(events), BATCH):
                inbox.receive(chunk)
                self._store.commit()
            self._resources = stack.pop_all()

    def __enter__(self) -> "Workspace":
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def upserts(self) -> Iterator[Upsert]:
        """The entities, in an order that depends on their names alone."""
        for _, e in self._graph.scan():
            if not e.deleted:
                yield Upsert(e.source, e.id, e.type, e.attributes, e.relations)

    def present(self, links: Sequence[LinkPair]) -> list[LinkPair]:
        """The links whose two entities exist, the right one also if it was left out."""
        exists = self._graph.exist(node_of(name) for link in links for name in link)
        ends = zip(links, exists[::2], exists[1::2], strict=True)
        return [link for link, left, right in ends if left and (right or link[1] in self._absent)]

    def by_type(self, links: Sequence[LinkPair]) -> dict[str, list[LinkPair]]:
        """The links that are `present`, by the type of the left entity."""
        present = self.present(links)
        found: dict[str, list[LinkPair]] = {}
        for link, entity in zip(
            present, self._graph.entities(node_of(left) for left, _ in present), strict=True
        ):
            assert entity is not None
            found.setdefault(entity.type, []).append(link)
        return found

    def retrieve(
        self,
        encoder: Encoder,
        options: CandidateOptions,
        floors_from: Sequence[LinkPair] = (),
        worth: float = WORTH_A_SEARCH,
    ) -> CandidateOptions:
        """Makes all rows and candidate lists.

        Args:
            floors_from: known links that choose the floors of the views; without any, `options` has them.
            worth: an optional view is used only if it finds at least this share of these links that no view
                before it finds, and at least two of them: one may be chance. With 0 all views are used.
        """
        self._embedding = self._embed(encoder, options.floors)
        if floors_from:
            left, right = ([node_of(link[side]) for link in floors_from] for side in (0, 1))
            floors = _floors(self._embedding.similarities(left, right))
            gains = _gains(self._embedding.table, left, right, CandidateOptions(options.k, floors))
            least = max(2, worth * min(len(left), GAIN_LINKS)) if worth else 0
            floors = tuple(
                OFF if view.is_optional and gain < least else floor
                for view, gain, floor in zip(VIEWS, gains, floors, strict=True)
            )
            options = options._replace(floors=floors)
        self._retrieval = Retrieval(self._embedding, options)
        self._retrieval.fill()
        return options

    def catalogue(self, encoder: Encoder) -> Catalogue:
        """The entities as levels are learned from them, numbered as `numbers` does."""
        embedding = self._embedding = self._embed(encoder)
        around = embedding.around()
        rows = embedding.table.rows
        slots = np.flatnonzero(rows["exists"])
        entities = [e for e in self._graph.entities(rows["node"][slots].tolist()) if e is not None]
        texts = encoder.text_tokens(entities)
        fields = ("exists", "space", "name_hash", "degree", "sample_keys")
        texts = texts._replace(entity=slots[texts.entity])
        catalogue = Catalogue(texts, around, *(rows[name] for name in fields))
        self._with_levels = _WithLevels(encoder, embedding, catalogue)
        return catalogue

    def _embed(self, encoder: Encoder, floors: Sequence[int] = ()) -> Embedding:
        """All rows; `floors` as for `Embedding`."""
        made = self._with_levels
        if made is not None and encoder.keys is made.encoder.keys:
            return made.embedding.with_levels(encoder, *both_levels(made.catalogue, encoder.levels))
        embedding = Embedding(self._graph, encoder, floors)
        embedding.fill({})
        return embedding

    def numbers(self, links: Sequence[LinkPair]) -> npt.NDArray[np.int64]:
        """(L, 2) the entities of links in a `Catalogue`."""
        ends = [node_of(name) for link in links for name in link]
        return self._embedding.table.slots(ends).reshape(-1, 2).astype(np.int64)

    def clearly_alike(self, view: int, floor: float, lead: float, most: int, seed: int) -> list[LinkPair]:
        """Pairs of CURIEs which are each other's nearest in a view.

        Args:
            floor: the least similarity, where 1 is equality.
            lead: how far the similarity is at least above that of the next best, on both sides.
            most: how many of one type and two sources, drawn by a hash of the left entity and the seed.
        """
        rows = self._embedding.table.rows
        found: list[LinkPair] = []
        for sources, lists in self._retrieval.lists.items():
            lefts = rows["node"][lists.keys()[0]]
            lefts = lefts[np.argsort(mix(lefts + np.uint64(seed)), kind="stable")][: 2 * most]
            for pair, pairs in self._retrieval.candidates(lefts.tolist()):
                if pair != sources:
                    continue
                similarity, *ranks_and_gaps = self._retrieval.context(pair, pairs)[0].T[
                    5 * view : 5 * view + 5
                ]
                ranks, gaps = ranks_and_gaps[:2], ranks_and_gaps[2:]
                alike = (similarity >= floor) & (np.maximum(*ranks) == 0) & (np.minimum(*gaps) >= lead)
                nodes = [rows["node"][side[alike][:most]].tolist() for side in pairs]
                names = [[f"{e.source}:{e.id}" for e in self._graph.entities(side) if e] for side in nodes]
                found += zip(*names, strict=True)
        return sorted(found)

    def labelled(self, links: Sequence[LinkPair], *, contrasted: bool = False) -> LabelledPairs:
        """All candidate pairs of the links' left entities, and which of them are links.

        Links whose right entity was left out are none: all pairs of their left entity are wrong.

        Args:
            contrasted: where candidates are links alone, each left entity also gets the right one of another
                link, so that there is something to tell the links from.
        """
        table = self._embedding.table
        gold = {(node_of(left), node_of(right)) for left, right in links if right not in self._absent}
        lefts = {node_of(left) for left, _ in links}

        def answered(sources: SourcePair, pairs: Pairs) -> _Answered:
            nodes = [table.rows["node"][slots].tolist() for slots in pairs]
            # a link's left entity may be of the source whose name sorts last
            turned = np.array([node not in lefts for node in nodes[0]], bool)
            label = np.array([(a, b) in gold or (b, a) in gold for a, b in zip(*nodes, strict=True)], bool)
            left = np.where(turned, pairs.right, pairs.left).astype(np.int64)
            return _Answered(np.stack(pairs, 1), self._retrieval.context(sources, pairs)[0], left, label)

        found = self._retrieval.candidates(lefts)
        parts = [answered(*part) for part in found]
        if not parts:
            raise ModelError("no two sources have entities of one type; give matching types one name")
        if contrasted and all(part.label.all() for part in parts):
            for sources, (one, other) in found:
                crossed = answered(sources, Pairs(one, np.roll(other, 1)))
                parts.append(crossed.where(~crossed.label))
        pairs = Pairs(*np.concatenate([part.slots for part in parts]).T)
        context = np.concatenate([part.context for part in parts])
        left = np.concatenate([part.left for part in parts])
        label = np.concatenate([part.label for part in parts])

        def inputs(rows: npt.NDArray[np.int64]) -> PairInputs:
            return pair_inputs(table, Pairs(pairs.left[rows], pairs.right[rows]), context[rows])

        right = np.where(left == pairs.left, pairs.right, pairs.left).astype(np.int64)
        return LabelledPairs(inputs, label, left, right, len(gold))

    def cross_fitted(
        self, parts: Iterable[tuple[Encoder, Sequence[LinkPair]]], options: CandidateOptions
    ) -> LabelledPairs:
        """`labelled` of all parts' links, each part as its encoder finds it. What was retrieved stays.

        Args:
            parts: their encoders differ from that of what was retrieved, with these options, in levels alone.
        """
        kept = self._embedding, self._retrieval
        found = []
        for encoder, links in parts:
            self._embedding = self._embed(encoder)
            self._retrieval = Retrieval(self._embedding, options)
            # nothing else than these views rests on levels
            same = {pair: lists.without(_LEARNED) for pair, lists in kept[1].lists.items()}
            self._retrieval.fill(same)
            found.append(self.labelled(links, contrasted=True))
        self._embedding, self._retrieval = kept
        return _joined(found)

    def judged(self, pairs: Sequence[LabelledLink]) -> LabelledPairs:
        """These pairs of one type and two sources, also those that retrieval does not propose."""
        table = self._embedding.table
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


def _joined(parts: Sequence[LabelledPairs]) -> LabelledPairs:
    """All pairs, part after part; no left entity is in two parts."""
    firsts = np.cumsum([0] + [len(part.label) for part in parts])

    def inputs(rows: npt.NDArray[np.int64]) -> PairInputs:
        part_of = np.searchsorted(firsts, rows, side="right") - 1
        made = [part.inputs(rows[part_of == number] - firsts[number]) for number, part in enumerate(parts)]
        left, right = (
            Side(*map(np.concatenate, zip(*sides, strict=True)))
            for sides in ([each.left for each in made], [each.right for each in made])
        )
        order = np.argsort(np.argsort(part_of, kind="stable"), kind="stable")
        return PairInputs(left, right, np.concatenate([each.context for each in made])).take(order)

    label, left, right = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("label", "left", "right")
    )
    return LabelledPairs(inputs, label, left, right, sum(part.links for part in parts))


def _gains(
    table: NodeTable, left: Sequence[int], right: Sequence[int], options: CandidateOptions
) -> list[int]:
    """For each view how many of the first links it finds and no view before it, from the left side."""
    rows = table.rows
    lefts, rights = (table.slots(side[:GAIN_LINKS]) for side in (left, right))
    found = np.zeros((len(VIEWS), len(lefts)), bool)
    spaces = rows["space"][rights]
    for space in np.unique(spaces):
        here = np.flatnonzero(spaces == space)
        members = np.flatnonzero(rows["space"] == space).astype(np.int32)
        for number, view in enumerate(VIEWS):
            index, vectors = view.exact(view.width), rows[view.name]
            index.put(members, vectors[members])
            nearest, _ = index.search(vectors[lefts[here]], options.k, options.floors[number], rows["node"])
            found[number, here] = (nearest.keys == rights[here, None]).any(axis=1)
    first = found & ~np.logical_or.accumulate(np.vstack([np.zeros_like(found[:1]), found[:-1]]))
    counts: list[int] = first.sum(axis=1).tolist()
    return counts


def _floors(similarities: Sims) -> tuple[int, ...]:
    """Each view's floor: a similarity that nearly all links reach which have vectors there.

    Args:
        similarities: (links, views).
    """
    floors = []
    for column, least in zip(similarities.T, LEAST_FLOORS, strict=True):
        present = column[column != 0]
        reached = float(np.quantile(present, LOST_BELOW_FLOOR)) if len(present) else 0.0
        floors.append(max(least, int(reached)))
    return tuple(floors)
