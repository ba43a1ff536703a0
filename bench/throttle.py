"""Gives a function's process, but not the servers that it calls, a CPU quota like Lambda's, with cgroups v1 or v2."""

import os
import tempfile
import time
from pathlib import Path

MEMORY_MB = 128
# "At 1,769 MB, a function has the equivalent of one vCPU." Below that, its share is proportional.
CORES = MEMORY_MB / 1769
# Lambda does not document its period. With the kernel's default of 100 ms, a small program would start within a single
# quota, as if it were not throttled.
PERIOD_US = 20_000
QUOTA_US = round(PERIOD_US * CORES)


class Throttle:
    """A context that creates cgroups with the quota. If the machine does not allow that, `missing` says why."""

    def __init__(self):
        self.missing: str | None = None
        self._groups: list[Path] = []
        self._directory = tempfile.TemporaryDirectory(prefix="throttle-")

    def __enter__(self):
        try:
            self._new_group()
        except OSError as error:
            self.missing = f"not measured: CPU cgroups are not available ({error.strerror})"
        return self

    def __exit__(self, *_):
        for group in self._groups:
            _remove(group)
        self._directory.cleanup()

    def bootstrap(self, bootstrap: Path) -> Path:
        """Returns a program that moves itself into a new cgroup and then runs the bootstrap; it serves for one start.

        A cgroup is not used twice, because ending Python takes more than one period's quota, and the next process would
        have to wait until that is made up for.
        """
        group = self._new_group()
        wrapper = Path(self._directory.name, group.name)
        wrapper.write_text(f"#!/bin/sh\necho $$ > '{group}/cgroup.procs' && exec '{bootstrap}'\n")
        wrapper.chmod(0o755)
        return wrapper

    def _new_group(self) -> Path:
        parent, is_v2 = _controller()
        group = parent / f"bench-{os.getpid()}-{len(self._groups)}"
        group.mkdir()
        self._groups.append(group)
        if is_v2:
            (group / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
        return group


def _remove(group: Path):
    # A process that was just killed stays in its cgroup for a moment, and a throttled one for longer.
    for _ in range(500):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.01)


def _controller() -> tuple[Path, bool]:
    """Returns the folder in which cgroups with a CPU quota can be created, and whether it is version 2."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted_at, kind, options, *_ = line.split()
        root = Path(mounted_at)
        if kind == "cgroup" and "cpu" in options.split(","):
            return root, False
        if kind == "cgroup2" and "cpu" in (root / "cgroup.controllers").read_text().split():
            (root / "cgroup.subtree_control").write_text("+cpu")
            return root, True
    raise FileNotFoundError(2, "none is mounted")
