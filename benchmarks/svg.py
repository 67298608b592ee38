"""Plots, written by hand as small SVG that reads on light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 760
LEFT, RIGHT = 330, 110
ROW = 26
TOP = 44
GOOD, BAD, NEUTRAL, LINE = "#2e8b57", "#c0392b", "#4a78b5", "#8a8a8a"
COLOURS = ("#2e8b57", "#4a78b5", "#c0392b", "#d08a1d", "#7d57b5", "#3aa5a5")
STYLE = "text{font:13px system-ui,sans-serif;fill:#777}.title{font-size:15px;font-weight:600}"
PLOT_HEIGHT = 260
MARGIN = 60


def document(height: float, parts: Sequence[str], *, title: str) -> str:
    """Wrap shapes into a document."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}">'
    )
    caption = f'<text class="title" x="8" y="22">{escape(title)}</text>'
    return "\n".join([head, f"<style>{STYLE}</style>", caption, *parts, "</svg>\n"])


def bars(
    title: str, values: Mapping[str, float], *, unit: str, limit: float | None = None, digits: int = 2
) -> str:
    """Draw a bar a value, with a line at the limit; bars beyond it are red."""
    most = max([*values.values(), limit or 0.0, 1e-9])
    scale = (WIDTH - LEFT - RIGHT) / most
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y = TOP + number * ROW
        colour = NEUTRAL if limit is None else GOOD if value <= limit else BAD
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{max(1.0, value * scale):.1f}" height="18" fill="{colour}"/>',
            f'<text x="{LEFT + value * scale + 6:.1f}" y="{y + 14}">{value:.{digits}f} {escape(unit)}</text>',
        ]
    bottom = TOP + len(values) * ROW
    if limit is not None:
        x = LEFT + limit * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="{LINE}" '
            'stroke-width="2" stroke-dasharray="5 4"/>'
        )
    return document(bottom + 10, parts, title=title)


def curves(title: str, lines: Mapping[str, Mapping[float, float]], *, unit: str) -> str:
    """Draw values by share (0.5, 0.9, ...) on a logarithmic scale, the shares by their nines."""
    shares = sorted({share for line in lines.values() for share in line})
    values = [value for line in lines.values() for value in line.values()]
    low = 10 ** math.floor(math.log10(max(min(values), 1e-3)))
    high = 10 ** math.ceil(math.log10(max(*values, low * 10)))
    span = math.log10(high / low)
    step = (WIDTH - MARGIN - LEFT / 2) / max(1, len(shares) - 1)

    def x_of(share: float) -> float:
        return MARGIN + shares.index(share) * step

    def y_of(value: float) -> float:
        return TOP + PLOT_HEIGHT * (1 - math.log10(max(value, low) / low) / span)

    parts = []
    for exponent in range(round(span) + 1):
        value = low * 10**exponent
        y = y_of(value)
        parts += [
            f'<path d="M{MARGIN} {y:.1f}H{x_of(shares[-1]):.1f}" stroke="{LINE}" stroke-opacity="0.4"/>',
            f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>',
        ]
    bottom = TOP + PLOT_HEIGHT
    parts += [
        f'<text x="{x_of(share):.1f}" y="{bottom + 20}" text-anchor="middle">p{share * 100:g}</text>'
        for share in shares
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x_of(share):.1f},{y_of(value):.1f}" for share, value in sorted(line.items()))
        key = TOP + 16 + number * 20
        edge = WIDTH - LEFT / 2 + 14
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<rect x="{edge:.0f}" y="{key - 10}" width="10" height="10" fill="{colour}"/>',
            f'<text x="{edge + 15:.0f}" y="{key}">{escape(name)}</text>',
        ]
    return document(bottom + 34, parts, title=f"{title} ({unit})")


def over_time(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], *, unit: str) -> str:
    """Draw values by the minute; each line has a scale of its own from 0 on, named with its largest value."""
    last = max(at for line in lines.values() for at, _ in line) or 1.0
    right, bottom = WIDTH - LEFT / 2, TOP + PLOT_HEIGHT
    parts = [f'<path d="M{MARGIN} {bottom}H{right:.0f}" stroke="{LINE}"/>']
    parts += [
        f'<text x="{MARGIN + (right - MARGIN) * part / 5:.0f}" y="{bottom + 20}" text-anchor="middle">'
        f"{last * part / 5:.1f}</text>"
        for part in range(6)
    ]
    for number, (name, line) in enumerate(lines.items()):
        colour, most = COLOURS[number % len(COLOURS)], max(*(value for _, value in line), 1.0) * 1.1
        points = " ".join(
            f"{MARGIN + (right - MARGIN) * at / last:.1f},{bottom - PLOT_HEIGHT * value / most:.1f}"
            for at, value in line
        )
        key = TOP + 16 + number * 40
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<rect x="{right + 10:.0f}" y="{key - 10}" width="10" height="10" fill="{colour}"/>',
            f'<text x="{right + 24:.0f}" y="{key}">{escape(name)}</text>',
            f'<text x="{right + 24:.0f}" y="{key + 17}">up to {most / 1.1:,.0f}</text>',
        ]
    return document(bottom + 34, parts, title=f"{title} ({unit})")
