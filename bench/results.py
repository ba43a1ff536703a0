"""Writes bench/RESULTS.md and the two pictures in it."""

from pathlib import Path

import picture
from machine import machine
from table import Row, markdown

PAGE = """# Measured by `make bench`

Machine: {machine}.

{about}

"By hand in Python" is [by_hand/function.py](by_hand/function.py): Braintrust's help article, with boto3. It doesn't
probe the new credentials, and doesn't check what Braintrust has stored.

{table}

![Cold starts of the three functions](cold_start.svg)

![Seconds for each number of targets](scale.svg)
"""


def write(directory: Path, rows: list[Row], about: str, cold: dict[str, str], scale: dict[int, str]):
    """`cold` maps the panels of the first picture, and `scale` the points of the second, to the names of their rows."""
    named = {row.what: row for row in rows}
    described = "; ".join(f"{name} {value}" for name, value in machine().items())
    page = PAGE.format(machine=described, about=about, table=markdown(rows))
    (directory / "RESULTS.md").write_text(page)
    panels = {
        title: {"do nothing": row.nothing, "this function": row.ours, "Python, boto3": row.by_hand}
        for title, row in ((title, named[what]) for title, what in cold.items())
        if row.ours is not None
    }
    picture.bars(directory / "cold_start.svg", "Cold start", "milliseconds", panels, own="this function")
    points = {count: named[what].ours for count, what in scale.items()}
    title = "Duration of one invocation"
    picture.log_log(directory / "scale.svg", title, "targets", "seconds", points)
