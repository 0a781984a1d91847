"""`sameas demo`: the whole way on real data, for newcomers to watch.

Two airport catalogues flow through a real broker into a real worker (`sameas run` in a process of its own),
then change. The demo reads what the worker publishes as any subscriber would, and compares it with answers
that neither the events nor the training contain. `run_demo` is the story in its order.
"""

import contextlib
import heapq
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path

import msgspec
import torch

from model.training import Epoch, TrainingOptions
from stream.broker.embedded import embedded_broker
from stream.catalogue.feeding import feed_events
from stream.catalogue.reading import read_events
from stream.config import Settings, load_settings
from stream.console import progress
from stream.consuming.alignments import current_alignments
from stream.demo.airports import BASELINES, SMALL_COUNTRY, Scenario, accuracy, change_events, make_scenario
from stream.demo.child import in_child
from stream.demo.figures import Act, Figures, delays
from stream.demo.listener import Listener
from stream.demo.measuring import peak_memory, percentile
from stream.demo.text import SHOWN, describe_changes, introduce, print_figures, say, show_alignments, tell_act
from stream.demo.worker_process import Status, WorkerProcess, worker_process
from stream.errors import ConfigError, InvalidInput
from stream.events import EntityEvent
from stream.learning.training import TrainedModel, train_model
from stream.mapping.language import SourceMapping

BAR_CHARS = 24
CANDIDATES = 3  # in each view; positions are telling, and a demo should be quick
TRAINING = TrainingOptions(visits=200_000, max_pairs=30_000, max_valid_pairs=8_000)
SMALL_TRAINING = TrainingOptions(visits=50_000)
CHANGES_PER_SECOND = 60  # in the second act: a busy catalogue, not a bulk load


def run_demo(*, small: bool, report: Path | None = None) -> Figures:
    """Plays the demo and returns its figures; text for people goes to stdout, progress to stderr.

    Raises:
        SameasError: a package is missing, a process does not start, or nothing moves for a minute.
    """
    started = time.monotonic()
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(f"--report {report}: there is no directory {report.absolute().parent}")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sameas-demo-")))
        broker = stack.enter_context(embedded_broker())
        say(f"1  An embedded broker listens on {broker.address}.")

        scenario = make_scenario(SMALL_COUNTRY if small else None)
        sources = scenario.write(directory)
        first = first_events(sources, directory)
        introduce(scenario, first)

        config = directory / "sameas.toml"
        overrides = [
            f"kafka.bootstrap_servers={broker.address}",
            "kafka.session_timeout_seconds=6",  # the embedded broker's group joins take half of it
            f"state.dir={directory / 'state'}",
            f"model.dir={directory / 'model'}",
        ]
        settings = load_settings(config, {}, overrides)

        say("3  The attention model is trained on those answers.")
        options = SMALL_TRAINING if small else TRAINING
        # In a process of its own, so that its memory is free again before the worker starts.
        trained, training_memory = in_child(train, scenario, first, directory / "model", options)

        worker = stack.enter_context(worker_process(config, overrides, directory / "worker.log"))
        listener = Listener(settings)
        stack.callback(listener.close)
        say("4  A worker (`sameas run`) is ready, and both streams flow in, interleaved.")
        act_one = play(settings, worker, listener, first, before=0)
        tell_act(act_one)

        second = list(change_events(scenario.changes, sources, known=first))
        say(f"5  Second act: {describe_changes(scenario)}; {CHANGES_PER_SECOND} events a second.")
        act_two = play(settings, worker, listener, paced(second), before=len(first))
        tell_act(act_two)
        waits = list(delays(settings, act_two, first_offset=len(first)))

        alignments = current_alignments(settings)
        say(f"6  The alignment topic holds {len(alignments):,} pairs. {SHOWN} airports with different names:")
        show_alignments(scenario, alignments.values())
        together = peak_memory([os.getpid(), broker.pid])
        memory = together + max(training_memory, peak_memory([worker.pid]))  # one after the other
        worker.stop()

        # Decisions as the topic shows them; retrieval and ranking as the model had them after training.
        answers = scenario.final_answers("test")
        reached = accuracy({a.subject_id: a.object_id for a in alignments.values()}, answers)
        ranked = trained.quality
        if ranked is None:
            raise AssertionError("the demo trains with test answers")
        figures = Figures(
            f1=reached.f1,
            precision=reached.precision,
            recall=reached.recall,
            retrieval_recall=ranked.retrieval_recall,
            prauc=ranked.prauc,
            training_links=trained.training_links,
            test_links=len(answers),
            entities=len({(event.source, event.id) for event in [*first, *second]}),
            entities_per_second=round(act_one.events / act_one.seconds, 1),
            p50_ms=round(percentile(waits, 0.50), 1) if waits else None,
            p99_ms=round(percentile(waits, 0.99), 1) if waits else None,
            aligned=act_one.count("aligned") + act_two.count("aligned"),
            revised=act_one.count("revised") + act_two.count("revised"),
            withdrawn=act_one.count("withdrawn") + act_two.count("withdrawn"),
            seconds=round(time.monotonic() - started, 1),
            peak_rss_mb=round(memory, 1),
        )
    print_figures(figures, {name: baseline(scenario, "test") for name, baseline in BASELINES.items()})
    if report is not None:
        report.write_text(json.dumps(msgspec.to_builtins(figures), indent=2) + "\n", encoding="utf-8")
    return figures


