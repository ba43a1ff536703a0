"""Runs long commands with a line of progress for each, and keeps their output in files under .tools/logs.

    step.py NAME -- COMMAND ...

If a command fails, the end of its output is shown, with the name of the file that has all of it.
"""

import os
import re
import selectors
import signal
import subprocess
import sys

import environment
from environment import ROOT
from signals import exit_on_signals
from terminal import GREEN, RED, YELLOW, Progress, redraw

LOGS = ROOT / ".tools" / "logs"
TAIL = 40  # enough lines for one or two compiler errors
# A lone carriage return ends a redrawn progress line, as cargo and pip write them.
LINE = re.compile(rb"([^\r\n]*)(\r?\n|\r)")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Step:
    """One command: its process, its log, and the newest line of its output."""

    def __init__(self, name, command, variables=None, show=None):
        """If the command succeeds, the lines of output that contain `show` are printed.

        `variables` is the whole environment; without it, the command inherits this process's own.
        """
        self.name = name
        self.command = [str(part) for part in command]
        self.show = show
        self.variables = variables
        self.log = LOGS / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".log")
        self.doing, self.unread = "", b""
        self.progress = self.process = self.file = None

    def start(self):
        """Returns whether the command could be started."""
        LOGS.mkdir(parents=True, exist_ok=True)
        self.progress = Progress(self.name)
        variables = dict(os.environ if self.variables is None else self.variables)
        if sys.stdout.isatty():  # without these, cargo shows how many crates are done only on a terminal
            variables |= {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "70"}
        try:
            self.process = subprocess.Popen(
                self.command,
                env=variables,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be stopped together with all that it started
            )
        except OSError as error:
            self.progress.end("failed", RED)
            print(f"{self.command[0]}: {error.strerror}", file=sys.stderr, flush=True)
            return False
        self.file = self.log.open("wb")
        os.set_blocking(self.process.stdout.fileno(), False)
        return True

    def read(self):
        """Copies new output into the log; returns False at its end."""
        chunk = self.process.stdout.read()
        if not chunk:
            return False
        self.unread += chunk
        used = 0
        for match in LINE.finditer(self.unread):
            used = match.end()
            self.doing = ESCAPES.sub("", match[1].decode(errors="replace")).strip() or self.doing
            if match[2] != b"\r":
                self.file.write(match[1] + b"\n")
        self.unread = self.unread[used:]
        self.file.flush()
        return True

    def finish(self):
        """Prints how the command ended; returns whether it succeeded."""
        self.file.write(self.unread)
        self.file.close()
        status = self.process.wait()
        if status == 0:
            self.progress.end("ok", GREEN)
            shown = [line for line in self.output() if self.show and self.show in line]
            print(*(f"         {line}\n" for line in shown), sep="", end="", flush=True)
            return True
        self.progress.end("failed", RED)
        print(*self.output()[-TAIL:], sep="\n", flush=True)
        print(f"Exit status {status}. The whole output is in {self.log}.", file=sys.stderr, flush=True)
        return False

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
        self.file.close()
        self.progress.end("stopped", YELLOW)

    def output(self):
        return self.log.read_text(errors="replace").splitlines()


def run_side_by_side(*queues):
    """Runs the queues side by side, and the steps of each queue in order; returns the steps that failed."""
    waiting, failed = [list(queue) for queue in queues], []
    with selectors.DefaultSelector() as selector:

        def running():
            return [key.data[0] for key in selector.get_map().values()]

        def start_next(queue):
            while queue:
                step = queue.pop(0)
                if step.start():
                    selector.register(step.process.stdout, selectors.EVENT_READ, (step, queue))
                    return
                failed.append(step)

        try:
            for queue in waiting:
                start_next(queue)
            while steps := running():
                _say(steps)
                for key, _ in selector.select(timeout=0.5):
                    step, queue = key.data
                    if step.read():
                        continue
                    if not step.finish():
                        failed.append(step)
                    selector.unregister(step.process.stdout)
                    start_next(queue)
        except BaseException:
            for step in running():
                step.stop()
            raise
    return failed


def _say(steps):
    if sys.stdout.isatty():
        redraw(" | ".join(step.progress.text(step.doing) for step in steps))
    else:
        for step in steps:
            step.progress.say(step.doing[:100])  # some programs write lines of a thousand characters


def run(name, command, variables=None, show=None):
    """Runs one command and returns the lines of its output; exits if it fails."""
    step = Step(name, command, variables, show)
    if run_side_by_side([step]):
        sys.exit(1)
    return step.output()


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit("Usage: step.py NAME -- COMMAND ...")
    environment.prepare()
    exit_on_signals()
    run(sys.argv[1], sys.argv[3:])


if __name__ == "__main__":
    main()
