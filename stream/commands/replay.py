"""`sameas replay`: a run over the topics, its report, and the differences of two runs."""

import json
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from index.errors import StateError
from stream.atomic import replace
from stream.commands.group import Commands
from stream.commands.options import connected
from stream.config import Configuration
from stream.console import progress, put, put_json, tell
from stream.errors import ConfigError
from stream.interrupts import Interrupted

if TYPE_CHECKING:
    from stream.replay.run import Plan, Run, RunProgress

BEGINNING, END = "the beginning", "the end"
SHOWN = 10  # differences of each kind that `diff` prints


@click.group(invoke_without_command=True, cls=Commands)
@connected
@click.option("--run", "name", metavar="NAME", help="The run; its topics are sameas.replay.NAME.*")
@click.option("--from-beginning", is_flag=True, help="All messages of the topics [default]")
@click.option("--from-datetime", metavar="DATE", help="Messages from this date on, 2026-05-31T18:30:00 (UTC)")
@click.option("--to-datetime", metavar="DATE", help="Messages before this date [all there are now]")
@click.option("--by-duration", metavar="PT6H", help="The messages of the last so many days, hours, minutes")
@click.option("--model", type=click.Path(path_type=Path), help="Model directory: model.dir")
@click.option(
    "--links", type=click.Path(path_type=Path), help="CSV of known links to measure against: left,right"
)
@click.option(
    "--execute", is_flag=True, help="Start or continue the run; without it only the plan is printed"
)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write report.html and report.json here",
)
@click.option(
    "--strict", is_flag=True, help="For --report: stop at the first live alignment that cannot be read"
)
def replay(configuration: Configuration, **options: Any) -> None:
    """Read the topics again, with another model or other settings, into topics of its own.

    Prints the plan unless --execute. Ctrl-C and kills do no harm: the same command continues.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    from stream.learning.known_links import read_links
    from stream.learning.training import check_writable
    from stream.replay.run import Run, check_access

    if not options["name"]:
        raise ConfigError("replay: give the run a name with --run NAME")
    if options["report"] and not options["execute"]:
        raise ConfigError("replay: --report needs --execute")
    settings = configuration.settings
    if options["model"] is not None:
        settings = msgspec.structs.replace(
            settings, model=msgspec.structs.replace(settings.model, dir=options["model"])
        )
    run = Run(settings, options["name"])
    links = read_links(options["links"]).links if options["links"] else []
    check_access(run, settings, execute=options["execute"], report=options["report"] is not None)
    plan = _plan(run, links, **{name: options[name] for name in _RANGE})
    for line in _describe(run, plan):
        tell(line)
    if not options["execute"]:
        tell("nothing was done; --execute does it")
        return
    if options["report"]:
        check_writable("--report", options["report"])
    _execute(run, plan, links, settings, options["report"], strict=options["strict"])


_RANGE = ("from_beginning", "from_datetime", "to_datetime", "by_duration")


def _plan(
    run: "Run",
    links: list[tuple[str, str]],
    from_beginning: bool,
    from_datetime: str | None,
    to_datetime: str | None,
    by_duration: str | None,
) -> "Plan":
    from datetime import UTC, datetime

    from stream.broker.ranges import find_ranges, parse_datetime, parse_duration
    from stream.engine.parts import usable_model
    from stream.replay.run import Plan, digest

    if sum(map(bool, (from_beginning, from_datetime, by_duration))) > 1:
        raise ConfigError("replay: one of --from-beginning, --from-datetime and --by-duration")
    since = until = None
    if from_datetime:
        since = parse_datetime("--from-datetime", from_datetime)
    if by_duration:
        since = datetime.now(UTC) - parse_duration("--by-duration", by_duration)
    if to_datetime:
        until = parse_datetime("--to-datetime", to_datetime)
    if since and until and since >= until:
        raise ConfigError(f"replay: --to-datetime {to_datetime} is not after the beginning")
    settings = run.settings
    model_id, model = usable_model(settings.model.dir)
    plan = Plan(
        since=from_datetime or by_duration or BEGINNING,
        until=to_datetime or END,
        model=model_id,
        threshold=model.threshold if settings.model.threshold is None else settings.model.threshold,
        one_to_one=settings.align.one_to_one,
        search=settings.align.search_at_once,
        evidence=settings.records.evidence,
        links=digest(links),
        sources=digest(settings.sources),
        ranges=[] if run.plan else find_ranges(settings, since, until),
    )
    plan = run.agree(plan)
    if not plan.messages:
        raise ConfigError(f"replay: there are no messages from {plan.since} to {plan.until}")
    return plan


def _describe(run: "Run", plan: "Plan") -> list[str]:
    topics = run.settings.topics
    begun = run.plan is not None
    return [
        f"run {run.name}"
        + (", started already, continues" if begun and not run.progress.finished else "")
        + (", finished already" if run.progress.finished else ""),
        f"reads    from {plan.since} to {plan.until}, {plan.messages:,} offsets:",
        *(
            f"         {part.topic}, partition {part.partition}: {part.start:,} to {part.end:,} "
            f"({part.end - part.start:,})"
            for part in plan.ranges
        ),
        f"with     model {plan.model} ({run.settings.model.dir}), threshold {plan.threshold:.4f}, "
        f"{'one to one' if plan.one_to_one else 'not one to one'}",
        f"state    {run.home}",
        f"writes   {topics.alignments}, {topics.alignment_events}, {topics.dead_letters}",
    ]


def _execute(
    run: "Run",
    plan: "Plan",
    links: list[tuple[str, str]],
    settings: Any,
    report: Path | None,
    *,
    strict: bool,
) -> None:
    from stream.mapping.decoder import make_decoder
    from stream.replay.execution import execute

    caught: list[int] = []

    def on_signal(value: int, _: Any) -> None:
        number = signal.Signals(value)
        caught.append(number)
        tell(f"{number.name}, stopping after this batch")
        signal.signal(number, before[number])  # a second one does not wait

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    decode = make_decoder(settings.sources, settings.topics.entities, settings.topics.links)
    checkpoint = settings.model.dir
    started, first = time.monotonic(), -1
    with progress() as show:

        def update(position: int, done: "RunProgress", waiting: int) -> None:
            nonlocal first
            first = position if first < 0 else first
            seconds = max(time.monotonic() - started, 1e-9)
            rate = (position - first) / seconds
            left = f"{_duration((plan.messages - position) / rate)} left, " if rate else ""
            show(
                f"replaying {position:,} of {plan.messages:,} ({position / plan.messages:.0%}), "
                f"{rate:,.0f}/s, {left}{waiting:,} entities wait"
            )

        aligner = execute(run, plan, checkpoint, decode, links, lambda: bool(caught), update)
    for number, handler in before.items():
        signal.signal(number, handler)
    if aligner is None:
        end = Interrupted(caught[0])
        end.add_note("nothing is lost, the same command continues")
        raise end
    with closing(aligner):
        done = run.progress
        counts = done.counts
        tell(
            f"done in {done.seconds:,.1f} s: received {counts.received:,} = applied {counts.applied:,} "
            f"+ stale {counts.stale:,} + dead-lettered {counts.dead_lettered:,}{counts.remark}"
        )
        if report is not None:
            from stream.replay.page import render
            from stream.replay.report import make_report

            figures = make_report(run, plan, aligner, checkpoint, links, settings, strict=strict)
            for name, text in (
                ("report.json", json.dumps(figures, indent=1)),
                ("report.html", render(figures)),
            ):
                try:
                    replace(report / name, text.encode())
                except OSError as error:
                    raise StateError(f"{report / name} cannot be written: {error.strerror}") from error
            tell(f"report in {report}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@replay.command()
@connected
@click.argument("before")
@click.argument("after")
@click.option("--links", type=click.Path(path_type=Path), help="CSV of known links: left,right")
@click.option("--json", "as_json", is_flag=True, help="All changes, as JSON Lines")
@click.option("--strict", is_flag=True, help="Stop at the first record that cannot be read")
def diff(
    configuration: Configuration,
    before: str,
    after: str,
    links: Path | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Compare the alignments of two runs; `live` stands for the worker's.

    Records that cannot be read are skipped and counted.
    """
    from stream.consuming.alignments import current_alignments
    from stream.learning.known_links import read_links
    from stream.replay.comparing import compare
    from stream.replay.run import LIVE, Run

    settings = configuration.settings
    sides = [
        current_alignments(settings if name == LIVE else Run(settings, name).settings, strict=strict)
        for name in (before, after)
    ]
    found = compare(sides[0], sides[1], read_links(links).links if links else ())
    if as_json:
        for kind in ("new", "gone", "changed"):
            for change in getattr(found, kind):
                put_json(json.dumps({"change": kind, **msgspec.to_builtins(change)}))
        return
    summary = found.to_json(0)
    for kind in ("new", "gone", "changed", "same"):
        known = [
            f"{summary[f'{kind}_{word}']:,} {meaning}"
            for word, meaning in (("right", "known links"), ("wrong", "known to be wrong"))
            if links and f"{kind}_{word}" in summary
        ]
        put(f"{kind:<8} {summary[kind]:>9,}" + (f"  ({', '.join(known)})" if known else ""))
    for kind in ("new", "gone", "changed"):
        for change in getattr(found, kind)[:SHOWN]:
            scores = " -> ".join(
                "     " if score is None else f"{score:.3f}" for score in (change.before, change.after)
            )
            put(f"{kind:<8} {scores}  {change.subject_id}  {change.object_id}")


@replay.command()
@connected
@click.argument("name")
def remove(configuration: Configuration, name: str) -> None:
    """Forget a run: delete its state and its topics."""
    from stream.replay.run import Run, remove_run

    for gone in remove_run(Run(configuration.settings, name)):
        tell(f"deleted {gone}")