def train(
    scenario: Scenario, events: Sequence[EntityEvent], directory: Path, options: TrainingOptions
) -> tuple[TrainedModel, float]:
    """Trains on the answers of the parts `train` and `valid`, with a progress bar; measures it on `test`.

    Returns:
        The model, and the largest resident size of this process in MiB.
    """
    tempfile.tempdir = str(directory.parent)  # files of a killed process go with that directory
    torch.set_num_threads(1)  # on a busy machine two threads wait for each other and are far slower
    training, valid = scenario.first_answers("train"), scenario.first_answers("valid")
    with progress() as show:
        show("preparing candidates")

        def epoch(done: Epoch) -> None:
            filled = round(BAR_CHARS * done.number / done.most)
            bar = "█" * filled + "░" * (BAR_CHARS - filled)
            show(f"{bar} epoch {done.number} of {done.most}, PRAUC {done.prauc:.3f}, {done.seconds:.0f} s")

        trained = train_model(
            events,
            training,
            directory,
            valid=valid,
            test=scenario.first_answers("test"),
            k=CANDIDATES,
            worth=1.0,  # the optional views would find half a percent of the links
            options=options,
            progress=epoch,
        )
    say(f"   {trained.training_links:,} answers in {trained.report['seconds']:.0f} s.")
    return trained, peak_memory([os.getpid()])


def first_events(sources: Mapping[str, SourceMapping], directory: Path) -> list[EntityEvent]:
    """The first act: both catalogues through their mappings, interleaved.

    Raises:
        InvalidInput: a row was refused, which does not happen with the packages' pinned versions.
    """
    streams: list[list[EntityEvent]] = []
    for source, mapping in sources.items():
        streams.append([])
        for _, event in read_events(source, mapping, directory):
            if isinstance(event, InvalidInput):
                raise event
            streams[-1].append(event)
    return list(interleaved(streams))


def interleaved(streams: Sequence[Sequence[EntityEvent]]) -> Iterator[EntityEvent]:
    """All streams merged, each in its order, so that they end together."""
    placed = (
        [((index + 1) / len(stream), number, event) for index, event in enumerate(stream)]
        for number, stream in enumerate(streams)
    )
    for _, _, event in heapq.merge(*placed, key=lambda item: item[:2]):
        yield event


def paced(events: Sequence[EntityEvent]) -> Iterator[EntityEvent]:
    """The events, at even intervals."""
    started = time.monotonic()
    for number, event in enumerate(events):
        time.sleep(max(0.0, started + number / CHANGES_PER_SECOND - time.monotonic()))
        yield event


def play(
    settings: Settings, worker: WorkerProcess, listener: Listener, events: Iterable[EntityEvent], before: int
) -> Act:
    """Feeds events while the worker aligns, until everything is published.

    Args:
        before: how many messages the worker has received already.
    """
    heard_before = len(listener.heard)
    started = time.monotonic()
    produced = 0
    stopped = threading.Event()  # or the feeding thread would delay the end of the demo

    def count(number: int) -> None:
        nonlocal produced
        produced = number

    with progress() as show, ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
        feeding = takewhile(lambda _: not stopped.is_set(), events)
        fed: Future[int] = thread.submit(feed_events, settings, feeding, count)

        def look(status: Status) -> None:
            applied = status.received - before
            rate = applied / max(time.monotonic() - started, 1e-3)
            lag = max(produced - applied, 0) + status.backlog
            show(f"{applied:,} events, {rate:,.0f}/s, lag {lag:,}, {listener.aligned:,} aligned")

        try:
            while not fed.done():
                look(worker.status())
                time.sleep(0.2)
        finally:
            stopped.set()
        sent = fed.result()
        worker.wait_until_done(before + sent, look)
    seconds = time.monotonic() - started
    return Act(sent, seconds, listener.catch_up()[heard_before:])
