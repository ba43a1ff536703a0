"""A CPU quota like Lambda's for one function's process, and not for the servers that it calls: a cgroup, v1 or v2."""

import os
import tempfile
import time
from pathlib import Path

MEMORY_MB = 128
# "At 1,769 MB, a function has the equivalent of one vCPU", and it is proportional below.
CORES = MEMORY_MB / 1769
# Lambda does not document its period. The kernel's 100 ms would let a small program start within a single quota,
# as if nothing held it.
PERIOD_US = 20_000
QUOTA_US = round(PERIOD_US * CORES)


class Throttle:
    """A context that makes cgroups with the quota; where the machine allows none, `missing` says why."""

    def __init__(self):
        self.missing: str | None = None
        self._groups: list[Path] = []
        self._directory = tempfile.TemporaryDirectory(prefix="throttle-")

    def __enter__(self):
        try:
            self._new_group()
        except OSError as error:
            self.missing = f"not measured: no CPU cgroup ({error.strerror})"
        return self

    def __exit__(self, *_):
        for group in self._groups:
            _remove(group)
        self._directory.cleanup()

    def bootstrap(self, bootstrap: Path) -> Path:
        """A program that enters a new cgroup and becomes that bootstrap; for one start.

        What ran before it in the same cgroup would leave its debt: to end Python takes more than one period's quota.
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
    # A process that was just killed stays in it for a moment, and a throttled one for longer.
    for _ in range(500):
        try:
            return group.rmdir()
        except OSError:
            time.sleep(0.01)


def _controller() -> tuple[Path, bool]:
    """Where cgroups with a CPU quota can be made, and whether that is version 2."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted_at, kind, options, *_ = line.split()
        root = Path(mounted_at)
        if kind == "cgroup" and "cpu" in options.split(","):
            return root, False
        if kind == "cgroup2" and "cpu" in (root / "cgroup.controllers").read_text().split():
            (root / "cgroup.subtree_control").write_text("+cpu")
            return root, True
    raise FileNotFoundError(2, "none is mounted")
