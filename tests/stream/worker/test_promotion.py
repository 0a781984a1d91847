"""Generations: built beside the one in force, switched in one step, never mixed."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import Result
from prometheus_client import generate_latest

from benchmarks.catalogues import catalogues, film
from index.errors import StateError
from model.checkpoint import load_model, save_model
from model.errors import ModelError
from stream.atomic import write
from stream.broker.ranges import Range, find_ranges, read_ranges
from stream.broker.reading import read_topic
from stream.broker.topics import ensure_topics
from stream.catalogue.feeding import feed_events
from stream.config import AlignSettings, ModelSettings, Settings, StateSettings
from stream.consuming.alignments import current_alignments, decode_event
from stream.engine import outbox
from stream.engine.aligner import Aligner
from stream.engine.interface import Batch, Output, Search
from stream.engine.recipe import Recipe
from stream.errors import BrokerError
from stream.events import (
    AlignmentEvent,
    AlignmentRecord,
    Cause,
    Delete,
    EntityEvent,
    Link,
    Message,
    alignment_key,
)
from stream.mapping.canonical import decode_canonical
from stream.mapping.decoder import make_decoder
from stream.state.generations import Generations, keep_model, read_current
from stream.state.wishes import BuildProgress, Promotion, Wish
from stream.worker import promotion
from stream.worker.metrics import Metrics
from stream.worker.pipeline import Pipeline
from stream.worker.promotion import Promoter, _behind
from stream.worker.publisher import Placed
from tests.stream.workers import (
    DONE_SECONDS,
    Process,
    cli_environment,
    command,
    fetch,
    produce,
    sameas,
    until,
)

MORTAL = Path(__file__).with_name("mortal_promotion.py")


def dateless(values: Iterable[tuple[bytes, bytes]]) -> dict[str, AlignmentRecord]:
    return {
        key.decode(): msgspec.structs.replace(
            msgspec.json.decode(value, type=AlignmentRecord), mapping_date=""
        )
        for key, value in values
    }


def messages(events: Iterable[EntityEvent]) -> list[Message]:
    return [
        Message(Cause("t", 0, number), None, msgspec.json.encode(event), float(number))
        for number, event in enumerate(events)
    ]


def apply(aligner: Aligner, inputs: Sequence[Message]) -> list[Output]:
    """Everything, drained; what is published."""
    batches = [aligner.process(inputs)]
    while batches[-1].backlog:
        batches.append(aligner.process([]))
    aligner.published(batches[-1].sequence)
    return [output for batch in batches for output in batch.outputs]


def settings_of(directory: Path, checkpoint: Path, threshold: float | None = None) -> Settings:
    return Settings(
        state=StateSettings(dir=directory / "state"), model=ModelSettings(dir=checkpoint, threshold=threshold)
    )


def built(generations: Generations, former: Aligner) -> tuple[str, Aligner]:
    """The wanted generation, drained, and nothing of it published."""
    partial = generations.partial()
    former.copy_to(partial)
    name = generations.begin(generations.wanted().recipe, partial)
    aligner = generations.aligner(name)
    apply(aligner, [])
    return name, aligner


STREAM: list[EntityEvent] = [
    *catalogues(60),
    *(Delete(source="left", id=f"f{n}") for n in range(3)),
    film("left", 70),
]


def test_a_generation_is_what_a_fresh_run_makes(checkpoint: Path, worse: Path, tmp_path: Path) -> None:
    fresh = Aligner(tmp_path / "fresh", worse, decode_canonical)
    generations = Generations(settings_of(tmp_path, checkpoint), decode_canonical)
    first = generations.open()
    with closing(fresh), closing(first), closing(generations):
        apply(fresh, messages(STREAM))
        apply(first, messages(STREAM)[:250])
        promote(tmp_path / "state", worse)
        _, second = built(generations, first)
        with closing(second):
            late = messages(STREAM)[250:]
            apply(first, late)
            apply(second, late)
            assert dateless(second.records()) == dateless(fresh.records())
            assert dateless(first.records()) != dateless(fresh.records())


def test_a_partition_that_came_later_is_caught_up_with(checkpoint: Path, tmp_path: Path) -> None:
    """A topic may get partitions while a worker runs, and a copy of its state may be older than they are."""
    one = Aligner(tmp_path / "one", checkpoint, decode_canonical)
    one.process(messages(STREAM[:10]))
    one.copy_to(tmp_path / "other")
    late = [Message(Cause("t", 1, n), None, m.value, 0.0) for n, m in enumerate(messages(STREAM[10:13]))]
    one.process([*messages(STREAM[:12]), *late])
    other = Aligner(tmp_path / "other", checkpoint, decode_canonical)
    with closing(one), closing(other):
        assert set(_behind(other, one.origin.offsets())) == {Range("t", 0, 10, 12), Range("t", 1, 0, 3)}


def test_what_differs_is_published_and_nothing_else(checkpoint: Path, worse: Path, tmp_path: Path) -> None:
    generations = Generations(settings_of(tmp_path, checkpoint), decode_canonical)
    first = generations.open()
    topic: dict[bytes | None, bytes] = {}
    with closing(first), closing(generations):
        fold(topic, apply(first, messages(STREAM)))
        before = dateless(first.records())
        promote(tmp_path / "state", worse)
        name, second = built(generations, first)
        with closing(second):
            assert not list(second.pending())
            second.supersede(first, name)
            again = [output for batch in second.pending() for output in batch.outputs]
            changed = second.supersede(first, name).changed
            outputs = [output for batch in second.pending() for output in batch.outputs]
            assert [ids(output) for output in again] == [ids(output) for output in outputs]
            fold(topic, outputs)
            after = dateless(second.records())
            assert dateless((key or b"", value) for key, value in topic.items()) == after
            events = [decode(output) for output in outputs if output.kind == "alignment_events"]
            assert len(events) == changed
            kinds = {event.event: set[str]() for event in events}
            for event in events:
                kinds[event.event].add(f"{event.subject_id}|{event.object_id}")
            assert kinds["withdrawn"] == before.keys() - after.keys() != set()
            assert kinds["revised"] == before.keys() & after.keys() != set()
            assert kinds.get("aligned", set()) == after.keys() - before.keys()
            assert {event.model for event in events} == {load_model(worse)[0]}
            # back and there again is another change, and another event
            first.supersede(second, "generation-3")
            second.supersede(first, "generation-4")
            later = [output for batch in second.pending() for output in batch.outputs]
            assert not {ids(output) for output in later} & {ids(output) for output in outputs if ids(output)}


def ids(output: Output) -> str:
    return dict(output.headers).get("ce_id", b"").decode()


def decode(output: Output) -> AlignmentEvent:
    return msgspec.json.decode(output.value or b"", type=AlignmentEvent)


def fold(topic: dict[bytes | None, bytes], outputs: Iterable[Output]) -> None:
    for output in outputs:
        if output.kind == "alignments" and output.value is None:
            del topic[output.key]
        elif output.kind == "alignments":
            topic[output.key] = output.value or b""


def promote(state: Path, checkpoint: Path, asked: float = 0.0, most: float | None = None) -> None:
    """As the command does."""
    write(state / "promotion.json", Promotion(keep_model(state, checkpoint), asked, max_withdrawn=most))
    keep_model(state, checkpoint)


def test_the_newest_wish_counts(checkpoint: Path, worse: Path, tmp_path: Path) -> None:
    """A promotion counts until the settings name another model."""
    good, bad = load_model(checkpoint)[0], load_model(worse)[0]

    def opened(model: Path, threshold: float | None = None) -> tuple[str, str, float]:
        generations = Generations(settings_of(tmp_path, model, threshold), decode_canonical)
        with closing(generations), closing(generations.open()):
            wanted = generations.wanted().recipe
            return generations.current.model, wanted.model, wanted.threshold

    own = load_model(checkpoint)[1].threshold
    assert opened(checkpoint) == (good, good, own)
    assert opened(checkpoint, 0.5) == (good, good, 0.5)
    promote(tmp_path / "state", worse)
    assert opened(checkpoint)[:2] == (good, bad)
    assert opened(checkpoint, 0.75) == (good, bad, 0.75)
    assert opened(worse)[:2] == (good, bad)  # the settings follow
    assert opened(checkpoint)[:2] == (good, good)  # and are changed back: newer than the promotion
    assert not (tmp_path / "state" / "promotion.json").exists()


def test_auto_goes_from_exact_to_cells_and_not_back(checkpoint: Path, tmp_path: Path) -> None:
    def settings(**align: Any) -> Settings:
        return msgspec.structs.replace(
            settings_of(tmp_path, checkpoint), align=AlignSettings(cells_from=50, **align)
        )

    generations = Generations(settings(), decode_canonical)
    with closing(generations), closing(generations.open()) as first:
        assert generations.current.search == "exact"
        searches = [generations.wanted(searched).recipe.search for searched in (0, 49, 50, 3)]
        assert searches == ["exact", "exact", "cells", "cells"]
        name, second = built(generations, first)
        second.close()
        generations.switch(name)
    for asked, wanted in (("auto", "cells"), ("exact", "exact"), ("cells", "cells")):
        generations = Generations(settings(search=asked), decode_canonical)
        with closing(generations), closing(generations.open()):
            assert (generations.current.search, generations.wanted().recipe.search) == ("cells", wanted)


def test_a_state_is_refused_or_begun_anew(checkpoint: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, checkpoint)

    def opened() -> None:
        generations = Generations(settings, decode_canonical)
        try:
            generations.open().close()
        finally:
            generations.close()

    first = Generations(settings, decode_canonical)
    with closing(first), closing(first.open()), pytest.raises(StateError, match="in use by process"):
        opened()
    opened()
    recipe = tmp_path / "state" / "generation-1" / "recipe.json"
    good = recipe.read_bytes()
    outside = good.replace(load_model(checkpoint)[0].encode(), b"../../elsewhere")
    for corrupt in (b"{", b'{"model":"\xff"}', b'{"x":' + b"[" * 5000, outside):
        recipe.write_bytes(corrupt)
        with pytest.raises(StateError, match=r"recipe\.json: .*delete the directory to rebuild"):
            opened()
    recipe.write_bytes(good)
    write(tmp_path / "state" / "promotion.json", Promotion("../../elsewhere"))
    generations = Generations(settings, decode_canonical)
    with (
        closing(generations),
        closing(generations.open()),
        pytest.raises(StateError, match=r"promotion\.json"),
    ):
        generations.wanted()
    write(tmp_path / "state" / "CURRENT", "../elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(StateError, match=r"CURRENT names no generation; delete the directory to rebuild"):
        opened()
    (tmp_path / "state" / "rocksdb").mkdir()
    with pytest.raises(StateError, match="written by an earlier version"):
        opened()
    settings = settings_of(tmp_path / "other", tmp_path / "nothing")
    with pytest.raises(ModelError, match="no model"):
        opened()


# ---------------------------------------------------------------------- with a worker


def worker(settings: Settings, checkpoint: Path, log: Path, kill_at: str = "", **more: str) -> Process:
    environment = cli_environment(settings, model__dir=str(checkpoint), align__batch_size="20", **more)
    if not kill_at:
        return sameas("run", log=log, **environment)
    return Process([sys.executable, str(MORTAL), kill_at, "run"], log, **environment)


def model_command(settings: Settings, checkpoint: Path, *words: str) -> Result:
    return command(settings, "model", *words, model__dir=str(checkpoint))


def truth(
    settings: Settings, checkpoint: Path, directory: Path, search: Search = "exact"
) -> dict[str, AlignmentRecord]:
    """What an undisturbed run with this model alone makes of the topics."""
    decode = make_decoder({}, settings.topics.entities, settings.topics.links)
    with closing(Aligner(directory, checkpoint, decode, search=search)) as aligner:
        apply(aligner, list(read_ranges(settings, find_ranges(settings, None, None))))
        return dateless(aligner.records())


def published(settings: Settings) -> dict[str, AlignmentRecord]:
    return {
        key: msgspec.structs.replace(record, mapping_date="")
        for key, record in current_alignments(settings).items()
    }


def models(settings: Settings) -> list[str]:
    """Whose events follow whose in the log, repetitions left out."""
    log = [decode_event(record).model for record in read_topic(settings, settings.topics.alignment_events)]
    return [model for number, model in enumerate(log) if number == 0 or log[number - 1] != model]


@pytest.mark.slow
@pytest.mark.parametrize("last_kill", ["switched", "published"])
def test_promoted_and_back_while_events_flow_and_workers_die(
    settings: Settings, checkpoint: Path, worse: Path, tmp_path: Path, last_kill: str
) -> None:
    """Tries to make two generations mix: what goes out is of one model, then the other, then the first."""
    good, bad = load_model(checkpoint)[0], load_model(worse)[0]
    # in turns, people first: taken from the end, each part brings both sides of something
    sides = [[entity for entity in catalogues() if entity.source == side] for side in ("left", "right")]
    stream = [entity for pair in zip(*sides, strict=True) for entity in pair][::-1]
    stream += [Delete(source="left", id=f"f{n}") for n in range(8)]
    parts = [stream[at : at + 90] for at in range(0, len(stream), 90)]
    ensure_topics(settings)
    verdict = Link(left="left:f9", right="right:f10", verdict="same")
    produce(settings, settings.topics.links, [(b"left:f9|right:f10", msgspec.json.encode(verdict))])
    feed_events(settings, parts.pop())
    feed_events(settings, parts.pop())
    # killed while it builds; should it be quick, then before it switches
    with worker(settings, checkpoint, tmp_path / "1.log", "switch") as first:
        first.wait_for("ready: ")
        until(lambda: read_current(settings.state.dir), "a generation", first)
        first.wait_for("is what this state says")
        promoted = model_command(
            settings, checkpoint, "promote", str(worse), "--no-wait", "--max-withdrawn", "1"
        )
        assert promoted.exit_code == 0
        first.wait_for("building beside the generation in force")
        feed_events(settings, parts.pop())
        first.end(signal.SIGKILL)
    assert read_current(settings.state.dir) == "generation-1"
    for kill_at, in_force in (("switch", "generation-1"), (last_kill, "generation-2")):
        with worker(settings, checkpoint, tmp_path / f"{kill_at}.log", kill_at) as second:
            assert second.wait() == -signal.SIGKILL, second.text
        assert read_current(settings.state.dir) == in_force
        assert models(settings) == ([good, bad] if kill_at == "published" else [good])
    with worker(settings, checkpoint, tmp_path / "3.log", metrics__port="0") as third:
        address = third.wait_for(r"http://127\.0\.0\.1:\d+")
        feed_events(settings, parts.pop())
        expected = truth(settings, worse, tmp_path / "worse")
        until(lambda: published(settings) == expected, "the truth", third)
        assert models(settings) == [good, bad]
        assert f"in force: model {bad}" in fetch(f"{address}/readyz")
        assert f'model="{bad}"' in fetch(f"{address}/metrics")
        told = json.loads(model_command(settings, checkpoint, "status", "--json").stdout)
        assert (told["in_force"]["model"], told["promoted"], told["worker"]) == (bad, bad, True)
        back = model_command(settings, checkpoint, "promote", str(checkpoint))
        assert back.exit_code == 0 and f"in force: model {good}" in back.stderr
        feed_events(settings, parts.pop())
        expected = truth(settings, checkpoint, tmp_path / "good")
        until(lambda: published(settings) == expected, "the truth", third)
        assert models(settings) == [good, bad, good]
        until(lambda: generations_in(settings) == ["generation-3"], "clean state", third)
        assert third.end() == 0
    assert told_by_events(settings) == published(settings).keys()


def told_by_events(settings: Settings) -> set[str]:
    """The pairs that are aligned according to the log, for a reader that drops the ids that it has seen."""
    seen: set[str] = set()
    aligned: set[str] = set()
    for record in read_topic(settings, settings.topics.alignment_events):
        event = decode_event(record)
        if event.event_id not in seen:
            seen.add(event.event_id)
            pair = alignment_key(event.subject_id, event.object_id)
            (aligned.discard if event.event == "withdrawn" else aligned.add)(pair)
    return aligned


def generations_in(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.state.dir.glob("generation-*"))


@pytest.mark.slow
def test_changed_settings_are_built_beside(
    embedded_settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    feed_events(settings, catalogues(20))
    with worker(settings, checkpoint, tmp_path / "1.log") as first:
        first.wait_for("is what this state says")
        assert first.end() == 0
        assert "can be read by other users" not in first.text
    for path in (settings.state.dir, *settings.state.dir.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    settings.state.dir.chmod(0o750)
    before = published(settings)
    threshold = f"{sorted(record.confidence for record in before.values())[len(before) // 3]:.4f}"
    with worker(settings, checkpoint, tmp_path / "2.log", model__threshold=threshold) as stopped:
        stopped.wait_for("building beside")
        assert "state can be read by other users of this machine (mode 750)" in stopped.text
        assert stopped.end() == 0
    with worker(settings, checkpoint, tmp_path / "3.log", model__threshold=threshold) as second:
        second.wait_for(rf"in force: model \w+, threshold {threshold}")
        after = {key: record for key, record in before.items() if record.confidence >= float(threshold)}
        assert 0 < len(after) < len(before)
        until(lambda: published(settings) == after, "fewer alignments", second)
        assert second.end() == 0


@pytest.mark.slow
def test_a_catalogue_that_grows_out_of_exact_search_gets_cells(
    embedded_settings: Settings, checkpoint: Path, tmp_path: Path
) -> None:
    settings = embedded_settings
    ensure_topics(settings)
    stream = catalogues(30)
    with worker(settings, checkpoint, tmp_path / "1.log", align__cells_from="25", metrics__port="0") as first:
        address = first.wait_for(r"http://127\.0\.0\.1:\d+")
        first.wait_for("is what this state says")
        feed_events(settings, [entity for entity in stream if entity.type == "film"][:20])
        expected = truth(settings, checkpoint, tmp_path / "exact")
        until(lambda: published(settings) == expected, "the truth", first)
        assert "search in cells" not in first.text
        feed_events(settings, stream)
        first.wait_for(r"in force: model \w+, threshold [\d.]+, one to one, search in cells")
        feed_events(settings, [Delete(source="left", id=f"f{n}") for n in range(20)])
        expected = truth(settings, checkpoint, tmp_path / "cells", "cells")
        until(lambda: published(settings) == expected, "the truth", first)
        gauge = 'sameas_retrieval_recall{view="name"}'
        until(lambda: gauge in fetch(f"{address}/metrics"), gauge, first)
        until(lambda: generations_in(settings) == ["generation-2"], "clean state", first)
        assert first.end() == 0
    with worker(settings, checkpoint, tmp_path / "2.log", align__cells_from="25") as again:
        again.wait_for("is what this state says")
        assert again.end() == 0
        assert "building beside" not in again.text


def test_mistakes_with_models(
    embedded_settings: Settings, checkpoint: Path, worse: Path, tmp_path: Path
) -> None:
    settings = embedded_settings
    outcome = model_command(settings, checkpoint, "promote", str(worse))
    assert outcome.exit_code == 1 and "no worker has run with it yet" in outcome.stderr
    generations = Generations(
        msgspec.structs.replace(settings, model=ModelSettings(dir=checkpoint)), decode_canonical
    )
    generations.open().close()
    generations.close()
    outcome = model_command(settings, checkpoint, "promote", str(tmp_path / "nowhere"))
    assert outcome.exit_code == 1 and "nowhere: no model.json" in outcome.stderr
    model = load_model(worse)[1]
    save_model(tmp_path / "other", replace(model, options={**model.options, "k": 0}))
    outcome = model_command(settings, checkpoint, "promote", str(tmp_path / "other"))
    assert outcome.exit_code == 1 and len(outcome.stderr.splitlines()) == 1
    assert "other: not a usable model: options.k: Expected `int` >= 1; train it again" in outcome.stderr
    assert not (settings.state.dir / "promotion.json").exists()
    outcome = model_command(settings, checkpoint, "promote", str(worse))
    assert outcome.exit_code == 0 and "no worker runs with" in outcome.stderr
    assert "no worker runs" in model_command(settings, checkpoint, "status").stdout


def test_promote_says_why_it_was_refused(
    checkpoint: Path, worse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, checkpoint)
    generations = Generations(settings, decode_canonical)
    wish = Wish(Recipe(load_model(worse)[0], 0.5, True), asked=5.0)
    monkeypatch.setattr("stream.commands.model.time", SimpleNamespace(time=lambda: 5.0))
    with closing(generations), closing(generations.open()):  # as a worker
        generations.report(BuildProgress(wish, "failed", error="it withdraws too much"))
        outcome = model_command(settings, checkpoint, "promote", str(worse), "--max-withdrawn", "0.25")
        assert outcome.exit_code == 1
        assert f"{wish.recipe.model} was not put in force: it withdraws too much" in outcome.stderr
        assert generations.wanted().max_withdrawn == 0.25
        outcome = model_command(settings, checkpoint, "status")
        assert re.search("last build .* failed, it withdraws too much", outcome.stdout)


def test_what_a_crash_left_is_cleaned_up(checkpoint: Path, worse: Path, tmp_path: Path) -> None:
    generations = Generations(settings_of(tmp_path, checkpoint), decode_canonical)
    with closing(generations), closing(generations.open()) as first:
        promote(tmp_path / "state", worse)
        recipe = generations.wanted().recipe
        name, second = built(generations, first)
        second.close()
        (tmp_path / "state" / "generation-7").mkdir()
        (tmp_path / "state" / "generation-8.partial").mkdir()
        assert generations.unfinished(recipe) == name == "generation-2"
        assert sorted(path.name for path in (tmp_path / "state").glob("gen*")) == ["generation-1", name]
        assert generations.unfinished(generations.current) is None
        assert [path.name for path in (tmp_path / "state").glob("gen*")] == ["generation-1"]


# ---------------------------------------------------------------------- what is not put in force


@contextlib.asynccontextmanager
async def promoting(settings: Settings) -> AsyncIterator[tuple[Promoter, Pipeline, list[Output]]]:
    """A worker without a broker, on a state: what follows promotions, and what was published."""
    sent: list[Output] = []

    async def send(outputs: Sequence[Output]) -> list[Placed]:
        sent.extend(outputs)
        return []

    generations = Generations(settings, decode_canonical)
    with ThreadPoolExecutor(1) as thread:
        metrics = Metrics()
        pipeline = Pipeline(thread.submit(generations.open).result(), thread, settings.topics, metrics)
        await (await pipeline.step(messages(STREAM), send, bulk=True))
        while pipeline.backlog:
            await (await pipeline.step([], send, bulk=True))
        promoter = Promoter(generations, pipeline, settings, metrics, lambda: True, lambda: send)
        running = asyncio.create_task(promoter.run())
        try:
            async with asyncio.timeout(DONE_SECONDS):
                yield promoter, pipeline, sent
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            await pipeline.close()
            generations.close()


async def soon(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def until_told(promoter: Promoter, told: str) -> None:
    await soon(lambda: told in promoter.status())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """For tests of a promotion without a broker: nothing comes while it is built."""
    monkeypatch.setattr(promotion, "read_ranges", lambda *_: iter(()))
    monkeypatch.setattr(promotion, "POLL_SECONDS", 0.01)
    return monkeypatch


@pytest.fixture(scope="module")
def strict(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that accepts hardly any pair."""
    directory = tmp_path_factory.mktemp("strict")
    save_model(directory, replace(load_model(checkpoint)[1], threshold=1.0))
    return directory


