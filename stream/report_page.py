"""The figures of a replay as one HTML page that needs nothing but itself."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from stream.charts import Series, chart

REASONS = 3
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --0: #2563eb; --1: #d97706; --2: #059669; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; } figure { flex: 1 1 400px; margin: 0; }
figcaption { font-weight: 600; } svg { width: 100%; } svg text { font-size: 11px; fill: currentColor; }
polyline { fill: none; stroke-width: 2; } polyline.dashed { stroke-dasharray: 5 4; opacity: .6; }
line.grid { stroke: var(--line); stroke-width: .6; } circle { stroke: none; }
polyline.s0 { stroke: var(--0); } polyline.s1 { stroke: var(--1); } polyline.s2 { stroke: var(--2); }
circle.s0 { fill: var(--0); } circle.s1 { fill: var(--1); } circle.s2 { fill: var(--2); }
.legend span::before { content: "\\25cf\\00a0"; } .legend span { margin-right: 1rem; }
.legend .s0::before { color: var(--0); } .legend .s1::before { color: var(--1); }
.legend .s2::before { color: var(--2); }
"""


def render(report: Mapping[str, Any]) -> str:
    """The page of a report as `stream/replay_report.py` makes it. All of its text is escaped."""
    title = f"Replay {report['run']}"
    sections = [_summary(report), _quality(report), _timeline(report), _live(report)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


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
    return (
        _table([], rows) + "<h2>What was read</h2>" + _table(["topic", "partition", "from", "to"], ranges, 2)
    )


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
    curve = [(point["recall"], point["precision"]) for point in found["curve"]]
    bins = [(row["score"], row["links"]) for row in found["calibration"]]
    charts = chart(
        "Precision and recall", "recall", "precision", [Series("candidates by score", curve)]
    ) + chart(
        "Calibration",
        "mean score",
        "share of links",
        [Series("scores", bins, dots=True), Series("ideal", [(0, 0), (1, 1)], dashed=True)],
    )
    return text + _table(head, rows, 1) + f'<div class="charts">{charts}</div>'


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
        Series(name, [(point["position"] / total, point[key]) for point in points], dots=key == "f1")
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
        f'existed by then.</p><div class="charts">{drawing}</div>' + _table(head, rows, 1)
    )


def _live(report: Mapping[str, Any]) -> str:
    live = report["live"]
    if live is None:
        return "<h2>Against the live alignments</h2><p>There are none.</p>"
    return "<h2>Against the live alignments</h2>" + comparison(live)


def comparison(found: Mapping[str, Any]) -> str:
    """Tables of what is new, gone and changed, as `Comparison.to_json` has it."""
    rows = [
        [name, f"{found[name]:,}", _known(found, name, "right"), _known(found, name, "wrong")]
        for name in ("new", "gone", "changed", "same")
    ]
    text = _table(["", "pairs", "known links", "known to be wrong"], rows, 1)
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
        text += _table(["subject", "object", "before", "after", "link", "evidence"], body)
    return text


def _known(found: Mapping[str, Any], name: str, word: str) -> str:
    count = found.get(f"{name}_{word}")
    return "" if count is None else f"{count:,}"


def _reasons(evidence: Mapping[str, Any]) -> Iterable[str]:
    for one in evidence["attributes"][:REASONS]:
        yield f"{one['subject_attribute']}: {one['subject_value']} ~ {one['object_value']}"
    for one in evidence["neighbours"][: max(0, REASONS - len(evidence["attributes"]))]:
        yield f"{one['subject_relation']}: {one['subject_neighbour']} ~ {one['object_neighbour']}"


def _figure(value: float | int | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%m-%d %H:%M:%S")


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int | None = None) -> str:
    """`numbers_from` is the first of the columns that hold numbers."""

    def cells(tag: str, row: Sequence[object]) -> str:
        plain = len(row) if numbers_from is None else numbers_from
        return "".join(
            f"<{tag}{'' if n < plain else ' class=n'}>{escape(str(cell))}</{tag}>"
            for n, cell in enumerate(row)
        )

    top = f"<thead><tr>{cells('th', head)}</tr></thead>" if head else ""
    return (
        f"<table>{top}<tbody>" + "".join(f"<tr>{cells('td', row)}</tr>" for row in rows) + "</tbody></table>"
    )
