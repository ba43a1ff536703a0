"""Kills the function twice in the middle of one batch, when no other batch of the run is under way."""

import os
import signal
import threading
import time

from .deployed_fleet import DeployedFleet, Member
from .faults import Kill

_LONGEST = 240


class KilledBatch:
    """The batch of these targets. It should be the last one, or the first one of a run with one batch at a time."""

    def __init__(self, fleet: DeployedFleet, victims: list[Member]):
        # When the function was dead.
        self.at: list[float] = []
        self._fleet, self._lock = fleet, threading.Lock()
        path = f"/v1/ai_secret/{victims[len(victims) // 2].ai_secret}"
        fleet.world.braintrust.fail(
            lambda request: len(self.at) < 2 and request.method == "PATCH" and request.path == path,
            Kill(self._kill, acts=False),
            times=None,
        )

    def _kill(self):
        began = time.monotonic()
        with self._lock:
            # The function repeats a request that isn't answered.
            if self.at and began < self.at[-1]:
                return
            while not self._runs_alone() and time.monotonic() < began + _LONGEST:
                time.sleep(0.2)
            # The processes of the other batches are idle, so they may be killed, too.
            doomed = self._fleet.world.cloud.ministack.functions()
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            while set(doomed) & set(self._fleet.world.cloud.ministack.functions()):
                time.sleep(0.01)
            self.at.append(time.monotonic())

    def _runs_alone(self) -> bool:
        run = self._fleet.map_run(self._fleet.under_way())
        counts = run["executionCounts"]
        return run["maxConcurrency"] == 1 or (counts["pending"], counts["running"]) == (0, 1)
