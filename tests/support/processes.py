"""Finds and ends a process and everything that it started."""

import os
import signal
import subprocess
from pathlib import Path


def children(pid: int) -> list[int]:
    # Not every kernel has /proc/<pid>/task/*/children.
    found = []
    # Path.glob would raise where a process has just ended.
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            # The name in front of the closing bracket may contain spaces and brackets.
            state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(name))
    return sorted(found)


def kill_tree(process: subprocess.Popen):
    """Kills the process's own group, and descendants that moved to another one."""
    doomed, queue = [], [process.pid]
    while queue:
        pid = queue.pop()
        doomed.append(pid)
        queue += children(pid)
    if process.poll() is None:
        _kill(os.killpg, process.pid)
    for pid in doomed[1:]:
        _kill(os.kill, pid)
    process.wait()


def _kill(kill, pid: int):
    try:
        kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