def test_one_that_withdraws_too_much_leaves_the_old_one(
    checkpoint: Path, strict: Path, tmp_path: Path, alone: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, checkpoint)
    state, good, bad = settings.state.dir, load_model(checkpoint)[0], load_model(strict)[0]
    begun, begin = 0, Generations.begin

    def counted(self: Generations, recipe: Recipe, copied: Path) -> str:
        nonlocal begun
        begun += 1
        return begin(self, recipe, copied)

    def refused(promoter: Promoter) -> bool:
        told = rf"model {bad}, .* was refused: it would withdraw (\d+) of \1 alignments"
        return re.search(told, promoter.status()) is not None

    alone.setattr(Generations, "begin", counted)

    async def run() -> None:
        async with promoting(settings) as (promoter, pipeline, sent):
            before = len(sent)
            assert before > 100
            promote(state, strict)
            await soon(lambda: refused(promoter))
            assert f"in force: model {good}" in promoter.status()
            assert "sameas_promotion_refused 1.0" in exposed(promoter)
            assert 'sameas_promotions_total{outcome="failed"} 1.0' in exposed(promoter)
            await pipeline.step(messages(STREAM[:5]), promoter._send(), bulk=False)  # it goes on
            assert len(sent) == before
        async with promoting(settings) as (promoter, pipeline, sent):
            await soon(lambda: refused(promoter))  # at the next start that is known, not tried
            assert begun == 1 and "sameas_promotion_refused 1.0" in exposed(promoter)
            promote(state, checkpoint)  # the wish is taken back
            await soon(lambda: not refused(promoter))
            assert "sameas_promotion_refused 0.0" in exposed(promoter)
            promote(state, strict, asked=2.0, most=1.0)
            await until_told(promoter, f"in force: model {bad}")
            await soon(lambda: [o.value for o in sent if o.kind == "alignments"].count(None) >= 100)

    asyncio.run(run())


