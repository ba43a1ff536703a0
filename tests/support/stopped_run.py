"""A rotation or a rollback that is stopped at one of its calls: the function is killed, or a connection is lost."""

import itertools
import os
import signal

from .events import FORCED, ROLLBACK
from .faults import DropAfter, DropBefore, Fault, Kill
from .kinds import USER_BASED
from .template_placeholder import TEMPLATE_PLACEHOLDER
from .watched_run import WatchedRun
from .world import World

STOPS = ["killed before", "killed after", "connection lost before", "answer lost"]
_ENDS_A_KEY = (
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
    "iam:UpdateServiceSpecificCredential",
    "iam:DeleteServiceSpecificCredential",
)


def stop_at_position(stop: str, position: int, server, kill):
    """Plans the stop for the call at this position."""
    faults: dict[str, Fault] = {
        "killed before": Kill(kill, acts=False),
        "killed after": Kill(kill, acts=True),
        "connection lost before": DropBefore(),
        "answer lost": DropAfter(),
    }
    seen = itertools.count()
    server.fail(lambda request: next(seen) == position, faults[stop])


def kill_function(function):
    if pid := function.pid:
        os.kill(pid, signal.SIGKILL)


class StoppedRotation(WatchedRun):
    """A target whose credentials are due."""

    def stop_at(self, stop: str, position: int):
        stop_at_position(stop, position, self.interceptor, lambda: kill_function(self.function))

    def check_the_end(self):
        self.check_agreement()
        if self.world.staged_value(self.target)["credential_id"] in self._ended_keys():
            self.wrong.append("the current key was deactivated or deleted")

    def _ended_keys(self) -> str:
        requests = [request for request in self.interceptor.requests if request.call in _ENDS_A_KEY]
        return "\n".join(r.body.decode() for r in requests if b"Status=Active" not in r.body)


class StoppedRollback(StoppedRotation):
    """A target that has been rotated twice."""

    def run(self) -> bool:
        return self.invoke(dict(ROLLBACK, targets=[self.target["name"]])).ok


def due_rotations(
    world: World, kind: str, trigger: str, number: int, new_destination=World.new_ai_secret_of_any_name
) -> list[StoppedRotation]:
    """Rotations that have their first credentials, which one run of one function gives to all of them."""
    rotations = [StoppedRotation(world, kind, trigger, new_destination(world)) for _ in range(number)]
    world.rotate(*[rotation.target for rotation in rotations])
    for rotation in rotations:
        world.age_credentials(rotation.target)
    return rotations


def due_rotations_in_projects(world: World, kind: str, trigger: str, number: int) -> list[StoppedRotation]:
    return due_rotations(world, kind, trigger, number, World.new_project_provider_by_name)


def first_rotations(world: World, kind: str, trigger: str, number: int, value=None) -> list[StoppedRotation]:
    """Nothing is staged yet, and Braintrust has working credentials that a person created."""
    ids = world.ai_secrets_made_by_hand(number)
    return [StoppedRotation(world, kind, trigger, ai_secret, value) for ai_secret in ids]


def placeholder_rotations(world: World, kind: str, trigger: str, number: int) -> list[StoppedRotation]:
    """As in a new stack: the staged secret holds the template's placeholder."""
    return first_rotations(world, kind, trigger, number, TEMPLATE_PLACEHOLDER)


def due_rollbacks(world: World, kind: str, number: int) -> list[StoppedRollback]:
    rollbacks = [StoppedRollback(world, kind, "rollback") for _ in range(number)]
    # Otherwise the second rotation would deactivate the previous keys.
    overlap = {"overlap": "1h"} if kind in USER_BASED else {}
    targets = [rollback.target | overlap for rollback in rollbacks]
    world.rotate(*targets)
    world.rotate(*targets, event=FORCED)
    return rollbacks
