"""Starts, finds and stops the local stack that `make run` leaves running. There is at most one."""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

from environment import ROOT

# Tests set LOCAL_STACK, so that they don't stop the stack of whoever runs them.
STATE = Path(os.environ.get("LOCAL_STACK", ROOT / ".tools/local.json"))
# Names the process that is starting a stack. That process has it locked, so that there is only one.
STARTING = STATE.with_suffix(".starting")


def save(**state):
    STATE.touch(mode=0o600)
    STATE.write_text(json.dumps(state | this_process()))


def this_process():
    return {"pid": os.getpid(), "started": started(os.getpid())}


def remember(**changes):
    """Adds to what `load` returns."""
    STATE.write_text(json.dumps(json.loads(STATE.read_text()) | changes))


def started(pid):
    """When a process started, which distinguishes it from a later one with the same ID; fails if it has ended."""
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if state[0] == "Z":  # it has ended, but its parent has not asked how
        raise ProcessLookupError
    return state[19]


def read(file):
    """Returns what a file says about a process, or None if that process no longer runs."""
    try:
        state = json.loads(file.read_text())
        return state if started(state["pid"]) == state["started"] else None
    except (OSError, ValueError, KeyError):
        return None


def load():
    """Returns what `save` was given, or None if that stack no longer runs."""
    return read(STATE)


class Start:
    """The right to start a stack, which only one process has; `in_background` passes it on to its child."""

    def __init__(self):
        STARTING.parent.mkdir(exist_ok=True)
        self.file = STARTING.open("a")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = read(STARTING)
            name = f"process {other['pid']}" if other else "another process"
            sys.exit(f"A local stack is being started by {name}. Wait until it is there, or stop it: make stop")
        self.belongs_to_this_process()

    def belongs_to_this_process(self):
        self.file.truncate(0)
        self.file.write(json.dumps(this_process()))
        self.file.flush()

    def end(self):
        self.file.truncate(0)
        self.file.close()


def stop():
    """Stops the stack that is running and the one that is being started; returns whether there was any."""
    starting = end(STARTING)
    return stop_running() or starting


def stop_running():
    """Returns whether a stack was running."""
    running = end(STATE)
    STATE.unlink(missing_ok=True)
    return running


def end(file):
    """Ends the process that a file names; returns whether it was running."""
    process = read(file)
    if not process:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process["pid"], signal.SIGTERM)
    for _ in range(100):
        if not read(file):
            return True
        time.sleep(0.1)
    sys.exit(f"Process {process['pid']} has not ended for 10 seconds. End it with: kill -9 {process['pid']}")


def stay(seconds):
    """Keeps this process alive, without a terminal, until the time is over or a signal ends it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    time.sleep(seconds)


def in_background(start, work):
    """Runs `work(done)` in a child process, which may outlive this one, and returns when the child calls `done()`.

    If the child ends before that, this process exits with the same status.
    """
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.setsid()  # so that Ctrl-C reaches only the parent, which stops the child
        start.belongs_to_this_process()  # so that `make stop` works even if the parent was killed

        def done():
            start.end()
            os.write(to_parent, b"0")
            os.close(to_parent)

        work(done)
        return
    try:
        os.close(to_parent)
        if os.read(from_child, 1):
            return
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    raise SystemExit(os.waitstatus_to_exitcode(status))