def exposed(promoter: Promoter) -> str:
    return generate_latest(promoter._metrics.registry).decode()


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (ModelError("it does not fit"), True),
        (RuntimeError("a defect\nof two lines"), True),
        (MemoryError(), True),
        (StateError("the disk is full"), False),  # by the next start it may not be
    ],
)
def test_one_that_cannot_be_built_leaves_the_old_one(
    checkpoint: Path,
    worse: Path,
    tmp_path: Path,
    alone: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    lasting: bool,
) -> None:
    settings, tried = settings_of(tmp_path, checkpoint), 0

    def begin(*_: object) -> str:
        nonlocal tried
        tried += 1
        raise error

    async def run() -> None:
        for starts in (1, 2):
            async with promoting(settings) as (promoter, pipeline, _):
                promote(settings.state.dir, worse)
                await until_told(promoter, "was refused")
                assert promoter.status().count("\n") == 2 and str(error).split("\n")[0] in promoter.status()
                await (await pipeline.step([], promoter._send(), bulk=False))
                assert promoter._generations.current.model == load_model(checkpoint)[0]
                assert tried == (1 if lasting else starts)

    alone.setattr(Generations, "begin", begin)
    asyncio.run(run())
    defects = [record for record in caplog.records if record.exc_info]
    assert len(defects) == isinstance(error, RuntimeError | MemoryError)


