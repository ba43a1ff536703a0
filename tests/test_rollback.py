"""The action `rollback`: the previous credentials are restored to Braintrust and become current."""

import uuid

import pytest
from support.aws_replies import FORBIDDEN_PROBE
from support.events import FORCED, ROLLBACK, scheduled_run
from support.faults import DropAfter
from support.http_messages import Reply
from support.kinds import KINDS, USER_BASED
from support.reports import failed_error, outcome
from support.rotated_twice import RotatedTwice
from support.staged_values import secret_of
from support.stepped_rotation import SteppedRotation


def refuse_rollback(twice):
    world = twice.world
    before, stages = world.braintrust.snapshot(), world.stages(twice.target)
    failed_error(twice.roll_back().report_in_error(), "conflict", "secrets_manager")
    assert world.braintrust.snapshot() == before and world.stages(twice.target) == stages


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_restores_the_previous_credentials_and_swaps_the_stages(world, kind):
    twice = RotatedTwice(world, kind)
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.staged_value(twice.target) == twice.previous
    assert world.staged_value(twice.target, "AWSPREVIOUS") == twice.current
    found = world.braintrust.credentials(twice.ai_secret)
    assert found["secret"] == twice.previous.get("api_key", twice.previous.get("aws_secret_access_key"))
    assert world.has_working_credentials(twice.ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_rollback_activates_keys_that_were_deactivated(world, kind):
    twice = RotatedTwice(world, kind)
    world.end_key_by_hand(twice.target, twice.previous["credential_id"], "deactivated")
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.iam_keys(twice.target) == {twice.previous["credential_id"]: True, twice.current["credential_id"]: True}
    assert world.has_working_credentials(twice.ai_secret)


def test_a_repeated_rollback_does_not_undo_the_first(world):
    twice = RotatedTwice(world, "access_key")
    assert outcome(twice.roll_back()) == "rolled_back"
    refuse_rollback(twice)
    assert outcome(twice.function.invoke(scheduled_run())) == "not_due"
    assert world.staged_value(twice.target) == twice.previous


def test_a_rotation_and_another_rollback_can_follow(world):
    twice = RotatedTwice(world, "temporary")
    assert outcome(twice.roll_back()) == "rolled_back"
    assert outcome(twice.function.invoke(scheduled_run())) == "rotated"
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.staged_value(twice.target) == twice.previous


def test_secrets_manager_can_rotate_after_a_rollback(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    steps.begin()
    steps.run()
    previous = world.staged_value(steps.target, "AWSPREVIOUS")
    assert outcome(steps.function.invoke(ROLLBACK)) == "rolled_back"
    assert world.staged_value(steps.target) == previous
    assert "AWSPENDING" not in world.stages(steps.target)
    steps.begin()
    steps.run()
    assert world.has_working_credentials(ai_secret)


def test_a_dry_run_of_a_rollback_changes_nothing(world):
    twice = RotatedTwice(world, "access_key")
    before, stages = world.braintrust.snapshot(), world.stages(twice.target)
    result = twice.roll_back(dry_run=True)
    assert outcome(result) == "would_roll_back"
    assert result.body["targets"][0]["credential_id"] == twice.previous["credential_id"]
    assert world.braintrust.snapshot() == before and world.stages(twice.target) == stages


def test_a_rollback_without_usable_previous_credentials_is_refused(world):
    target = world.new_staged_target("temporary", world.new_ai_secret())
    result = world.new_function(target).invoke(ROLLBACK)
    failed_error(result.report_in_error(), "conflict", "secrets_manager", problem="AWSPREVIOUS")
    result = world.new_function(world.target(world.new_ai_secret())).invoke(ROLLBACK)
    failed_error(result.report_in_error(), "configuration", "function", problem="secret_id")
    twice = RotatedTwice(world, "access_key")
    world.end_key_by_hand(twice.target, twice.previous["credential_id"], "deleted")
    refuse_rollback(twice)
    twice = RotatedTwice(world, "temporary")
    world.put_value(twice.target, twice.current | {"expires_at": "2026-01-01T00:00:00Z"})
    world.put_value(twice.target, twice.current | {"expires_at": "2099-01-01T00:00:00Z"})
    refuse_rollback(twice)
    twice = RotatedTwice(world, "access_key")
    world.aws.begin_rotation(twice.target["secret_id"], str(uuid.uuid4()))
    refuse_rollback(twice)


def test_a_rollback_must_name_its_targets(world):
    target = world.new_staged_target("temporary", world.new_ai_secret())
    for event in ({"action": "rollback"}, {"action": "rollback", "targets": []}):
        result = world.new_function(target).invoke(event)
        assert not result.ok and "targets" in result.report_in_error()
    result = world.new_function(target).invoke({**ROLLBACK, "force": True})
    assert not result.ok and "force" in result.report_in_error()


def test_a_rollback_that_fails_halfway_restores_the_current_credentials(world):
    half, other = world.new_ai_secret("half"), world.new_ai_secret("other")
    target = world.new_staged_target("access_key", half)
    target["ai_secrets"].append({"id": other})
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)["credential_id"]
    world.braintrust.fail(lambda request: request.method == "PATCH" and other in request.path, Reply(403))
    result = function.invoke(ROLLBACK)
    failed_error(result.report_in_error(), "permission", "braintrust")
    for _ in range(3):
        assert world.braintrust.credentials(half)["access_key"] == current
        assert world.has_working_credentials(half) and world.has_working_credentials(other)
        assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert world.iam_keys(target) == {current: True}


def promotes(request):
    return request.call == "secretsmanager:UpdateSecretVersionStage" and b'"AWSCURRENT"' in request.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_whose_last_answer_was_lost_has_succeeded(world, kind):
    twice = RotatedTwice(world, kind)
    world.aws.fail(promotes, DropAfter())
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.staged_value(twice.target) == twice.previous
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_a_failed_rollback_left_in_braintrust_is_not_deleted(world, kind):
    twice = RotatedTwice(world, kind, overlap="0m")
    shown = twice.current.get("api_key") or twice.current["credential_id"]
    # The current credentials don't work, so they can't be restored.
    world.aws.fail(lambda request: shown in request.headers.get("authorization", ""), FORBIDDEN_PROBE, times=None)
    world.aws.fail(promotes, Reply(403))
    result = twice.roll_back()
    failed_error(result.report_in_error(), "unavailable", "secrets_manager", "UpdateSecretVersionStage")
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)
    listed = world.iam_keys(twice.target)
    assert listed[twice.previous["credential_id"]] and len(listed) == 2
    for event in (FORCED, scheduled_run()):
        assert not twice.function.invoke(event).ok
        assert world.iam_keys(twice.target) == listed
    assert world.has_working_credentials(twice.ai_secret)
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.has_working_credentials(twice.ai_secret)
