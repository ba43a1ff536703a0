"""When a rotation fails, the current credentials are restored to Braintrust, unless that would make things worse."""

import json
from datetime import timedelta

import pytest
from support.events import FORCED, scheduled_run
from support.http_messages import Reply
from support.kinds import USER_BASED
from support.orphaned_key import interrupt_after_set
from support.reports import failed_error, outcome
from support.staged_values import secret_of
from support.stepped_rotation import SteppedRotation
from support.world import LISTED_BY_NOW


def test_a_failed_test_restores_the_current_credentials(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)["credential_id"]
    world.age_credentials(target)
    # createSecret probes twice, so the third probe is testSecret's.
    refusal = Reply(403, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    world.aws.fail("bedrock:ListFoundationModels", refusal, skip=2)
    result = function.invoke(scheduled_run())
    assert not result.ok
    failed_error(result.report_in_error(), "permission", "bedrock", "ListFoundationModels")
    assert world.braintrust.credentials(ai_secret)["access_key"] == current
    assert world.has_working_credentials(ai_secret)
    assert outcome(function.invoke(scheduled_run())) == "resumed"
    assert world.staged_value(target)["credential_id"] != current


def test_expired_credentials_are_not_restored(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("temporary", ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    expired = world.staged_value(target) | {"expires_at": "2026-01-01T00:00:00Z"}
    world.client("secretsmanager").put_secret_value(SecretId=target["secret_id"], SecretString=json.dumps(expired))
    refusal = Reply(403, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    world.aws.fail("bedrock:ListFoundationModels", refusal, skip=1)
    result = function.invoke(scheduled_run())
    failed_error(result.report_in_error(), "permission", "bedrock", "ListFoundationModels")
    assert world.braintrust.credentials(ai_secret)["access_key"] != expired["credential_id"]
    assert world.has_working_credentials(ai_secret)


# What somebody else may do to an ai_secret.
OVERWRITES = {
    "another access key": {"secret": "x" * 40, "auth_type": "iam_credentials", "access_key": "AKIASOMEBODYELSES000"},
    "another secret": {"secret": "x" * 40},
    "another API key": {"secret": "ABSKx", "auth_type": "api_key"},
    "another region": {"region": "eu-west-1"},
}


class Overwritten:
    """A target whose ai_secret somebody overwrote an hour after its first rotation."""

    def __init__(self, world, kind, overwrite):
        self.world, self.ai_secret = world, world.new_ai_secret()
        self.target = world.new_staged_target(kind, self.ai_secret)
        self.overwrite = OVERWRITES[overwrite]
        self.function = world.new_function(self.target)

    def change_by_hand(self):
        self.world.let_time_pass(self.target, timedelta(hours=1))
        self.world.braintrust.change_by_hand(self.ai_secret, **self.overwrite)

    def check_that_a_dry_run_changes_nothing(self):
        world, target = self.world, self.target
        before = world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)
        patches = len(world.patches())
        assert outcome(self.function.invoke({"action": "rotate", "dry_run": True})) == "would_repair"
        assert (world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)) == before
        assert len(world.patches()) == patches

    def check_the_repair(self, in_step):
        world, current, keys = self.world, self.world.staged_value(self.target), self.world.iam_keys(self.target)
        stages = world.stages(self.target)
        assert outcome(self.function.invoke(scheduled_run())) == "repaired"
        assert world.has_working_credentials(self.ai_secret)
        found = world.braintrust.credentials(self.ai_secret)
        assert found["secret"] == secret_of(current) and found["region"] == self.target["region"]
        assert outcome(self.function.invoke(scheduled_run())) == in_step
        assert world.staged_value(self.target) == current and world.iam_keys(self.target) == keys
        assert world.stages(self.target) == stages


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("overwrite", OVERWRITES)
def test_a_run_that_is_not_due_repairs_what_somebody_overwrote(world, kind, overwrite):
    overwritten = Overwritten(world, kind, overwrite)
    assert outcome(overwritten.function.invoke(scheduled_run())) == "rotated"
    overwritten.change_by_hand()
    overwritten.check_that_a_dry_run_changes_nothing()
    overwritten.check_the_repair("not_due")


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("overwrite", ["another access key", "another secret"])
@pytest.mark.parametrize("rotations", [1, 2])
def test_what_somebody_overwrote_is_repaired_with_rotation_turned_on_too(world, kind, overwrite, rotations):
    overwritten = Overwritten(world, kind, overwrite)
    steps = SteppedRotation(world, overwritten.target, overwritten.function)
    steps.run()
    for _ in range(rotations - 1):
        steps.begin()
        steps.run()
    # Without overlap, these retire the previous key.
    for _ in range(2):
        assert outcome(overwritten.function.invoke(scheduled_run())) == "left_to_secrets_manager"
    overwritten.change_by_hand()
    overwritten.check_that_a_dry_run_changes_nothing()
    overwritten.check_the_repair("left_to_secrets_manager")
    # During a rotation by Secrets Manager, the ai_secret is left to its steps.
    overwritten.change_by_hand()
    steps.begin()
    before = world.braintrust.snapshot()
    assert outcome(overwritten.function.invoke(scheduled_run())) == "left_to_secrets_manager"
    assert world.braintrust.snapshot() == before
    steps.run()
    assert world.has_working_credentials(overwritten.ai_secret)


def end_the_pending_key(world, target, how):
    world.end_key_by_hand(target, world.staged_value(target, "AWSPENDING")["credential_id"], how)
    if how == "deleted":
        world.age_credentials(target, LISTED_BY_NOW, "AWSPENDING")


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("how", ["deleted", "deactivated"])
def test_the_current_credentials_replace_dead_pending_ones_until_new_ones_are_staged(world, kind, how):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    interrupt_after_set(world, function, FORCED)
    end_the_pending_key(world, target, how)
    assert not world.has_working_credentials(ai_secret)
    world.aws.fail(lambda request: request.call.startswith("iam:Create"), Reply(403), times=None)
    assert not function.invoke(FORCED).ok
    world.aws.clear_faults()
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(world.staged_value(target))
    assert outcome(function.invoke(FORCED)) == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("how", ["deleted", "deactivated"])
def test_dead_pending_credentials_are_given_up_while_the_current_ones_are_not_due(world, kind, how):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)
    interrupt_after_set(world, function, FORCED)
    end_the_pending_key(world, target, how)
    before = set(world.iam_keys(target))
    dry = function.invoke({"action": "rotate", "dry_run": True})
    assert outcome(dry) == "would_repair"
    assert not world.has_working_credentials(ai_secret) and "AWSPENDING" in world.stages(target)
    assert outcome(function.invoke(scheduled_run())) == "repaired"
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(current)
    assert world.staged_value(target) == current and "AWSPENDING" not in world.stages(target)
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert world.has_working_credentials(ai_secret) and set(world.iam_keys(target)) <= before


def test_what_somebody_has_made_current_during_a_failed_rotation_is_restored(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    before, written = world.staged_value(target), []
    world.age_credentials(target)

    def put_by_a_human(request):
        """Makes other credentials current while testSecret reads, which is after setSecret has written."""
        if request.method == "PATCH":
            written.append(request)
        if request.method != "GET" or not written:
            return False
        world.put_value(target, before)
        return True

    world.braintrust.fail(put_by_a_human, Reply(403))
    failed_error(function.invoke(scheduled_run()).report_in_error(), "permission", "braintrust")
    assert world.staged_value(target) == before
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(before)
    assert world.has_working_credentials(ai_secret)


def test_a_lost_response_is_no_reason_to_restore_credentials(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)["credential_id"]
    world.age_credentials(target)
    # The run reads once before it creates a key, setSecret reads once, and all answers to testSecret are lost.
    world.braintrust.fail("GET /v1/ai_secret/{id}", Reply(500), times=5, skip=2)
    assert not function.invoke(scheduled_run()).ok
    assert world.braintrust.credentials(ai_secret)["access_key"] not in ("ASIAOLD", current)
    assert world.has_working_credentials(ai_secret)
    assert outcome(function.invoke(scheduled_run())) == "resumed"
