"""Parts of HTML pages: tables, and charts as inline SVG. No script, and nothing from outside the page."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 44
TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STYLE: Final = """
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


XY = tuple[float, float]


class Series(NamedTuple):
    """Points (x, y), each from 0 to 1, under a name. `dashed` is for references."""

    name: str
    points: Sequence[XY]
    radii: Sequence[float] = ()  # of a dot at each point
    dashed: bool = False


def chart(
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[Series],
    x_ticks: Sequence[tuple[float, str]] = (),
) -> str:
    """A chart of lines over the unit square.

    Args:
        x_ticks: (x, label), where the axis shows other values than x.
    """
    x_ticks = x_ticks or [(tick, f"{tick:.1f}") for tick in TICKS]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(
            _line(0, tick, 1, tick, "grid") + _text(LEFT - 6, _y(tick) + 4, f"{tick:.1f}", "end")
            for tick in TICKS
        ),
        *(_text(_x(x), HEIGHT - BOTTOM + 16, label, "middle") for x, label in x_ticks),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "middle"),
        f'<text transform="translate(12 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for number, one in enumerate(series):
        path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in one.points)
        kind = f"s{number}" + (" dashed" if one.dashed else "")
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        parts += [
            f'<circle class="s{number}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="{radius:.1f}">'
            f"<title>{x:.3f}, {y:.3f}</title></circle>"
            for (x, y), radius in zip(one.points, one.radii, strict=False)
        ]
    legend = "".join(f'<span class="s{n}">{escape(one.name)}</span>' for n, one in enumerate(series))
    drawing = "".join(parts)
    return f"""<figure><figcaption>{escape(title)}</figcaption>{drawing}</svg>
<p class="legend">{legend}</p></figure>"""


def page(title: str, body: str) -> str:
    """A whole page. The body is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int | None = None) -> str:
    """A table of escaped cells. From the column `numbers_from` on they are numbers."""

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


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
