"""Runs one long command: a line of progress on the screen, the whole output in a file under .tools/logs.

    step.py [--show TEXT] NAME -- COMMAND ...

On a terminal the line is redrawn with the seconds and the command's last line; elsewhere a line is written
after a second, every 30 seconds and at the end. --show prints the output's lines that contain TEXT. If the command
fails, the last lines of its output are shown, and where the rest is.
"""

import argparse
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".tools" / "logs"
TAIL = 40  # a compiler error or two
# A lone carriage return ends a redrawn progress line, as cargo and pip write them.
LINE = re.compile(rb"([^\r\n]*)(\r?\n|\r)")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RED, GREEN, YELLOW, BOLD = 31, 32, 33, 1


def paint(text, code):
    """Colours text, on a terminal only, and not where https://no-color.org asks for none."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


class Progress:
    """The one line."""

    def __init__(self, name):
        self.name = name
        self.terminal = sys.stdout.isatty()
        self.start = time.monotonic()
        self.next_line = 1

    def seconds(self):
        return time.monotonic() - self.start

    def say(self, doing=""):
        text = f"{self.seconds():5.0f} s  {self.name}{': ' + doing if doing else ''}"
        if self.terminal:
            text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line could not be redrawn
            print("\r\x1b[K" + text, end="", flush=True)
        elif self.seconds() >= self.next_line:
            print(text, flush=True)
            self.next_line += 30

    def end(self, word, code):
        clear = "\r\x1b[K" if self.terminal else ""
        print(f"{clear}{self.seconds():5.1f} s  {self.name}: {paint(word, code)}", flush=True)


def follow(process, log, progress):
    """Copies the command's output into the log until it ends, showing the newest line of it."""
    doing, rest = "", b""
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            progress.say(doing)
            if not selector.select(timeout=0.5):
                continue
            chunk = process.stdout.read()
            if not chunk:
                break
            rest += chunk
            used = 0
            for match in LINE.finditer(rest):
                used = match.end()
                doing = ESCAPES.sub("", match[1].decode(errors="replace")).strip() or doing
                if match[2] != b"\r":
                    log.write(match[1] + b"\n")
            rest = rest[used:]
            log.flush()
    log.write(rest)
    return process.wait()


def run(name, command, environment=None):
    """The command's output as lines. Exits if the command fails; leaves nothing of it running."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".log")
    environment = dict(os.environ if environment is None else environment)
    progress = Progress(name)
    if progress.terminal:  # how many crates are done: cargo tells only a terminal, unless asked
        environment |= {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "70"}
    with path.open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be stopped with all that it started
            )
        except OSError as error:
            progress.end("failed", RED)
            sys.exit(f"{command[0]}: {error.strerror}")
        try:
            status = follow(process, log, progress)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            progress.end("stopped", YELLOW)
            raise
    output = path.read_text(errors="replace").splitlines()
    if status != 0:
        progress.end("failed", RED)
        print(*output[-TAIL:], sep="\n")
        sys.exit(f"Exit status {status}. All of the output: {path}")
    progress.end("ok", GREEN)
    return output


def exit_on_signals():
    """Ctrl-C, SIGTERM and a closed terminal unwind the program, so that all it started is stopped; a second one can't
    cut that short."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number, _frame):
        for one in ends:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in ends:
        signal.signal(one, unwind)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--show")
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    exit_on_signals()
    output = run(args.name, args.command[1:] if args.command[:1] == ["--"] else args.command)
    if args.show:
        print(*(f"         {line}" for line in output if args.show in line), sep="\n")


if __name__ == "__main__":
    main()
