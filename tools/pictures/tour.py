"""The terminal tour: a rotation, and how a fault is found and mended."""

import itertools
import os
import re
import tempfile

from environment import ROOT

from .svg import picture, rect, text
from .template import Template
from .terminal_screen import Screen, run

# The arguments of `make`, and whether it succeeds.
TOUR = [("run", True), ("break WHAT=trust", True), ("doctor", False), ("mend", True), ("doctor", True)]
COLUMNS, CHARACTER, ROW, LEFT, TOP = 80, 7.2, 15.5, 20, 62
WIDTH = round(2 * LEFT + COLUMNS * CHARACTER)
# The details of a check that didn't fail, which begin further right than the check itself.
DETAILS = re.compile(r"(?<=\n)(  (?:\x1b\[\d+m)?(?:ok|unknown)\b.*?)\r\n(?: {8}.*\n)+")
COLORS = {"1": "strong", "2": "note", "31": "bad", "32": "good", "33": "warn", "34": "bar", "36": "bar"}


def draw(_template: Template) -> dict[str, str]:
    """Draws the whole tour, and its first command as a picture of its own."""
    with tempfile.TemporaryDirectory() as folder:
        variables = _variables(folder)
        try:
            acts = [_act(arguments, succeeds, variables) for arguments, succeeds in TOUR]
        finally:
            run(["make", "stop"], COLUMNS, ROOT, variables)
    return {
        "tour.svg": _picture("The tour, on the local stack", acts),
        "run.svg": _picture("A rotation on the local stack", acts[:1]),
    }


def _picture(title, acts):
    screen = Screen(COLUMNS)
    screen.feed("\r\n".join(acts).rstrip())
    parts = [rect(8, TOP - 22, WIDTH - 16, len(screen.rows) * ROW + 16, "panel", corner=8)]
    for number, row in enumerate(screen.rows):
        parts += words(row, TOP + number * ROW)
    written = "\n".join("".join(character for character, _ in row) for row in screen.rows)
    return picture(title, f"A terminal that shows:\n{written}", WIDTH, TOP + len(screen.rows) * ROW + 4, parts)


def _variables(folder):
    """The variables of a fresh shell, and a local stack of the tour's own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    kept = {name: value for name, value in kept.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return kept | {"TERM": "xterm-256color", "LOCAL_STACK": f"{folder}/local.json"}


def _act(arguments, succeeds, variables):
    """A prompt with the command, and what the command writes."""
    command = f"make {arguments}"
    output, status = run(command.split(), COLUMNS, ROOT, variables)
    if (status == 0) != succeeds:
        raise SystemExit(f"{command} had the exit status {status} in the tour, and wrote:\n{output}")
    return f"\x1b[1m$ {command}\x1b[0m\r\n{without_details(output)}"


def without_details(output):
    return DETAILS.sub(r"\1 …\r\n", output)


def words(row, y):
    """Text elements of words with one color and single spaces. Their length doesn't depend on the reader's font."""
    start = 0
    for codes, cells in itertools.groupby(row, key=lambda cell: cell[1]):
        content = "".join(character for character, _ in cells)
        kinds = " ".join(["code", *(COLORS[code] for code in codes.split(";") if code)])
        for found in re.finditer(r"\S+( \S+)*", content):
            length = f' textLength="{len(found[0]) * CHARACTER:.1f}" class='
            yield text(LEFT + (start + found.start()) * CHARACTER, y, found[0], kinds).replace(" class=", length, 1)
        start += len(content)
