"""Writes bench/RESULTS.md and the pictures in it."""

from dataclasses import dataclass
from pathlib import Path

import picture
from machine import machine
from table import Row, markdown, round_trips

PAGE = """# Measured by `make bench`

Machine: {machine}.

{about}

"By hand in Python" is [by_hand/function.py](by_hand/function.py): Braintrust's help article, with boto3. It doesn't
probe the new credentials, and doesn't check what Braintrust has stored.

{table}

![A run in a new environment](new_environment.svg)

![Cold starts of the three functions](cold_start.svg)

![Seconds for each number of targets](scale.svg)

## The round trips of a run in a new environment

What was under way in each round trip of a run at the longest distance:

{round_trips}
"""


@dataclass(frozen=True)
class Bars:
    """A picture with a panel for each of some rows. `first` is the bar above those of the two functions that rotate."""

    file: str
    title: str
    rows: dict[str, str]
    first: tuple[str, float] | None = None

    def draw(self, directory: Path, rows: dict[str, Row]):
        shown = {title: rows[what] for title, what in self.rows.items() if what in rows}
        panels = {title: self._panel(row) for title, row in shown.items() if row.ours is not None}
        picture.bars(directory / self.file, self.title, "milliseconds", panels, own="this function")

    def _panel(self, row: Row) -> dict[str, float]:
        what, value = self.first or ("do nothing", row.nothing)
        return {what: value, "this function": row.ours, "Python, boto3": row.by_hand}


def write(directory: Path, rows: list[Row], rounds, about: str, pictures: list[Bars], scale: dict[int, str]):
    """`scale` maps the points of the last picture to the names of their rows."""
    named = {row.what: row for row in rows}
    described = "; ".join(f"{name} {value}" for name, value in machine().items())
    page = PAGE.format(machine=described, about=about, table=markdown(rows), round_trips=round_trips(rounds))
    (directory / "RESULTS.md").write_text(page)
    for bars in pictures:
        bars.draw(directory, named)
    points = {count: named[what].ours for count, what in scale.items()}
    title = "Duration of one invocation"
    picture.log_log(directory / "scale.svg", title, "targets", "seconds", points)
