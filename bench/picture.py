"""Draws the results as SVG pictures that are readable on light and dark pages."""

import math
from pathlib import Path

from pictures.svg import dot, line, picture, rect, round_step, text

WIDTH, LEFT, RIGHT = 720, 130, 90


def bars(path: Path, title: str, unit: str, panels: dict[str, dict[str, float]], own: str):
    """Draws panels of bars, each with its own axis. The bars named `own` are highlighted."""
    parts, y = [], 44
    for name, values in panels.items():
        step = round_step(max(values.values()))
        ticks = math.ceil(max(values.values()) / step)
        scale = (WIDTH - LEFT - RIGHT) / (ticks * step)
        bottom = y + 22 + 34 * len(values)
        parts.append(text(LEFT, y + 8, name))
        for n in range(ticks + 1):
            x = LEFT + n * step * scale
            parts += [line(x, y + 18, x, bottom, "grid"), text(x, bottom + 18, f"{n * step:,g}", "middle")]
        for row, (what, value) in enumerate(values.items()):
            top = y + 26 + 34 * row
            kind = "bar" if what == own else "other"
            parts.append(rect(LEFT, top, value * scale, 22, kind))
            parts += [text(LEFT - 8, top + 16, what, "end"), text(LEFT + value * scale + 6, top + 16, _short(value))]
        parts.append(line(LEFT, y + 18, LEFT, bottom, "axis"))
        parts.append(text((WIDTH + LEFT - RIGHT) / 2, bottom + 38, unit, "middle"))
        y = bottom + 62
    figures = [f"{name}, {what}: {_short(value)}" for name, values in panels.items() for what, value in values.items()]
    path.write_text(picture(title, f"In {unit}. {'; '.join(figures)}.", WIDTH, y - 8, parts))


def log_log(path: Path, title: str, x_axis: str, y_axis: str, points: dict[float, float]):
    """Draws a line through the points, with powers of ten on both axes."""
    top, bottom, left = 50, 380, 80
    x_of, x_ticks = _decades(points.keys(), left, WIDTH - 40)
    y_of, y_ticks = _decades(points.values(), bottom, top)
    parts = []
    for value, x in x_ticks:
        parts += [line(x, top, x, bottom, "grid"), text(x, bottom + 20, f"{value:,g}", "middle")]
    for value, y in y_ticks:
        parts += [line(left, y, WIDTH - 40, y, "grid"), text(left - 8, y + 4, f"{value:,g}", "end")]
    parts += [line(left, top, left, bottom, "axis"), line(left, bottom, WIDTH - 40, bottom, "axis")]
    positions = [(x_of(x), y_of(y), y) for x, y in points.items()]
    parts.append('<polyline class="line" points="{}"/>'.format(" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in positions)))
    for x, y, value in positions:
        is_first = x == left  # other labels go to the left of their points, where the rising line does not cross them
        parts.append(dot(x, y))
        parts.append(text(x + 6 if is_first else x - 8, y - 8, f"{_short(value)} s", "" if is_first else "end"))
    parts.append(text((left + WIDTH - 40) / 2, bottom + 44, x_axis, "middle"))
    middle = (top + bottom) / 2
    parts.append(f'<g transform="rotate(-90 22 {middle})">{text(22, middle, y_axis, "middle")}</g>')
    figures = [f"{x:,g} {x_axis}: {_short(y)} {y_axis}" for x, y in points.items()]
    path.write_text(picture(title, "; ".join(figures), WIDTH, bottom + 60, parts))


def _decades(values, start, end):
    """Returns a function from values to positions from `start` to `end`, and the powers of ten with their positions."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def position(value):
        return start + (math.log10(value) - first) / (last - first) * (end - start)

    return position, [(10.0**n, position(10.0**n)) for n in range(first, last + 1)]


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
