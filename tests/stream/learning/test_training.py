"""Training without links, and evaluation: what the commands `train` and `evaluate` show and write."""

import json
import random
import re
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from benchmarks.catalogues import FILMS, catalogues
from model.errors import ModelError
from model.training import TrainingOptions
from stream.cli import main
from stream.events import Upsert
from stream.learning.alignment import align
from stream.learning.evaluation import evaluate_model
from stream.learning.known_links import LinkPair
from stream.learning.self_training import NOISED, noised, train_without_links
from stream.learning.training import TrainedModel, train_model, weakness

LINKS = [(f"left:f{n}", f"right:f{n}") for n in range(60, FILMS)]
PEOPLE = [(f"left:p{n}", f"right:p{n}") for n in range(20)]


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalogues, links and a trained model."""
    directory = tmp_path_factory.mktemp("films")
    shutil.copytree(checkpoint, directory / "checkpoint")
    (directory / "all.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, catalogues())))
    rows = [f"{left},{right}" for left, right in [*LINKS, *PEOPLE]]
    (directory / "links.csv").write_text("\n".join(["left,right", *rows]))
    return directory


def run(folder: Path, *arguments: str) -> Result:
    files = [str(folder / "all.jsonl"), "--model", str(folder / "checkpoint")]
    return CliRunner().invoke(main, [*arguments[:1], *files, *arguments[1:]])


def test_names_that_are_clearly_alike_are_enough_to_learn_from(tmp_path: Path) -> None:
    options = TrainingOptions(epochs=(5, 5), batch=64)
    trained = train_without_links(catalogues(), tmp_path, k=3, options=options)
    assert trained.training_links > 40 and trained.valid_links > 10
    assert trained.report["valid_chance"] < 0.5 < trained.report["valid_prauc"] <= 1
    assert not weakness(trained.report)
    quality = evaluate_model(catalogues(), LINKS, tmp_path).quality
    assert quality.f1 > 0.85, quality


def test_types_without_links_are_aligned_too(checkpoint: Path) -> None:
    people = [r for r in align(catalogues(), checkpoint) if r.subject_id.startswith("left:p")]
    right = sum(r.subject_id == f"left:{r.object_id.removeprefix('right:')}" for r in people)
    assert len(people) > 85 and right > 85  # of 96


def test_learning_without_links_needs_names(tmp_path: Path) -> None:
    chance = random.Random(1)
    strangers = [
        replace_name(event, f"{chance.getrandbits(60):x}" if event.source == "left" else event.id)
        for event in catalogues()
    ]
    with pytest.raises(ModelError, match=r"name some links with --links"):
        train_without_links(strangers, tmp_path, k=3)


def firms(names: Sequence[str]) -> tuple[list[Upsert], list[LinkPair]]:
    """The same firms in two sources, with a name and nothing else; all but the last five are linked."""
    events = [
        Upsert(source, f"{n}", "firm", {"name": name}) for source in "ab" for n, name in enumerate(names)
    ]
    return events, [(f"a:{n}", f"b:{n}") for n in range(len(names) - 5)]


@pytest.mark.parametrize(
    "names",
    [
        [f"{a}{b} {b}{c}" for a, b, c in product(("Ruda", "Vipe", "Tami"), ("mine", "dalo", "ru"), "aeiou")],
        [4 * chr(ord("a") + n) for n in range(26)],  # no two have any letters in common
    ],
)
def test_equal_names_and_nothing_to_confuse_them_with_are_learned(tmp_path: Path, names: list[str]) -> None:
    events, links = firms(names)
    train_model(events, links, tmp_path, k=3, options=TrainingOptions(epochs=(5, 5)))
    pairs = {(record.subject_id, record.object_id) for record in align(events, tmp_path)}
    assert pairs == {(f"a:{n}", f"b:{n}") for n in range(len(names))}


def test_links_of_entities_that_have_nothing_in_common(tmp_path: Path) -> None:
    events, _ = firms([4 * chr(ord("a") + n) for n in range(26)])
    crossed = [(f"a:{n}", f"b:{(n + 1) % 26}") for n in range(26)]
    with pytest.raises(ModelError, match=r"training: none of the links is among the \d+ candidate pairs"):
        train_model(events, crossed, tmp_path, k=3)


def replace_name(entity: Upsert, name: str) -> Upsert:
    return Upsert(entity.source, entity.id, entity.type, {"title": name}, {})


def test_noise_depends_on_the_entity_and_the_seed_alone() -> None:
    entities = catalogues()
    once = {(e.source, e.id): e for e in noised(entities, 1)}
    again = {(e.source, e.id): e for e in noised(reversed(entities), 1)}
    assert once == again
    share = sum(once[e.source, e.id] != e for e in entities) / len(entities)
    assert 0.5 * NOISED < share < NOISED + 0.1
    assert once != {(e.source, e.id): e for e in noised(entities, 2)}


def test_evaluation_by_type_adds_up(folder: Path) -> None:
    evaluation = evaluate_model(catalogues(), [*LINKS, *PEOPLE], folder / "checkpoint")
    assert list(evaluation.types) == ["film", "person"]
    assert [part.links for part in evaluation.types.values()] == [len(LINKS), len(PEOPLE)]
    assert true_pairs(evaluation.quality.links, evaluation.quality.recall) == sum(
        true_pairs(part.links, part.recall) for part in evaluation.types.values()
    )


def true_pairs(links: int, recall: float) -> int:
    return round(links * recall)


def test_links_between_entities_without_candidates_are_told(tmp_path: Path) -> None:
    """One source has names and the other one numbers."""
    events = [Upsert("left", f"f{n}", "film", {"name": f"Rain {n}"}) for n in range(20)]
    events += [Upsert("right", f"f{n}", "film", {"year": 1900 + n}) for n in range(20)]
    links = [(f"left:f{n}", f"right:f{n}") for n in range(20)]
    with pytest.raises(ModelError, match="none of the links is among the 0 candidate pairs"):
        train_model(events, links, tmp_path / "checkpoint")


def test_links_of_missing_entities_are_lost_recall(folder: Path) -> None:
    known = evaluate_model(catalogues(), LINKS, folder / "checkpoint").quality
    lost = [*LINKS, ("left:nobody", "right:f1"), ("left:f1", "right:nobody")]
    quality = evaluate_model(catalogues(), lost, folder / "checkpoint").quality
    assert quality.links == known.links + 2
    assert quality.retrieval_recall < known.retrieval_recall


def test_in_the_open_world_what_has_no_partner_is_no_lost_recall(folder: Path) -> None:
    found = evaluate_model(catalogues(), [*LINKS, *PEOPLE], folder / "checkpoint", alone=0.4)
    assert found.links_missing == 0
    assert 20 <= found.alone <= 44  # of 80
    assert found.quality.links == 80 - found.alone
    assert found.to_json()["world"] == "open"
    assert found.quality.recall > 0.8 and found.quality.precision > 0.8
    closed = evaluate_model(catalogues(), [*LINKS, *PEOPLE], folder / "checkpoint")
    assert (closed.alone, closed.to_json()["world"]) == (0, "closed")
    assert closed.quality.precision >= found.quality.precision  # what is left out can no longer be right


def test_evaluate_prints_every_type_and_writes_curves(folder: Path) -> None:
    page = folder / "curves.html"
    shown = run(folder, "evaluate", "--links", str(folder / "links.csv"), "--plot", str(page))
    assert shown.exit_code == 0, shown.output
    assert re.search(r"^film +60 ", shown.stdout, re.M) and re.search(r"^person +20 ", shown.stdout, re.M)
    html = page.read_text()
    assert html.count("<svg") == 2 and html.count("<polyline") == 4
    assert not re.search(r"https?://|<script", html)
    places = [float(n) for n in re.findall(r'(?<=[ ",])\d+\.\d(?=[, "])', html)]
    assert places and max(places) <= 460


def test_evaluate_as_json_has_the_types(folder: Path) -> None:
    both = [
        json.loads(run(folder, "evaluate", "--links", str(folder / "links.csv"), "--json", how).stdout)
        for how in ("--one-to-one", "--many-to-many")
    ]
    assert [found["one_to_one"] for found in both] == [True, False]
    assert both[0]["types"].keys() == {"film", "person"}
    assert both[0]["recall"] <= both[1]["recall"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["train", "--links", "links.csv", "--no-links"], "--no-links"),
        (["train", "--no-links", "--seed", "-1"], "--seed"),
        (["train", "--no-links", "--seed", str(2**32)], "--seed"),
    ],
)
def test_mistakes_are_told(folder: Path, arguments: list[str], problem: str) -> None:
    refused = run(folder, *arguments)
    assert refused.exit_code == 2
    assert problem in refused.output


@pytest.mark.parametrize("model", ["links.csv", "links.csv/model", "/proc/none/model"])
def test_an_unwritable_model_is_refused_before_training(
    folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.learning.self_training.train_without_links", pytest.fail)
    refused = run(folder, "train", "--no-links", "--model", str(folder / model))
    assert refused.exit_code == 1
    assert re.search(f"error: --model .*{model}: cannot be written: ", refused.stderr)


def test_links_that_name_nothing_are_counted(folder: Path, tmp_path: Path) -> None:
    """16-links-that-name-nothing, and links between two types, which are never candidates."""
    rows = ["left:f60,right:f60", "left:f61 , right:f61", "left:x,right:f62", "left:f63,right:gone"]
    rows += ["left:f64,right:p1", "left:f60,right:f60", "left:f65,right:f60"]
    (tmp_path / "links.csv").write_text("\n".join(["left,right", *rows]))
    found = run(folder, "evaluate", "--links", str(tmp_path / "links.csv"))
    assert found.exit_code == 0
    assert re.search(r"^links +6\nlinks missing +2$", found.stdout, re.M)
    assert "2 of 7 links name entities that do not exist, first left:x in links.csv:4" in found.stderr
    assert "1 of 7 links join entities of two types, which are never candidates, first left:f64 (film) ~" in (
        found.stderr
    )
    assert "1 of 7 links join an entity with one more of a source" in found.stderr
    assert "first right:f60 ~ left:f60, left:f65 in links.csv:8" in found.stderr
    for command in ("evaluate", "train"):
        refused = run(folder, command, "--links", str(tmp_path / "links.csv"), "--strict")
        assert refused.exit_code == 1 and not refused.stdout
        assert "error: --strict: 2 links missing, 1 links types differ" in refused.stderr


@pytest.mark.parametrize(
    ("command", "status", "problem"),
    [
        ("evaluate --links no.csv", 1, "no.csv cannot be read: No such file or directory"),
        ("train --links no.csv", 1, "no.csv cannot be read: No such file or directory"),
        ("train --links links.csv --valid no.csv", 1, "no.csv cannot be read: No such file or directory"),
        ("evaluate --links links.csv --model no", 1, "no: no model.json"),
        ("align --model no", 1, "no: no model.json"),
        ("align all.csv", 1, "all.csv: FILES are canonical events in .jsonl; without FILES those of the map"),
        ("train", 2, "--no-links"),
        ("evaluate --links links.csv --plot page.png", 2, "an .html file is written"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, status: int, problem: str
) -> None:
    monkeypatch.setattr("stream.catalogue.reading.read_files", pytest.fail)
    monkeypatch.chdir(folder)
    files = [] if "all.csv" in command else ["all.jsonl"]
    refused = CliRunner().invoke(main, [*command.split(), *files])
    assert refused.exit_code == status and problem in refused.stderr


def retyped(folder: Path, *types: str) -> None:
    """The right catalogue's films, and its people, are called otherwise."""
    names = dict(zip(("film", "person"), types, strict=True))
    events = [
        msgspec.structs.replace(event, type=names[event.type]) if event.source == "right" else event
        for event in catalogues()
    ]
    (folder / "all.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, events)))


@pytest.mark.parametrize(
    "command", ["align", "train --no-links", "train --links links", "evaluate --links links"]
)
def test_types_that_all_differ_are_an_error_everywhere(folder: Path, tmp_path: Path, command: str) -> None:
    """17-types-differ."""
    retyped(tmp_path, "movie", "human")
    shutil.copytree(folder / "checkpoint", tmp_path / "checkpoint")
    words = [str(folder / "links.csv") if word == "links" else word for word in command.split()]
    refused = run(tmp_path, *words)
    assert refused.exit_code == 1 and not refused.stdout
    told = "error: no two sources have entities of one type; give matching types one name"
    assert f"{told} (left has film, person; right has human, movie)" in refused.stderr


def test_types_that_only_one_source_has_are_named(folder: Path, tmp_path: Path) -> None:
    retyped(tmp_path, "movie", "person")
    shutil.copytree(folder / "checkpoint", tmp_path / "checkpoint")
    options = ["--state", str(tmp_path / "aligned"), "--account", str(tmp_path / "account.json")]
    done = run(tmp_path, "align", *options)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) > 80
    assert "types of left which no other source has: film; only entities of one type" in done.stderr
    found = json.loads((tmp_path / "account.json").read_bytes())
    assert found["lone_types"] == {"left": ["film"], "right": ["movie"]} and not found["problems"]


def test_a_model_that_knows_nothing_is_warned_of_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weak = {"seconds": 1.0, "valid_prauc": 0.006, "valid_chance": 0.002, "valid_retrieved": 0.19}

    def train_weakly(*_: object, **__: object) -> TrainedModel:
        return TrainedModel("id", 10, 3, weak, None)

    monkeypatch.setattr("stream.learning.self_training.train_without_links", train_weakly)
    done = run(folder, "train", "--no-links")
    assert done.exit_code == 0 and json.loads(done.stdout)["valid_prauc"] == 0.006
    last = done.stderr.splitlines()[-1]
    assert "warning: the model knows nothing: its PRAUC on the validation links is 0.006" in last
    assert "19% of these links are among the candidates" in last
    done = run(folder, "train", "--no-links", "--strict")
    assert done.exit_code == 1 and "error: --strict: 1 weak model" in done.stderr
    assert weakness({**weak, "valid_prauc": 0.4}).startswith("the model is weak: its PRAUC")
    assert not weakness({**weak, "valid_prauc": 0.5})
