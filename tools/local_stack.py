"""Finds and stops the local stack that `make run` leaves running."""

import json
import os
import signal
import time
from pathlib import Path

from environment import ROOT

# Tests set LOCAL_STACK, so that they don't stop the stack of whoever runs them.
STATE = Path(os.environ.get("LOCAL_STACK", ROOT / ".tools/local.json"))


def save(**state):
    STATE.touch(mode=0o600)
    STATE.write_text(json.dumps(state | {"pid": os.getpid(), "started": started(os.getpid())}))


def remember(**changes):
    """Adds to what `load` returns."""
    STATE.write_text(json.dumps(json.loads(STATE.read_text()) | changes))


def started(pid):
    """When a process started, which distinguishes it from a later one with the same ID."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def load():
    """Returns what `save` was given, or None if that stack no longer runs."""
    try:
        state = json.loads(STATE.read_text())
        return state if started(state["pid"]) == state["started"] else None
    except (OSError, ValueError, KeyError):
        return None


def stop():
    """Returns whether a stack was running."""
    state = load()
    if state:
        os.kill(state["pid"], signal.SIGTERM)
        for _ in range(100):
            if not load():
                break
            time.sleep(0.1)
    STATE.unlink(missing_ok=True)
    return state is not None


def stay(seconds):
    """Keeps this process alive, without a terminal, until the time is over or a signal ends it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    time.sleep(seconds)


def in_background(work):
    """Runs `work(done)` in a child process, which may outlive this one, and returns when the child calls `done()`.

    If the child ends before that, this process exits with the same status.
    """
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.setsid()  # so that Ctrl-C reaches only the parent, which stops the child
        work(lambda: (os.write(to_parent, b"0"), os.close(to_parent)))
        return
    os.close(to_parent)
    try:
        if os.read(from_child, 1):
            return
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    raise SystemExit(os.waitstatus_to_exitcode(status))
