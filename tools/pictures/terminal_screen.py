"""Runs a command in a terminal, and keeps what it shows, with its colors."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Screen:
    """Rows of characters, each with its SGR codes, such as `1` for bold and `31` for red."""

    def __init__(self, columns: int):
        self.columns = columns
        self.rows: list[list[tuple[str, str]]] = [[]]
        self._column, self._codes = 0, ""

    def feed(self, output: str):
        for codes, command, is_return, is_new_line, characters in TOKEN.findall(output):
            if is_return:
                self._column = 0
            elif is_new_line:
                self.rows.append([])
                self._column = 0
            elif command == "m":
                self._codes = "" if codes in ("", "0") else f"{self._codes};{codes}".strip(";")
            elif command == "K":
                del self.rows[-1][self._column :]
            elif command:
                raise SystemExit(f"The terminal doesn't know ESC [ {codes}{command}. Add it to {__name__}.")
            for character in characters:
                self._put(character)

    def _put(self, character):
        if self._column == self.columns:
            self.rows.append([])
            self._column = 0
        self.rows[-1][self._column : self._column + 1] = [(character, self._codes)]
        self._column += 1


def run(command: list[str], columns: int, folder, variables: dict[str, str]) -> tuple[str, int]:
    """Returns what the command writes to a terminal of that width, and its exit status."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with subprocess.Popen(command, cwd=folder, env=variables, **streams) as process:
        os.close(terminal)
        written = b""
        try:
            while chunk := os.read(ours, 65_536):
                written += chunk
        except OSError:  # Linux reports the end of a terminal's output as an error
            pass
    os.close(ours)
    return written.decode(), process.returncode
