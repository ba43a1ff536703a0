"""What `make run` leaves running: where it is, for `make status` and its siblings; and how it is ended."""

import json
import os
import signal
import time
from pathlib import Path

from step import ROOT

# A test has one of its own, so that it does not end what somebody left running.
STATE = Path(os.environ.get("LOCAL_STACK", ROOT / ".tools/local.json"))


def save(**state):
    STATE.touch(mode=0o600)
    STATE.write_text(json.dumps(state | {"pid": os.getpid(), "started": started(os.getpid())}))


def started(pid):
    """When a process began: its number may be another's by now."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def load():
    """What runs, or None."""
    try:
        state = json.loads(STATE.read_text())
        return state if started(state["pid"]) == state["started"] else None
    except (OSError, ValueError, KeyError):
        return None


def stop():
    """Ends what runs; answers whether anything did."""
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
    """The rest of the life of what stays: until it is ended, or nobody has for so long."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    time.sleep(seconds)


def in_background(work):
    """Runs `work(done)` in a process that may outlive this one; this one ends with it, or when it says `done()`."""
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(from_child)
        os.setsid()  # Ctrl-C is the parent's to hand on
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