def test_one_that_kills_the_worker_again_and_again_is_given_up(
    checkpoint: Path, worse: Path, tmp_path: Path, alone: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, checkpoint)

    async def run() -> None:
        async with promoting(settings) as (promoter, _, _):
            alone.setattr(promotion, "_drain", lambda aligner: (1, 0))  # it takes its time
            promote(settings.state.dir, worse)
            await until_told(promoter, "building: ")
            generations = promoter._generations
            wish = generations.wanted()
            assert generations.reported(wish).attempts == 1
        assert generations.reported(wish).attempts == 0  # an end in order does not count
        last = BuildProgress(wish, "building", attempts=promotion.MAX_ATTEMPTS - 1)
        for attempts in (last.attempts, last.attempts + 1):
            write(settings.state.dir / "progress.json", msgspec.structs.replace(last, attempts=attempts))
            async with promoting(settings) as (promoter, _, _):
                told = "building: " if attempts == last.attempts else "was killed 5 times"
                await until_told(promoter, told)
        promote(settings.state.dir, worse, asked=1.0)
        async with promoting(settings) as (promoter, _, _):
            await until_told(promoter, "building: ")

    asyncio.run(run())


def test_a_broker_that_is_away_puts_a_promotion_off(
    checkpoint: Path, worse: Path, tmp_path: Path, alone: pytest.MonkeyPatch
) -> None:
    looks = 0

    def read(*_: object) -> Iterator[Message]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise BrokerError("it is away")
        return iter(())

    async def run() -> None:
        async with promoting(settings_of(tmp_path, checkpoint)) as (promoter, _, _):
            promote(tmp_path / "state", worse, most=1.0)
            await until_told(promoter, f"in force: model {load_model(worse)[0]}")

    alone.setattr(promotion, "read_ranges", read)
    asyncio.run(run())
    assert looks == 2


