"""Lays out text for a page of some width, with or without colors, which the caller chooses.

Words, such as ARNs, are never cut, and neither are commands, which are in backticks. A line is longer than the page
only if a single word or command is.
"""

import re

RED, GREEN, YELLOW, BOLD = 31, 32, 33, 1
_UNBREAKABLE = re.compile(r"[^\s`]*`[^`]+`\S*|\S+")
_ENDS_WITH_COMMAND = re.compile(r"(?s)(.*:)\s+`([^`]+)`\.?")
_COLOR = re.compile(r"\x1b\[\d+m")


class Page:
    def __init__(self, width=80, colors=False):
        self.width = width
        self.colors = colors

    def at_most(self, width):
        return Page(min(width, self.width), self.colors)

    def paint(self, text, code):
        return f"\x1b[{code}m{text}\x1b[0m" if self.colors else text

    def paragraph(self, text, indent="", first=None):
        """Wraps a text. `first` replaces the indentation of the first line, and is equally wide, apart from its colors.

        A command after a colon at the text's end gets a line of its own, ready to be copied.
        """
        command = _ENDS_WITH_COMMAND.fullmatch(text)
        lines = self._wrap(command[1] if command else text, len(indent))
        lines = [indent + line for line in lines]
        if first is not None:
            lines[0] = first + lines[0][len(indent) :]
        return lines + ([f"{indent}  {command[2]}"] if command else [])

    def _wrap(self, text, indent):
        lines, room = [], 0
        for word in _UNBREAKABLE.findall(text):
            width = len(_COLOR.sub("", word))
            if lines and width < room:
                lines[-1] += " " + word
                room -= width + 1
            else:
                lines.append(word)
                room = self.width - indent - width
        return lines or [""]
