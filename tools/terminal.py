"""What the tools show on the screen: colored words, and a line of progress."""

import os
import shutil
import sys
import time

from page import BOLD, GREEN, RED, YELLOW, Page

__all__ = ["BOLD", "GREEN", "RED", "YELLOW", "Progress", "page", "paint", "redraw"]

NARROWEST, WIDEST = 40, 140
# Output that isn't for a terminal, such as a file, doesn't depend on the terminal's width.
WITHOUT_TERMINAL = 80


def page():
    """Standard output as a page: as wide as the terminal, in colors unless NO_COLOR is set (https://no-color.org)."""
    if not sys.stdout.isatty():
        return Page(WITHOUT_TERMINAL)
    columns = shutil.get_terminal_size().columns
    return Page(min(max(columns, NARROWEST), WIDEST), not os.environ.get("NO_COLOR"))


def paint(text, code):
    return page().paint(text, code)


def redraw(text):
    # A line that wraps can't be redrawn.
    print("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)


class Progress:
    """The progress of one task.

    On a terminal, its line is redrawn. Elsewhere, a line is printed after a second and then every 30 seconds.
    """

    def __init__(self, name):
        self.name = name
        self.start = time.monotonic()
        self.next_line = 1

    def seconds(self):
        return time.monotonic() - self.start

    def text(self, doing=""):
        return f"{self.seconds():5.0f} s  {self.name}{': ' + doing if doing else ''}"

    def say(self, doing=""):
        if sys.stdout.isatty():
            redraw(self.text(doing))
        elif self.seconds() >= self.next_line:
            print(self.text(doing), flush=True)
            self.next_line += 30

    def end(self, word, code):
        clear = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{clear}{self.seconds():5.1f} s  {self.name}: {paint(word, code)}", flush=True)