def test_a_look_at_a_state_survives_a_switch(
    checkpoint: Path, worse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = Generations(settings_of(tmp_path, checkpoint), decode_canonical)
    with closing(generations), closing(generations.open()) as first:
        promote(tmp_path / "state", worse)
        name, second = built(generations, first)
        second.close()
        opened = Generations.aligner

        def switched(self: Generations, of: str, *, read_only: bool = False) -> Aligner:
            if generations.current != generations.recipe(name):
                generations.switch(name)
                generations.clean()
            return opened(self, of, read_only=read_only)

        monkeypatch.setattr(Generations, "aligner", switched)
        with closing(Generations(settings_of(tmp_path, checkpoint), decode_canonical).look()) as seen:
            assert seen.model_id == load_model(worse)[0]


def test_batches_of_the_outbox_are_bounded(checkpoint: Path, worse: Path, tmp_path: Path) -> None:
    generations = Generations(settings_of(tmp_path, checkpoint), decode_canonical)
    first = generations.open()
    with closing(first), closing(generations), pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "OUTBOX_CHUNK", 10)
        apply(first, messages(STREAM))
        promote(tmp_path / "state", worse)
        name, second = built(generations, first)
        with closing(second):
            changed = second.supersede(first, name).changed
            batches: list[Batch] = list(second.pending())
            assert len(batches) == -(-changed // 10) > 3
            assert [batch.sequence for batch in batches] == sorted(batch.sequence for batch in batches)
