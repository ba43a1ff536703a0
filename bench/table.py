"""Formats the table of results for the terminal and for bench/RESULTS.md."""

from dataclasses import dataclass

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
    return f"{what:34}" + "".join(f"{figure:>18}" for figure in figures) + f"  {remark}"


def markdown(rows):
    lines = [HEADER, ["---", *["---:"] * 4, "---"], *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
