"""Line charts as inline SVG: no script, no font, nothing from outside the page."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 12, 44
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class Series(NamedTuple):
    """Points (x, y), each 0 to 1, under a name; `dots` marks each, `dashed` is for references."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
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
        x_ticks: (x, label) where the axis does not run from 0 to 1 in itself.
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
        if one.dots:
            parts += [
                f'<circle class="s{number}" cx="{_x(x):.1f}" cy="{_y(y):.1f}" r="3.5">'
                f"<title>{x:.3f}, {y:.3f}</title></circle>"
                for x, y in one.points
            ]
    legend = "".join(f'<span class="s{n}">{escape(one.name)}</span>' for n, one in enumerate(series))
    drawing = "".join(parts)
    return f"""<figure><figcaption>{escape(title)}</figcaption>{drawing}</svg>
<p class="legend">{legend}</p></figure>"""


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
