"""Kills the function twice in the middle of one batch, when all other batches of the run are done."""

import os
import signal
import time

from .deployed_fleet import DeployedFleet, Member
from .faults import Kill

_LONGEST = 240


class KilledBatch:
    def __init__(self, fleet: DeployedFleet, victims: list[Member]):
        # When the function was dead.
        self.at: list[float] = []
        self._fleet = fleet
        path = f"/v1/ai_secret/{victims[len(victims) // 2].ai_secret}"
        fleet.world.braintrust.fail(
            lambda request: request.method == "PATCH" and request.path == path, Kill(self._kill, acts=False), times=2
        )

    def _kill(self):
        deadline = time.monotonic() + _LONGEST
        while not self._others_are_done() and time.monotonic() < deadline:
            time.sleep(0.2)
        # The others wait for their next event.
        doomed = self._fleet.world.cloud.ministack.functions()
        for pid in doomed:
            os.kill(pid, signal.SIGKILL)
        while set(doomed) & set(self._fleet.world.cloud.ministack.functions()) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.at.append(time.monotonic())

    def _others_are_done(self) -> bool:
        counts = self._fleet.map_run(self._fleet.under_way())["executionCounts"]
        return (counts["pending"], counts["running"]) == (0, 1)
