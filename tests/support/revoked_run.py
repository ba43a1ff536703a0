"""A revocation of one target, by a function whose calls can be disturbed, and what must be true of it afterwards."""

import json
import time
import uuid

from .events import FORCED, scheduled_run
from .kinds import USER_BASED
from .stopped_run import StoppedRotation
from .watched_run import LONGER_THAN_ANY_RUN
from .world import World

REVOKE = {"action": "revoke", "targets": ["prod"]}
# What the function needs to end the sessions of a role.
ENDS_SESSIONS = ["iam:PutRolePolicy", "iam:GetRolePolicy"]
_TRIES = 3


def new_role(world: World) -> str:
    """The ARN of a role that only this test uses, because its sessions are ended."""
    allowed = ["bedrock:ListFoundationModels", "bedrock:CallWithBearerToken"]
    return world.cloud.new_role(name=f"revoked-{uuid.uuid4().hex[:12]}", allow=allowed)


def end_earlier_sessions(world: World, role: str):
    """Writes the policy by which a revocation ends a role's sessions."""
    date = {"DateLessThan": {"aws:TokenIssueTime": "2026-01-15T12:00:00Z"}}
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": date}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    world.client("iam").put_role_policy(RoleName=role, PolicyName="AWSRevokeOlderSessions", PolicyDocument=policy)


class RevokedRun(StoppedRotation):
    """A target that has been rotated twice, and whose credentials have leaked."""

    def __init__(self, world: World, kind: str):
        super().__init__(world, kind, "revocation")
        fields = {"overlap": "1h"} if kind in USER_BASED else {"role_arn": new_role(world), "revoke_sessions": True}
        self.target |= fields

    def leak(self):
        self.leaked = self.world.braintrust.credentials(self.ai_secret)

    def run(self) -> bool:
        result = self.invoke(REVOKE | {"targets": [self.target["name"]]})
        self.answer = result.body
        return result.ok

    def recover(self, with_scheduled_runs: bool):
        """Repeats the command, after some scheduled runs if there are to be any."""
        self.check_braintrust("after the disturbance")
        is_begun = self._is_begun()
        if self.kind in USER_BASED:
            # A label that a killed run left keeps a key until no run of that time can be under way.
            self.world.let_time_pass(self.target, LONGER_THAN_ANY_RUN)
        if with_scheduled_runs:
            for run in range(_TRIES):
                self.invoke(scheduled_run())
                self.check_braintrust(f"after scheduled run {run + 1}")
            if self.kind in USER_BASED and is_begun and self.world.works(self.leaked):
                self.wrong.append("scheduled runs did not end the leaked credentials")
        if not any(self.run() for _ in range(_TRIES)):
            self.wrong.append(f"the command failed {_TRIES} times: {self.answer}")
        self.check_braintrust("at the end")
        self.check_agreement()
        if self.world.works(self.leaked):
            self.wrong.append("the leaked credentials still work")
        self.stop()

    def _is_begun(self) -> bool:
        """Whether the current version, or the previous one after the successor has become current, is marked."""
        stages = self.world.stages(self.target)
        marked = {version for stage, version in stages.items() if stage.startswith("REVOKING_")}
        return bool(marked & {stages["AWSCURRENT"], stages["AWSPREVIOUS"]})


def leaked_runs(world: World, kind: str, number: int) -> list[RevokedRun]:
    runs = [RevokedRun(world, kind) for _ in range(number)]
    targets = [run.target for run in runs]
    world.rotate(*targets)
    world.rotate(*targets, event=FORCED)
    for run in runs:
        run.leak()
    time.sleep(1.1)  # sessions are told apart by whole seconds
    return runs
