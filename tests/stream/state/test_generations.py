"""Which generation is in force, which one is wanted, and what is left of the others."""

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from benchmarks.catalogues import catalogues
from index import tables
from index.errors import StateError
from index.store import Store
from model.checkpoint import load_model, save_model
from stream.atomic import write
from stream.config import AlignSettings, ModelSettings, Settings, StateSettings
from stream.engine.recipe import Recipe
from stream.mapping.canonical import as_messages, decode_canonical
from stream.state.generations import DERIVED, Generations, is_held, keep_model, read_current
from stream.state.wishes import Promotion


@pytest.fixture(scope="module")
def other(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with another threshold, which is another model."""
    directory = tmp_path_factory.mktemp("other")
    model = load_model(checkpoint)[1]
    save_model(directory, replace(model, threshold=model.threshold / 2))
    return directory


def generations(directory: Path, checkpoint: Path, align: AlignSettings | None = None) -> Generations:
    settings = Settings(
        state=StateSettings(dir=directory / "state"),
        model=ModelSettings(dir=checkpoint),
        align=align or AlignSettings(),
    )
    return Generations(settings, decode_canonical)


def test_the_first_one_is_made_with_what_the_settings_say(checkpoint: Path, tmp_path: Path) -> None:
    model_id, model = load_model(checkpoint)
    first = generations(tmp_path, checkpoint)
    assert read_current(first.directory) is None and not is_held(first.directory)
    with pytest.raises(StateError, match="no generation in force"):
        first.look()
    with closing(first), closing(first.open()) as aligner:
        assert aligner.model_id == model_id
        assert read_current(first.directory) == "generation-1" and is_held(first.directory)
        assert first.current == Recipe(model_id, model.threshold, True, "exact")
        with pytest.raises(StateError, match="in use by process"):
            generations(tmp_path, checkpoint).open()
    assert not is_held(first.directory)
    shutil.rmtree(first.directory / "generation-1")  # so it is to be rebuilt
    assert read_current(first.directory) is None


def test_it_stays_in_force_when_the_settings_change(checkpoint: Path, other: Path, tmp_path: Path) -> None:
    first = generations(tmp_path, checkpoint)
    with closing(first), closing(first.open()):
        recipe = first.current
    later = generations(tmp_path, other, AlignSettings(one_to_one=False))
    with closing(later), closing(later.open()) as aligner:
        assert later.current == recipe and aligner.model_id == recipe.model
        wanted = later.wanted().recipe
        assert wanted.model == load_model(other)[0] and not wanted.one_to_one


def test_a_promoted_model_is_wanted_until_the_settings_name_another(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    first = generations(tmp_path, checkpoint)
    with closing(first), closing(first.open()):
        promoted = keep_model(first.directory, other)
        write(first.directory / "promotion.json", Promotion(promoted, asked=5.0))
        wish = first.wanted()
        assert wish.recipe.model == promoted and wish.asked == 5.0
        assert wish.recipe.threshold == load_model(other)[1].threshold
    again = generations(tmp_path, checkpoint)
    with closing(again), closing(again.open()):
        assert again.wanted() == wish  # another start is no other wish
    later = generations(tmp_path, other)
    with closing(later), closing(later.open()):
        assert later.wanted().asked == 0.0
        assert not (later.directory / "promotion.json").exists()


@pytest.mark.parametrize(("search", "wanted"), [("auto", "cells"), ("exact", "exact")])
def test_what_outgrew_exact_search_does_not_go_back(
    checkpoint: Path, tmp_path: Path, search: str, wanted: str
) -> None:
    align = msgspec.convert({"search": search, "cells_from": 50}, AlignSettings)
    first = generations(tmp_path, checkpoint, align)
    with closing(first), closing(first.open()):
        assert first.wanted(49).recipe.search == "exact"
        assert first.wanted(50).recipe.search == wanted
        assert first.wanted(1).recipe.search == wanted


def test_the_next_one_begins_with_the_graph_and_nothing_that_a_model_made(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    first = generations(tmp_path, checkpoint)
    recipe = Recipe(load_model(other)[0], 0.5, False)
    with closing(first), closing(first.open()) as aligner:
        keep_model(first.directory, other)
        batch = aligner.process([*as_messages(catalogues(20))])
        while aligner.backlog:
            aligner.process([])
        assert batch.outputs
        partial = first.partial()
        aligner.copy_to(partial)
        name = first.begin(recipe, partial)
        assert name == "generation-2" and not partial.exists()
        assert read_current(first.directory) == "generation-1"
        with Store(first.directory / name) as store:
            made = {table for table in DERIVED for _ in store.scan(table)}
            assert made == {tables.WAITING}  # every entity
            assert len([*store.scan(tables.WAITING)]) == len([*store.scan(tables.ENTITIES)]) > 200
        with closing(first.aligner(name)) as second:
            assert second.backlog and second.origin.offsets() == aligner.origin.offsets()
        first.switch(name)
        assert read_current(first.directory) == name and first.current == recipe


def test_of_others_only_the_one_that_was_begun_as_wanted_stays(
    checkpoint: Path, other: Path, tmp_path: Path
) -> None:
    first = generations(tmp_path, checkpoint)
    with closing(first), closing(first.open()) as aligner:
        spare = keep_model(first.directory, other)
        wanted, unwanted = Recipe(spare, 0.5, True), Recipe(spare, 0.6, True)
        for recipe in (unwanted, wanted):
            partial = first.partial()
            aligner.copy_to(partial)
            begun = first.begin(recipe, partial)
            (first.directory / begun).rename(first.directory / f"generation-{recipe.threshold:.1f}")
        first.partial().mkdir()
        assert first.unfinished(wanted) == "generation-0.5"
        left = {path.name for path in first.directory.glob("generation-*")}
        assert left == {"generation-1", "generation-0.5"}
        first.clean()
        assert {path.name for path in first.directory.glob("generation-*")} == {"generation-1"}
        assert [path.name for path in (first.directory / "models").iterdir()] == [load_model(checkpoint)[0]]
