"""Which links levels learn from, and which they are judged by."""

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.catalogues import catalogues
from index.candidates import CandidateOptions
from model.contrastive import Catalogue, ContrastiveOptions, learn_levels
from model.encoding.encoder import Encoder
from model.encoding.levels import Levels
from model.training import LabelledPairs
from stream.engine.views import NAMES, OFF
from stream.learning import levels as module
from stream.learning.known_links import LinkPair
from stream.learning.levels import prepare
from stream.learning.workspace import LEAST_FLOORS, Workspace

LINKS = [(f"left:f{n}", f"right:f{n}") for n in range(60)]


def test_no_pair_comes_from_levels_that_learned_from_its_left_entity(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[set[tuple[int, int]]] = []
    made: list[Levels] = []

    def learn(catalogue: Catalogue, links: np.ndarray, start: Levels, options: ContrastiveOptions) -> Levels:
        assert start is encoder.levels and options.seed == 5
        learned.append({tuple(link) for link in links.tolist()})
        made.append(start._replace(key=start.key + np.float32(len(learned))))
        return made[-1]

    monkeypatch.setattr(module, "learn_levels", learn)
    with Workspace(catalogues()) as workspace:
        encoder = Encoder.fit(workspace.upserts())
        found: list[list[int]] = []

        def retrieve(encoder: Encoder, unseen: Sequence[LinkPair]) -> CandidateOptions:
            assert not unseen
            return workspace.retrieve(encoder, CandidateOptions(3, LEAST_FLOORS))

        plainly = workspace.labelled

        def labelled(links: Sequence[LinkPair], *, contrasted: bool) -> LabelledPairs:
            found.append(workspace.numbers(links)[:, 0].tolist())
            return plainly(links, contrasted=contrasted)

        monkeypatch.setattr(workspace, "labelled", labelled)
        prepared = prepare(workspace, encoder, LINKS, retrieve, ContrastiveOptions(seed=5, fewest=20))
        whole, one, other = learned
        assert len(whole) == 60 and one | other == whole and not one & other and one and other
        assert prepared.encoder.levels is made[0]  # which was learned from all
        for seen, judged in zip((one, other), found, strict=True):
            assert not {left for left, _ in seen} & set(judged) and len(seen) + len(judged) == 60
        pairs = prepared.training
        assert pairs.links == 60 and pairs.label.sum() == 60

        # the inputs of rows in any order are those of each row
        rows = np.random.default_rng(0).permutation(len(pairs.label))[:40]
        together = pairs.inputs(rows)
        for place, row in enumerate(rows.tolist()):
            alone = pairs.inputs(np.array([row]))
            np.testing.assert_array_equal(alone.context[0], together.context[place])
            np.testing.assert_array_equal(alone.left.vec[0], together.left.vec[place])
            np.testing.assert_array_equal(alone.right.hash[0], together.right.hash[place])


def test_few_links_leave_levels_unlearned() -> None:
    with Workspace(catalogues()) as workspace:
        encoder = Encoder.fit(workspace.upserts())
        prepared = prepare(
            workspace,
            encoder,
            LINKS,
            lambda encoder, _: workspace.retrieve(encoder, CandidateOptions(3, LEAST_FLOORS)),
            ContrastiveOptions(fewest=len(LINKS) + 1),
        )
        assert prepared.encoder is encoder and prepared.training.links == 60


def test_rows_and_lists_of_other_levels_are_those_of_a_new_retrieval() -> None:
    """Of what does not rest on levels nothing is made twice."""
    options = CandidateOptions(3, LEAST_FLOORS)
    with Workspace(catalogues()) as workspace:
        encoder = Encoder.fit(workspace.upserts())
        catalogue, numbers = workspace.catalogue(encoder), workspace.numbers(LINKS)
        few = ContrastiveOptions(steps=5, batch=16, drawn=16)
        learned = encoder.with_levels(learn_levels(catalogue, numbers, encoder.levels, few))
        workspace.retrieve(encoder, options)
        before = workspace.labelled(LINKS)
        shared = workspace.cross_fitted([(learned, LINKS)], options)
        weights, keys = encoder.state()
        apart = Encoder.from_state(weights, keys, learned.levels)
        workspace.retrieve(apart, options)
        anew = workspace.labelled(LINKS, contrasted=True)
        again = workspace.retrieve(encoder, options), workspace.labelled(LINKS)
        for one, other, is_same in ((shared, anew, True), (before, again[1], True), (shared, before, False)):
            assert (_described(one) == _described(other)) is is_same


def _described(pairs: LabelledPairs) -> dict[tuple[int, int], bytes]:
    """By pair all that a network sees of it."""
    inputs = pairs.inputs(np.arange(len(pairs.label)))
    ends = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    return {
        pair: b"".join(array[place].tobytes() for array in (inputs.context, *inputs.left, *inputs.right))
        for place, pair in enumerate(ends)
    }


def test_levels_are_looked_at_only_where_they_find_more() -> None:
    def used(workspace: Workspace, worth: float) -> set[str]:
        options = workspace.retrieve(encoder, CandidateOptions(3, ()), LINKS, worth)
        return {name for name, floor in zip(NAMES, options.floors, strict=True) if floor != OFF}

    with Workspace(catalogues()) as workspace:
        encoder = Encoder.fit(workspace.upserts())
        assert {"name", "levels", "level1"} <= used(workspace, 0)
        assert used(workspace, 1e-9) == used(workspace, 1) == {"name", "values"}
