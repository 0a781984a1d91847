"""Why a pair is aligned or not: in agreement with what was published, beside a worker, without a trace."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.catalogues import catalogues, film
from stream.changes import LinkChange
from stream.cli import main
from stream.config import ModelSettings, Settings, StateSettings
from stream.console import shown
from stream.engine.aligner import Aligner
from stream.engine.explaining import Explanation
from stream.errors import InvalidInput
from stream.events import Cause, Delete, EntityEvent, Link, Message, Upsert
from stream.mapping.canonical import decode_canonical
from stream.state.generations import Generations
from tests.stream.engine.test_aligner import Topic, messages, run

TWIN = Upsert("right", "twin", "film", film("right", 60).attributes, film("right", 60).relations)
LINKS = [
    Link("left:f61", "right:f61", "different", "me"),
    Link("left:f62", "right:p1", "same", "me"),
    Link("left:f67", "right:f67", "same", "me"),
    Link("left:f67", "right:f68", "same", "me"),
]
LONE = Upsert("left", "lone", "planet", {"name": "amber birch"})
NAMES = {
    f"{e.source}:{e.id}": e.attributes.get("name") or e.attributes["title"]
    for e in [*catalogues(), TWIN, LONE]
}
EVENTS: list[EntityEvent] = [*catalogues(), TWIN, LONE, Delete("left", "f63")]


def decode(message: Message) -> list[EntityEvent | LinkChange]:
    if message.cause.topic != "links":
        return [*decode_canonical(message)]
    link = msgspec.json.decode(message.value or b"", type=Link)
    return [LinkChange(link.left, link.right, link)]


@pytest.fixture(scope="module")
def aligned(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Aligner, Topic]]:
    """The aligner of a worker that has applied everything, in a state directory, and what it published."""
    directory = tmp_path_factory.mktemp("explaining")
    settings = Settings(
        model=ModelSettings(dir=checkpoint),
        state=StateSettings(dir=directory / "state"),
    )
    generations = Generations(settings, decode)
    aligner, topic = generations.open(), Topic()
    links = [
        Message(Cause("links", 0, n), None, msgspec.json.encode(link), 0.0) for n, link in enumerate(LINKS)
    ]
    run(aligner, topic, [*messages(EVENTS), *links])
    yield aligner, topic
    aligner.close()
    generations.close()


def state_of(aligner: Aligner) -> Path:
    return aligner._store.path.parent


def explain(aligner: Aligner, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments, "--state", str(state_of(aligner))])


def outcome(aligner: Aligner, left: str, right: str) -> str:
    [told] = aligner.explain(left, right)
    assert (told.subject_id, told.object_id) == (left, right)
    assert aligner.explain(right, left) == [told]
    return told.outcome


def test_it_says_what_was_published(aligned: tuple[Aligner, Topic]) -> None:
    aligner, topic = aligned
    records = {(record.subject_id, record.object_id): record for record in topic.records.values()}
    told = {
        (each.subject_id, each.object_id): each
        for event in EVENTS
        if isinstance(event, Upsert) and event.source == "left" and event.id != "f63"
        for each in aligner.explain(f"left:{event.id}")
    }
    assert {pair for pair, each in told.items() if each.outcome == "aligned"} == records.keys()
    for pair, record in records.items():
        assert told[pair].evidence == record.evidence
        if told[pair].verdict is None:
            assert round(told[pair].score or 0, 4) == record.confidence
        assert (told[pair].subject_category, told[pair].object_category) == (
            record.subject_category,
            record.object_category,
        )
    for each in told.values():
        assert not each.waits
        is_compared = each.subject_category == each.object_category
        assert bool(each.evidence.attributes or each.evidence.neighbours) == is_compared
        assert each.subject_aligned_with == [o for s, o in records if s == each.subject_id]
        assert each.object_aligned_with == [s for s, o in records if o == each.object_id]
        assert each.model == aligner.model_id
        near = {name for n in each.evidence.neighbours for name in (n.subject_neighbour, n.object_neighbour)}
        mentioned = near | {each.subject_id, each.object_id}
        mentioned |= {*each.subject_aligned_with, *each.object_aligned_with}
        assert each.names == {name: NAMES[name] for name in mentioned}
        if each.outcome == "below-threshold":
            assert each.score is not None and each.score < each.threshold


def test_every_way_not_to_be_aligned(aligned: tuple[Aligner, Topic]) -> None:
    aligner, topic = aligned
    assert ("left:f60", "right:f60") in topic.pairs() or ("left:f60", "right:twin") in topic.pairs()
    twins = [aligner.explain("left:f60", name)[0] for name in ("right:f60", "right:twin")]
    assert sorted(told.outcome for told in twins) == ["aligned", "better-partner"]
    loser = next(told for told in twins if told.outcome == "better-partner")
    winner = next(told for told in twins if told.outcome == "aligned")
    assert loser.subject_aligned_with == winner.subject_aligned_with == [winner.object_id]
    assert outcome(aligner, "left:f61", "right:f61") == "declared-different"
    assert outcome(aligner, "left:f62", "right:p1") == "aligned"  # a person says so, whatever their types
    assert outcome(aligner, "left:f64", "right:p2") == "types-differ"
    others = [
        each.object_id
        for each in aligner.explain("left:f65")
        if each.outcome in ("below-threshold", "better-partner", "aligned")
    ]
    stranger = next(f"right:f{n}" for n in range(120) if f"right:f{n}" not in others)
    assert outcome(aligner, "left:f65", stranger) == "not-a-candidate"
    [told] = aligner.explain("left:f65", stranger)
    assert told.score is not None  # what the model would have said
    assert not any(view.subject_rank or view.object_rank for view in told.views.values())
    [found] = aligner.explain("left:f66", "right:f66")
    assert any(view.object_rank == 1 and view.subject_rank == 1 for view in found.views.values())
    below = [e for n in range(60) for e in aligner.explain(f"left:f{n}") if e.outcome == "below-threshold"]
    assert below


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("left:f63", "right:f63"), "there is no left:f63: it was deleted"),
        (("left:f1", "right:nobody"), "there is no right:nobody in this state: it never came"),
        (("left:f1", "left:f2"), "are of one source"),
        (("f1",), "f1"),
    ],
)
def test_what_cannot_be_explained(aligned: tuple[Aligner, Topic], names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        aligned[0].explain(*names)
    result = explain(aligned[0], *names)
    assert (result.exit_code, result.stdout) == (1, "") and said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_worker_goes_on_meanwhile(aligned: tuple[Aligner, Topic]) -> None:
    aligner, _ = aligned

    def files() -> dict[Path, tuple[int, bytes]]:
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in state_of(aligner).rglob("*")
        }

    before = files()
    result = explain(aligner, "left:f70")
    assert result.exit_code == 0, result.output
    told = [msgspec.json.decode(line, type=Explanation) for line in result.stdout.splitlines()]
    assert told == aligner.explain("left:f70")
    assert files() == before


def test_no_candidates_is_said(aligned: tuple[Aligner, Topic]) -> None:
    result = explain(aligned[0], "left:lone")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "left:lone has no candidates" in result.stderr


def test_people_get_text(aligned: tuple[Aligner, Topic], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    [loser] = [
        (each.subject_id, each.object_id)
        for each in aligned[0].explain("left:f67")
        if each.verdict == "same" and each.outcome == "better-partner"
    ]
    titles = [shown(NAMES[name]) for name in ("left:f66", "right:f66")]
    near = film("left", 66).relations["directed_by"][0]
    for pair, said in [
        (("left:f66", "right:f66"), f"left:f66 ({titles[0]}) ~ right:f66 ({titles[1]}): aligned (score "),
        (("left:f66", "right:f66"), f": left:{near} ({NAMES[f'left:{near}']}) ~ right:{near} ("),
        (loser, "not aligned, as left:f67 is aligned with right:f6"),
        (loser, "; a person says the same (score "),
        (("left:f61", "right:f61"), "not aligned, a person says so (score "),
        (("left:f62", "right:p1"), "aligned, a person says so (no score)"),
        (("left:f64", "right:p2"), "not aligned, one is a film, one a person (no score)"),
    ]:
        monkeypatch.setattr(sys, "stdout", output := Terminal())
        arguments = ["explain", *pair, "--state", str(state_of(aligned[0]))]
        main.main(arguments, standalone_mode=False)
        assert said in output.getvalue()


def test_values_do_not_steer_a_terminal() -> None:
    assert shown("a\x1b[31m\nb") == "a\ufffd[31m\ufffdb"
    assert shown("é" * 5000) == "é" * 23 + "…"


def test_without_a_state_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["explain", "left:f1", "--state", str(tmp_path / "file")])
    assert result.exit_code == 1 and "/file: aligned.json: Not a directory" in result.stderr
    assert "delete" not in result.stderr
    result = CliRunner().invoke(main, ["explain", "f1", "--state", str(tmp_path / "none")])
    assert result.exit_code == 1 and "'f1' is not of the form source:id" in result.stderr
    result = CliRunner().invoke(main, ["explain", "left:f1", "--state", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "has no generation in force (CURRENT); name one that a worker has run with" in result.stderr
    assert not (tmp_path / "none").exists()
