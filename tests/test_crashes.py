"""Stops the function before and after every call of a rotation, for every kind and both triggers, and of a rollback.
Nothing is ever lost.

After each stop and each run Braintrust holds credentials that work. In the end AWSCURRENT, Braintrust and IAM agree, no
credential is left that nobody names, there were never more than two, and the current one was never deactivated.
"""

import itertools
import json
import os
import signal
import uuid

import pytest
from support.server import DropAfter, DropBefore, Kill

CASES = "rotations stopped"
KINDS = ["temporary", "access_key", "short_term_api_key", "long_term_api_key"]
STANDING = ["access_key", "long_term_api_key"]
FORCED = {"action": "rotate", "force": True}
ROLLBACK = {"action": "rollback", "targets": ["prod"]}
RETIRES = ("iam:UpdateAccessKey", "iam:DeleteAccessKey")
RETIRES += ("iam:UpdateServiceSpecificCredential", "iam:DeleteServiceSpecificCredential")
STOPS = ["killed before", "killed after", "connection lost before", "answer lost"]


def schedule():
    """A tick's event, with an id of its own."""
    return {"id": str(uuid.uuid4()), "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


class Rotation:
    """One target whose credentials are due, and how its rotation is started and started again."""

    def __init__(self, bench, kind, trigger):
        self.bench, self.kind, self.trigger = bench, kind, trigger
        self.ai_secret = bench.ai_secret(f"{kind} {uuid.uuid4()}")
        self.target = bench.staged_target(kind, self.ai_secret)
        self.function = bench.function(self.target)
        assert self.function.invoke(schedule()).ok
        self.first = bench.staged(self.target)
        bench.age(self.target)
        self.calls = []
        self.retired = []
        self.wrong = []
        for server in (bench.aws, bench.braintrust):
            server.clear_faults()
            server.fail(self.watch, None, times=None)
        self.event = schedule()
        self.token = str(uuid.uuid4())

    def is_ours(self, request):
        """Whether the function made the request, and not the test."""
        root = f"Credential={self.bench.stack.ministack.root['AWS_ACCESS_KEY_ID']}/"
        return root not in request.headers.get("authorization", "")

    def watch(self, request):
        """Called for every request; answers whether this is the one to stop at."""
        if not self.is_ours(request):
            return False
        if request.call in RETIRES and b"Status=Active" not in request.body:
            self.retired += request.body.decode().split("&")
        self.calls.append(request.call)
        return False

    def stop(self, fault, place):
        """Gives the fault to the call at this place."""
        seen = itertools.count()
        for server in (self.bench.aws, self.bench.braintrust):
            server.fail(lambda request: self.is_ours(request) and next(seen) == place, fault)

    def kill(self):
        if pid := self.function.pid:
            os.kill(pid, signal.SIGKILL)

    def run(self):
        """The rotation, or the same again."""
        if self.trigger == "schedule":
            return self.function.invoke(self.event).ok
        for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
            event = {"Step": step, "SecretId": self.target["secret_id"], "ClientRequestToken": self.token}
            if not self.function.invoke(event).ok:
                return False
        return True

    def begin(self):
        """What Secrets Manager does before its first step: rotation turned on, a pending version without a value."""
        if self.trigger == "rotation":
            self.bench.aws.begin_rotation(self.target["secret_id"], self.token)

    def check_braintrust(self, when):
        if not self.bench.holds_working_credentials(self.ai_secret):
            self.wrong.append(f"Braintrust holds what does not work, {when}")

    def check_the_end(self):
        held = self.bench.staged(self.target)
        if any(held["credential_id"] in field for field in self.retired):
            self.wrong.append("the current credential was deactivated")
        found = self.bench.braintrust.credentials(self.ai_secret)
        secret = held.get("api_key") or held["aws_secret_access_key"]
        if found["secret"] != secret:
            self.wrong.append("AWSCURRENT and Braintrust disagree")
        listed = self.bench.listed(self.target)
        if self.kind in STANDING and listed != {held["credential_id"]: True}:
            self.wrong.append(f"IAM has {listed}, AWSCURRENT names {held['credential_id']}")
        stages = self.bench.stages(self.target)
        if stages.get("AWSPENDING") not in (None, stages["AWSCURRENT"]):
            self.wrong.append("a pending version is left")


class Rollback(Rotation):
    """One target that was rotated twice, and its rollback."""

    def __init__(self, bench, kind):
        super().__init__(bench, kind, "rollback")
        bench.put(self.target, self.first)
        assert self.function.invoke(FORCED).ok
        self.calls.clear()
        self.retired.clear()

    def run(self):
        return self.function.invoke(ROLLBACK).ok


def faults(rotation):
    return {
        "killed before": Kill(rotation.kill, acts=False),
        "killed after": Kill(rotation.kill, acts=True),
        "connection lost before": DropBefore(),
        "answer lost": DropAfter(),
    }


def calls_of(bench, kind, trigger):
    """How many calls an undisturbed rotation makes."""
    rotation = Rotation(bench, kind, trigger)
    rotation.begin()
    rotation.calls.clear()
    assert rotation.run(), rotation.function.logs()
    return list(rotation.calls)


@pytest.mark.parametrize("stopped", STOPS)
@pytest.mark.parametrize("trigger", ["schedule", "rotation"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_survives_being(bench, kind, trigger, stopped, record_property):
    calls = calls_of(bench, kind, trigger)
    failed = []
    for place, call in enumerate(calls):
        rotation = Rotation(bench, kind, trigger)
        rotation.begin()
        rotation.stop(faults(rotation)[stopped], place)
        rotation.run()
        rotation.check_braintrust("after the stop")
        # Secrets Manager tries the whole rotation again; so does Lambda with an event that failed.
        for again in range(3):
            if rotation.run():
                break
            rotation.check_braintrust(f"after try {again + 2}")
        else:
            rotation.wrong.append("three more tries failed")
        rotation.check_braintrust("at the end")
        if trigger == "rotation":
            bench.stack.client("secretsmanager").cancel_rotate_secret(SecretId=rotation.target["secret_id"])
        if kind in STANDING:
            # Two more ticks, which find nothing due: what is left over is deactivated by one and deleted by the next.
            for _ in range(2):
                assert rotation.function.invoke(schedule()).ok, rotation.function.logs()[-2:]
        rotation.check_the_end()
        failed += [f"{stopped} call {place} ({call}): {wrong}" for wrong in rotation.wrong]
        rotation.function.stop()
    record_property(CASES, len(calls))
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("stopped", STOPS)
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_survives_being(bench, kind, again, stopped, record_property):
    undisturbed = Rollback(bench, kind)
    assert undisturbed.run(), undisturbed.function.logs()
    calls, failed = list(undisturbed.calls), []
    for place, call in enumerate(calls):
        rollback = Rollback(bench, kind)
        rollback.stop(faults(rollback)[stopped], place)
        rollback.run()
        rollback.check_braintrust("after the stop")
        if again:
            rollback.run()  # one that has succeeded is refused
            rollback.check_braintrust("after it was repeated")
        for tick in range(4):
            ok = rollback.function.invoke(schedule()).ok
            rollback.check_braintrust(f"after tick {tick + 1}")
        if not ok:
            rollback.wrong.append(f"the ticks fail: {rollback.function.logs()[-2:]}")
        rollback.check_the_end()
        failed += [f"{stopped} call {place} ({call}): {wrong}" for wrong in rollback.wrong]
        rollback.function.stop()
    record_property(CASES, len(calls))
    assert not failed, "\n".join(failed)
