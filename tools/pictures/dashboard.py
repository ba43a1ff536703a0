"""The widgets of the template's dashboard, with what the function reported on a day of the local stack."""

import json
import re
import textwrap
from collections import defaultdict

from .day import MINUTES, Day
from .svg import dot, line, picture, rect, round_step, text
from .template import Template

WIDTH, EDGE, TOP = 800, 8, 62
UNIT, UNIT_HEIGHT = (WIDTH - 2 * EDGE) / 24, 28  # of the dashboard's grid, which has 24 columns
STATISTICS = {"Sum": sum, "Minimum": min, "Maximum": max}
SERIES = ("dot", "bad", "warn", "other")
SEARCHED = re.compile(r"""SEARCH\('\{"([^"]+)".* MetricName="(\w+)"', '(\w+)', (\d+)\)""")
LOG_ROWS, CHARACTER = 3, 6.7  # of each line in the log: its rows, and the width of its characters
MEASURED = ("Duration", "RotationDuration")
DATE = "2026-01-01"  # of the day, which only stands for any day


def draw(template: Template) -> dict[str, str]:
    day = Day(template)
    widgets = json.loads(template.properties("Dashboard")["DashboardBody"])["widgets"]
    parts = []
    for widget in widgets:
        x, y = EDGE + widget["x"] * UNIT, TOP + widget["y"] * UNIT_HEIGHT
        width, height = widget["width"] * UNIT - 8, widget["height"] * UNIT_HEIGHT - 8
        parts += [rect(x + 4, y, width, height, "panel", corner=6)]
        parts += [text(x + 14, y + 18, widget["properties"]["title"], "strong small")]
        if widget["type"] == "log":
            parts += _log(day, x + 14, y + 38, width - 20)
        else:
            parts += Graph(day, widget["properties"], x + 52, y + 28, width - 76, height - 66).parts()
    bottom = TOP + max(widget["y"] + widget["height"] for widget in widgets) * UNIT_HEIGHT
    about = "Its widgets, with the metrics and log lines that the function wrote. The time between runs is simulated."
    parts.insert(0, text(20, 46, about, "small note"))
    names = ", ".join(widget["properties"]["title"] for widget in widgets)
    description = f"The dashboard has these widgets: {names}. The run at {_time(day.fails_at)} and its retries failed."
    title = "The dashboard of a stack: a day of the local stack"
    return {"dashboard.svg": picture(title, description, WIDTH, bottom, parts)}


class Graph:
    """A widget with metrics. Lines connect the points of adjacent periods."""

    def __init__(self, day, properties, x, y, width, height):
        self.day, self.properties = day, properties
        self.x, self.y, self.width, self.height = x, y, width, height
        self.metrics = [self._metric(entry) for entry in properties["metrics"]]
        if any(metric["side"] == "right" for metric in self.metrics):
            self.width -= 20

    def parts(self):
        for hour in range(0, 25, 6):
            yield text(self._x(hour * 60), self.y + self.height + 16, f"{hour:02}:00", "small note middle")
        for side in ("left", "right"):
            shown = [metric for metric in self.metrics if metric["side"] == side]
            if shown:
                yield from self._axis(side, shown)
        label = self.x
        for metric, kind in zip(self.metrics, SERIES, strict=False):
            yield dot(label + 4, self.y + self.height + 27, kind, 3)
            yield text(label + 11, self.y + self.height + 31, metric["label"], "small note")
            label += 24 + 6.5 * len(metric["label"])

    def _metric(self, entry):
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        if "expression" in options:
            namespace, name, stat, period = SEARCHED.match(options["expression"]).groups()
            label, period = self.day.target, int(period)
        else:
            namespace, name = entry[:2]
            stat, label = options.get("stat", self.properties["stat"]), name
            period = self.properties["period"]
        values = defaultdict(list)
        for minute, value in self.day.series[namespace, name].items():
            values[minute * 60 // period].append(value)
        points = {number * period / 60: STATISTICS[stat](of_period) for number, of_period in values.items()}
        return {"name": name, "label": label, "side": options.get("yAxis", "left"), "points": points, "period": period}

    def _axis(self, side, metrics):
        """The axis of these metrics, and their points."""
        most = max(value for metric in metrics for value in metric["points"].values())
        step = round_step(max(most, 1), least=2)
        top = step * -(-max(most, 1) // step)
        measured = any(metric["name"] in MEASURED for metric in metrics)
        yield '<g class="measured">' if measured else "<g>"
        for number in range(int(top / step) + 1):
            y = self._y(number * step, top)
            if side == "left":
                yield line(self.x, y, self.x + self.width, y, "grid")
                yield text(self.x - 6, y + 4, f"{number * step:,g}", "small note end")
            else:
                yield text(self.x + self.width + 6, y + 4, f"{number * step:,g}", "small note")
        for metric in metrics:
            yield from self._points(metric, top)
        yield "</g>"

    def _points(self, metric, top):
        kind, last = SERIES[self.metrics.index(metric)], None
        for minute, value in metric["points"].items():
            x, y = self._x(minute), self._y(value, top)
            if last and minute - last[0] == metric["period"] / 60:
                yield line(*last[1:], x, y, "axis")
            yield dot(x, y, kind, 2.5)
            last = (minute, x, y)

    def _x(self, minute):
        return self.x + self.width * minute / MINUTES

    def _y(self, value, top):
        return self.y + self.height * (1 - value / top)


def _time(minute):
    return f"{minute // 60:02}:{minute % 60:02}:00"


def _log(day, x, y, width):
    """The newest first, each with its time, and with the part of the line that says what is wrong."""
    message_x = x + 84
    yield from (text(x, y, "@timestamp", "small note"), text(message_x, y, "@message", "small note"))
    for minute, message in reversed(day.errors):
        message = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", f"{DATE}T{_time(minute)}Z", message)
        message = re.sub(r'(?<="ERROR",).*(?="error":)', "… ", message)
        yield text(x, y + 17, _time(minute), "small")
        for row in textwrap.wrap(message, int((x + width - message_x) / CHARACTER), break_on_hyphens=False)[:LOG_ROWS]:
            y += 15
            yield text(message_x, y + 2, row, "log")
        y += 4
