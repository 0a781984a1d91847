"""The figures of a replay as one HTML page that needs no other file."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from stream.console import compared
from stream.pages.curves import quality_charts
from stream.pages.page import Series, chart, page, table

REASONS = 3


def render(report: Mapping[str, Any]) -> str:
    """The page of a report as `stream/replay/report.py` makes it. All of its text is escaped."""
    title = f"Replay {report['run']}"
    sections = [_summary(report), _quality(report), _timeline(report), _live(report)]
    return page(title, "\n".join(sections))


def _summary(report: Mapping[str, Any]) -> str:
    plan, counts = report["plan"], report["counts"]
    ranges = [
        [part["topic"], part["partition"], f"{part['start']:,}", f"{part['end']:,}"]
        for part in plan["ranges"]
    ]
    rows = [
        ["Model", plan["model"]],
        ["Threshold", f"{plan['threshold']:.4f}, {'one to one' if plan['one_to_one'] else 'not one to one'}"],
        ["Messages", f"from {plan['since']} to {plan['until']}: {plan['messages']:,} offsets"],
        [
            "Received",
            f"{counts['received']:,} = {counts['applied']:,} applied + {counts['stale']:,} stale "
            f"+ {counts['dead_lettered']:,} dead-lettered",
        ],
        [
            "Speed",
            f"{report['messages_per_second']:,.1f} messages/s in {report['seconds']:,.1f} s, drains included",
        ],
        ["Alignments", f"{report['alignments']:,}"],
        ["Report made", report["made"]],
    ]
    return table([], rows) + "<h2>What was read</h2>" + table(["topic", "partition", "from", "to"], ranges, 2)


def _quality(report: Mapping[str, Any]) -> str:
    found = report["quality"]
    if found is None:
        return "<h2>Against known links</h2><p>No links were given (<code>--links</code>).</p>"
    text = "<h2>Against known links</h2>"
    if found["absent"]:
        text += f"<p>{found['absent']:,} links are not measured: the run read no such entity.</p>"
    if "f1" not in found:
        return text + "<p>No link has both of its entities in this run.</p>"
    names = [
        "links",
        "retrieval_recall",
        "prauc",
        "precision",
        "recall",
        "f1",
        "recall_at_precision_95",
        "hits_at_1",
    ]
    rows = [
        [kind, *(_figure(figures[name]) for name in names)]
        for kind, figures in [("all", found), *found["by_type"].items()]
    ]
    head = [
        "type",
        "links",
        "retrieval recall",
        "PRAUC",
        "precision",
        "recall",
        "F1",
        "recall at P=.95",
        "hits@1",
    ]
    charts = quality_charts(
        [(point["recall"], point["precision"]) for point in found["curve"]],
        [(row["score"], row["links"], row["pairs"]) for row in found["calibration"]],
        (found["recall"], found["precision"]),
    )
    return text + table(head, rows, 1) + charts


def _timeline(report: Mapping[str, Any]) -> str:
    points = report["timeline"]
    if not report["quality"]:
        return ""
    if not points:
        return (
            "<h2>While the stream went by</h2><p>Not measured: the run began with other links, or none.</p>"
        )
    total = max(report["plan"]["messages"], 1)
    lines = [
        Series(
            name,
            [(point["position"] / total, point[key]) for point in points],
            radii=[3.5] * len(points) if key == "f1" else (),
        )
        for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
    ]
    chosen = points[:: max(1, len(points) // 4)]
    ticks = [(point["position"] / total, _date(point["time"])) for point in chosen]
    rows = [
        [
            _date(point["time"]),
            *(f"{point[name]:,}" for name in ("position", "aligned", "links", "correct", "wrong")),
            *(_figure(point[name]) for name in ("precision", "recall", "f1")),
        ]
        for point in points
    ]
    head = ["time (UTC)", "messages", "aligned", "links", "correct", "wrong", "precision", "recall", "F1"]
    drawing = chart("Quality over stream time", "messages, with their time (UTC)", "", lines, ticks)
    return (
        "<h2>While the stream went by</h2><p>The published alignments against the links whose two entities "
        f'existed by then.</p><div class="charts">{drawing}</div>' + table(head, rows, 1)
    )


def _live(report: Mapping[str, Any]) -> str:
    live = report["live"]
    if live is None:
        return "<h2>Against the live alignments</h2><p>There are none.</p>"
    return "<h2>Against the live alignments</h2>" + comparison(live)


def comparison(found: Mapping[str, Any]) -> str:
    """Tables of what is new, gone and changed, from what `Comparison.to_json` returns."""
    rows = [
        [name, f"{found[name]:,}", _known(found, name, "right"), _known(found, name, "wrong")]
        for name in ("new", "gone", "changed", "same")
    ]
    text = table(["", "pairs", "known links", "known to be wrong"], rows, 1)
    for name, heading in (("new", "New"), ("gone", "Gone"), ("changed", "Scored otherwise")):
        changes = found["largest"][name]
        if not changes:
            continue
        body = [
            [
                change["subject_id"],
                change["object_id"],
                _figure(change["before"]),
                _figure(change["after"]),
                {True: "yes", False: "no", None: ""}[change["link"]],
                "; ".join(_reasons(change["evidence_after"] or change["evidence_before"])),
            ]
            for change in changes
        ]
        text += f"<h3>{heading}: the largest changes</h3>"
        text += table(["subject", "object", "before", "after", "link", "evidence"], body)
    return text


def _known(found: Mapping[str, Any], name: str, word: str) -> str:
    count = found.get(f"{name}_{word}")
    return "" if count is None else f"{count:,}"


def _reasons(evidence: Mapping[str, Any]) -> Iterable[str]:
    for one in evidence["attributes"][:REASONS]:
        values = str(one["subject_value"]), str(one["object_value"])
        yield compared(one["subject_attribute"], values[0], one["object_attribute"], values[1])
    for one in evidence["neighbours"][: max(0, REASONS - len(evidence["attributes"]))]:
        ends = one["subject_neighbour"], one["object_neighbour"]
        yield compared(one["subject_relation"], ends[0], one["object_relation"], ends[1])


def _figure(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M:%S")
