"""Formats the tables of results for the terminal and for bench/RESULTS.md."""

from dataclasses import dataclass
from itertools import zip_longest

HEADER = ("what", "do nothing", "this function", "by hand in Python", "Python / this", "remark")


@dataclass(frozen=True)
class Row:
    """A measurement of up to three functions; None stands for a function that was not measured."""

    what: str
    unit: str
    ours: float | None
    by_hand: float | None = None
    nothing: float | None = None
    remark: str = ""

    def cells(self):
        figures = [self._figure(value) for value in (self.nothing, self.ours, self.by_hand)]
        ratio = f"{self.by_hand / self.ours:.1f}" if self.by_hand and self.ours else ""
        return [self.what, *figures, ratio, self.remark]

    def _figure(self, value):
        if value is None:
            return ""
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f} {self.unit}"


def plain(row=None):
    """Formats a row in columns, or the header if there is no row."""
    what, *figures, remark = row.cells() if row else HEADER
    return f"{what:44}" + "".join(f"{figure:>18}" for figure in figures) + f"  {remark}"


def markdown(rows):
    return _markdown(HEADER, ["---", *["---:"] * 4, "---"], [row.cells() for row in rows])


def round_trips(rounds):
    """What was under way in each round trip of this function and of the one in Python."""
    both = enumerate(zip_longest(*rounds, fillvalue=[]), start=1)
    rows = [[str(number), *(", ".join(under_way) for under_way in columns)] for number, columns in both]
    return _markdown(["round trip", "this function", "by hand in Python"], ["---:", "---", "---"], rows)


def _markdown(*lines):
    *head, rows = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*head, *rows])
