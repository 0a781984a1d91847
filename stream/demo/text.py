"""What the demo prints: its scenes, some alignments with their evidence, and the figures."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from stream.console import put
from stream.demo.airports import LEFT, NAME_COLUMN, RIGHT, Accuracy, Scenario
from stream.demo.figures import Act, Figures
from stream.events import AlignmentRecord, EntityEvent, curie

SHOWN = 10  # alignments
REASONS = 3  # for each
VALUE_CHARS = 40
PROGRESS_SECONDS = 2.0


def say(text: str) -> None:
    """Prints lines to stdout, at once."""
    for line in text.split("\n"):
        put(line, flush=True)


def introduce(scenario: Scenario, first: Sequence[EntityEvent]) -> None:
    """Prints which data is used and which answers are withheld."""
    training, valid = len(scenario.first_answers("train")), len(scenario.first_answers("valid"))
    test, answers = len(scenario.final_answers("test")), sum(map(len, scenario.answers.values()))
    say(
        f"2  Two airport catalogues ({len(scenario.left.rows):,} and {len(scenario.right.rows):,} airports) "
        f"become {len(first):,} entities:\n"
        "   airports, cities, regions, countries and time zones, as stream/demo/airports.toml maps them.\n"
        f"   Codes are withheld: {answers:,} shared ICAO codes are the answers. Training sees {training:,},\n"
        f"   the threshold is chosen on {valid:,}, {test:,} have to be found, the others change on the way."
    )


def describe_changes(scenario: Scenario) -> str:
    """'100 new, 100 renamed, ...'"""
    kinds = [change.kind for change in scenario.changes]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds), key=kinds.index))


def tell_act(act: Act) -> None:
    """Prints the outcome of an act."""
    counts = ", ".join(f"{act.count(event):,} {event}" for event in ("aligned", "revised", "withdrawn"))
    say(f"   {act.events:,} events in {act.seconds:.1f} s; pairs: {counts}.")


def show_alignments(scenario: Scenario, alignments: Iterable[AlignmentRecord]) -> None:
    """Prints some airports with different names and their evidence, the same airports in every run."""
    names = {
        curie(source, row_id): str(row[NAME_COLUMN[source]])
        for source, rows in zip((LEFT, RIGHT), scenario.final_rows(), strict=True)
        for row_id, row in rows.items()
    }
    answers = dict(scenario.final_answers("test"))
    candidates = [
        record
        for record in alignments
        if record.subject_id in answers and names[record.subject_id] != names.get(record.object_id)
    ]
    candidates.sort(key=lambda record: record.subject_id)
    for record in random.Random(0).sample(candidates, min(SHOWN, len(candidates))):
        verdict = "right" if answers[record.subject_id] == record.object_id else "wrong"
        say(f"\n   {record.subject_id:<20} {names[record.subject_id]}")
        say(f"   {record.object_id:<20} {names.get(record.object_id, '?')}")
        say(f"   {f'score {record.confidence:.3f}, {verdict}':<20} {next(reasons := _reasons(record), '')}")
        for reason in reasons:
            say(f"   {'':<20} {reason}")


def _reasons(record: AlignmentRecord) -> Iterator[str]:
    seen = [
        (a.weight, a.subject_attribute, a.subject_value, a.object_attribute, a.object_value)
        for a in record.evidence.attributes
    ]
    seen += [
        (
            n.weight,
            n.subject_relation,
            _local(n.subject_neighbour),
            n.object_relation,
            _local(n.object_neighbour),
        )
        for n in record.evidence.neighbours
    ]
    seen.sort(key=lambda reason: -reason[0])
    for weight, left_name, left, right_name, right in seen[:REASONS]:
        yield f"{weight:4.0%}  {left_name}: {_short(left)}  ~  {right_name}: {_short(right)}"


def print_figures(figures: Figures, baselines: Mapping[str, Accuracy]) -> None:
    """Prints the figures."""
    say(f"\n{figures.test_links:,} answers that training did not see:\n")
    say(f"   {'':<18}{'precision':>10}{'recall':>9}{'F1':>8}")
    reached_here = Accuracy(figures.precision, figures.recall, figures.f1)
    for name, reached in {"sameas": reached_here, **baselines}.items():
        say(f"   {name:<18}{reached.precision:>10.3f}{reached.recall:>9.3f}{reached.f1:>8.3f}")
    delay = "no change led to an alignment"
    if figures.p50_ms is not None and figures.p99_ms is not None:
        delay = f"{figures.p50_ms:,.0f} ms (p50), {figures.p99_ms:,.0f} ms (p99), measured in the second act"
    say(
        f"\n   retrieval recall  {figures.retrieval_recall:.3f}, PRAUC {figures.prauc:.3f}, "
        f"trained on {figures.training_links:,} answers\n"
        f"   entities          {figures.entities:,}, in the first act "
        f"{figures.entities_per_second:,.0f} a second\n"
        f"   event to outcome  {delay}\n"
        f"   pairs             {figures.aligned:,} aligned, {figures.revised:,} revised, "
        f"{figures.withdrawn:,} withdrawn\n"
        f"   in all            {figures.seconds:.0f} s, {figures.peak_rss_mb:,.0f} MB"
    )


def _local(name: str) -> str:
    return name.partition(":")[2] or name


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= VALUE_CHARS else text[: VALUE_CHARS - 1] + "…"
