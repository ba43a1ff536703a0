"""The action `rollback`: the previous credentials are restored to Braintrust and become current."""

import uuid
from datetime import timedelta

import pytest
from support.events import FORCED, ROLLBACK, scheduled_run
from support.faults import DropAfter
from support.http_messages import Reply
from support.kinds import KINDS, USER_BASED
from support.reports import failed_error, outcome
from support.rotated_twice import RotatedTwice
from support.staged_values import secret_of
from support.stepped_rotation import SteppedRotation


def promotes(request):
    return request.call == "secretsmanager:UpdateSecretVersionStage" and b'"AWSCURRENT"' in request.body


def promotions_of(world):
    return len([request for request in world.aws_requests() if promotes(request)])


def refuse_rollback(twice, problem="", **options):
    world = twice.world
    before, stages, keys = world.braintrust.snapshot(), world.stages(twice.target), world.iam_keys(twice.target)
    failed_error(twice.roll_back(**options).report_in_error(), "conflict", "secrets_manager", "rollback", problem)
    assert world.braintrust.snapshot() == before and world.stages(twice.target) == stages
    assert world.iam_keys(twice.target) == keys


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
@pytest.mark.parametrize("by", ["this function", "somebody else"])
def test_a_rollback_activates_a_deactivated_key_only_on_request(world, kind, by):
    # Without overlap, the second rotation has deactivated the previous key.
    twice = RotatedTwice(world, kind, overlap="0m" if by == "this function" else "1h")
    previous, current = twice.previous["credential_id"], twice.current["credential_id"]
    if by == "somebody else":
        world.end_key_by_hand(twice.target, previous, "deactivated")
    assert ("DEACTIVATING" in world.stages(twice.target)) == (by == "this function")
    for options in ({}, {"dry_run": True}, {"reactivate": False}):
        refuse_rollback(twice, problem=previous, **options)
    assert outcome(twice.roll_back(dry_run=True, reactivate=True)) == "would_roll_back"
    assert world.iam_keys(twice.target) == {previous: False, current: True}
    assert outcome(twice.roll_back(reactivate=True)) == "rolled_back"
    assert world.iam_keys(twice.target) == {previous: True, current: True}
    assert world.staged_value(twice.target) == twice.previous
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)
    assert world.has_working_credentials(twice.ai_secret)
    assert not [stage for stage in world.stages(twice.target) if stage.startswith(("RESTORING", "DEACTIVATING"))]
    # No later run takes it back.
    for _ in range(2):
        assert outcome(twice.function.invoke(scheduled_run())) == "not_due"
        assert world.iam_keys(twice.target)[previous] and world.has_working_credentials(twice.ai_secret)


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
    target = world.new_staged_target("access_key", half, overlap="1h")
    target["ai_secrets"].append({"id": other})
    function = world.new_function(target)
    for event in (scheduled_run(), FORCED):
        assert outcome(function.invoke(event)) == "rotated"
    current, stages = world.staged_value(target)["credential_id"], world.stages(target)
    world.braintrust.fail(lambda request: request.method == "PATCH" and other in request.path, Reply(403))
    result = function.invoke(ROLLBACK)
    failed_error(result.report_in_error(), "permission", "braintrust")
    assert world.stages(target) == stages
    for _ in range(3):
        for ai_secret in (half, other):
            assert world.braintrust.credentials(ai_secret)["access_key"] == current
            assert world.has_working_credentials(ai_secret)
        assert outcome(function.invoke(scheduled_run())) == "not_due"
        world.let_time_pass(target, timedelta(hours=2))
    assert world.iam_keys(target) == {current: True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [403, 503])
def test_a_rollback_whose_patch_is_refused_moves_the_stages_back(world, kind, status):
    twice = RotatedTwice(world, kind)
    stages, promotions = world.stages(twice.target), promotions_of(world)
    # The later ones write the current credentials back.
    refused = {403: 1, 503: 5}[status]
    world.braintrust.fail(lambda request: request.method == "PATCH", Reply(status), times=refused)
    result = twice.roll_back()
    failed_error(result.report_in_error(), {403: "permission", 503: "unavailable"}[status], "braintrust")
    assert promotions_of(world) == promotions + 2 and world.stages(twice.target) == stages
    assert world.staged_value(twice.target) == twice.current
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.current)
    assert world.has_working_credentials(twice.ai_secret)
    world.braintrust.clear_faults()
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.staged_value(twice.target) == twice.previous and world.has_working_credentials(twice.ai_secret)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_whose_last_answer_was_lost_has_succeeded(world, kind):
    twice = RotatedTwice(world, kind)
    world.aws.fail(promotes, DropAfter())
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.staged_value(twice.target) == twice.previous
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_that_may_not_promote_writes_nothing_to_braintrust(world, kind):
    twice = RotatedTwice(world, kind)
    before, listed = world.braintrust.snapshot(), world.iam_keys(twice.target)
    world.aws.fail(promotes, Reply(403), times=None)
    result = twice.roll_back()
    failed_error(result.report_in_error(), "unavailable", "secrets_manager", "UpdateSecretVersionStage")
    world.aws.clear_faults()
    assert world.braintrust.snapshot() == before and world.staged_value(twice.target) == twice.current
    assert world.iam_keys(twice.target) == listed
    assert outcome(twice.roll_back()) == "rolled_back"
    assert world.has_working_credentials(twice.ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_a_failed_rollback_left_in_braintrust_is_not_deleted(world, kind):
    twice = RotatedTwice(world, kind)
    written = len(world.patches())
    # After the write, Braintrust can't be read and the stages can't be moved back.
    world.braintrust.fail(
        lambda request: request.method == "GET" and len(world.patches()) > written, Reply(403), times=None
    )
    world.aws.fail(promotes, Reply(403), times=None, skip=1)
    result = twice.roll_back()
    failed_error(result.report_in_error(), "permission", "braintrust")
    world.aws.clear_faults()
    world.braintrust.clear_faults()
    listed = world.iam_keys(twice.target)
    assert list(listed.values()) == [True, True]
    for _ in range(2):
        assert world.staged_value(twice.target) == twice.previous
        assert world.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)
        # The key that was rolled back is in its overlap, so there is no room for a new one.
        failed_error(twice.function.invoke(FORCED).report_in_error(), "conflict", "iam")
        assert world.iam_keys(twice.target) == listed
        assert twice.function.invoke(scheduled_run()).ok
        assert world.iam_keys(twice.target) == listed and world.has_working_credentials(twice.ai_secret)
    refuse_rollback(twice)
