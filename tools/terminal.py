"""What the tools show on the screen: colored words, and a line of progress."""

import os
import shutil
import sys
import time

RED, GREEN, YELLOW, BOLD = 31, 32, 33, 1


def paint(text, code):
    """Colors text on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


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
