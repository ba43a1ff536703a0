"""Draws the results as SVG pictures that are readable on light and dark pages."""

import math
from html import escape
from pathlib import Path

WIDTH, LEFT, RIGHT = 720, 130, 90
# A page may be dark although the reader's system is light, so a picture has its own background.
STYLE = """
  text { font: 13px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-weight: bold; font-size: 15px }
  .end { text-anchor: end } .middle { text-anchor: middle }
  .page { fill: #ffffff } .grid { stroke: #d1d9e0 } .axis { stroke: #59636e }
  .bar, .dot { fill: #0969da } .other { fill: #8c959f } .line { stroke: #0969da; stroke-width: 2; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .page { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #9198a1 }
    .bar, .dot { fill: #4493f8 } .other { fill: #7d8590 } .line { stroke: #4493f8 }
  }
"""


def bars(path: Path, title: str, unit: str, panels: dict[str, dict[str, float]], own: str):
    """Draws panels of bars, each with its own axis. The bars named `own` are highlighted."""
    parts, y = [], 44
    for name, values in panels.items():
        step = _step(max(values.values()))
        ticks = math.ceil(max(values.values()) / step)
        scale = (WIDTH - LEFT - RIGHT) / (ticks * step)
        bottom = y + 22 + 34 * len(values)
        parts.append(_text(LEFT, y + 8, name))
        for n in range(ticks + 1):
            x = LEFT + n * step * scale
            parts += [_line(x, y + 18, x, bottom, "grid"), _text(x, bottom + 18, f"{n * step:,g}", "middle")]
        for row, (what, value) in enumerate(values.items()):
            top = y + 26 + 34 * row
            kind = "bar" if what == own else "other"
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{value * scale:.1f}" height="22" class="{kind}"/>')
            parts += [_text(LEFT - 8, top + 16, what, "end"), _text(LEFT + value * scale + 6, top + 16, _short(value))]
        parts.append(_line(LEFT, y + 18, LEFT, bottom, "axis"))
        parts.append(_text((WIDTH + LEFT - RIGHT) / 2, bottom + 38, unit, "middle"))
        y = bottom + 62
    _write(path, title, y - 8, parts)


def log_log(path: Path, title: str, x_axis: str, y_axis: str, points: dict[float, float]):
    """Draws a line through the points, with powers of ten on both axes."""
    top, bottom, left = 50, 380, 80
    x_of, x_ticks = _decades(points.keys(), left, WIDTH - 40)
    y_of, y_ticks = _decades(points.values(), bottom, top)
    parts = []
    for value, x in x_ticks:
        parts += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 20, f"{value:,g}", "middle")]
    for value, y in y_ticks:
        parts += [_line(left, y, WIDTH - 40, y, "grid"), _text(left - 8, y + 4, f"{value:,g}", "end")]
    parts += [_line(left, top, left, bottom, "axis"), _line(left, bottom, WIDTH - 40, bottom, "axis")]
    positions = [(x_of(x), y_of(y), y) for x, y in points.items()]
    parts.append('<polyline class="line" points="{}"/>'.format(" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in positions)))
    for x, y, value in positions:
        is_first = x == left  # other labels go to the left of their points, where the rising line does not cross them
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(_text(x + 6 if is_first else x - 8, y - 8, f"{_short(value)} s", "" if is_first else "end"))
    parts.append(_text((left + WIDTH - 40) / 2, bottom + 44, x_axis, "middle"))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 22 {middle})">{_text(22, middle, y_axis, "middle")}</g>')
    _write(path, title, bottom + 60, parts)


def _decades(values, start, end):
    """Returns a function from values to positions from `start` to `end`, and the powers of ten with their positions."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def position(value):
        return start + (math.log10(value) - first) / (last - first) * (end - start)

    return position, [(10.0**n, position(10.0**n)) for n in range(first, last + 1)]


def _step(most):
    """A round number that divides `most` into four to ten steps."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most / 4)


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _text(x, y, text, kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _write(path, title, height, parts):
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
    page = f'<rect width="{WIDTH}" height="{height:.0f}" class="page"/>'
    shown = [f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", page, _text(20, 26, title, "title")]
    path.write_text("\n".join([head, *shown, *parts, "</svg>\n"]))
