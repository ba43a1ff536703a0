"""Which of an IAM user's keys a scheduled run deactivates and deletes, and when."""

import time

import pytest
from support.events import FORCED, scheduled_run
from support.http_messages import Reply
from support.kinds import USER_BASED
from support.orphaned_key import orphan_key, put_pending_key
from support.reports import failed_error, outcome
from support.staged_values import secret_of


@pytest.mark.parametrize("kind", USER_BASED)
def test_user_based_credentials_are_due_by_age_and_retired_by_id(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    [first] = world.iam_keys(target)
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    second = world.staged_value(target)["credential_id"]
    assert world.iam_keys(target) == {first: False, second: True}
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert world.iam_keys(target) == {second: True}


def test_a_key_that_somebody_else_created_is_never_touched(world):
    user = world.new_user()
    iam = world.client("iam")
    human = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    time.sleep(1.1)  # the key must be older than the secret, and IAM's times are whole seconds
    target = world.new_staged_target("access_key", world.new_ai_secret(), user_name=user)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    result = function.invoke(scheduled_run())
    assert not result.ok
    error = failed_error(result.report_in_error(), "conflict", "iam", problem=user)
    assert human in str(error)
    assert world.iam_keys(target)[human] is True
    assert world.has_working_credentials(target["ai_secrets"][0]["id"])


def test_an_overlap_keeps_the_previous_credentials(world):
    target = world.new_staged_target("access_key", world.new_ai_secret(), overlap="1h")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert list(world.iam_keys(target).values()) == [True, True]
    result = function.invoke(FORCED)
    failed_error(result.report_in_error(), "conflict", "iam", problem=target["user_name"])
    assert list(world.iam_keys(target).values()) == [True, True]


def test_the_overlap_begins_when_credentials_become_current_and_not_when_they_are_created(world):
    target = world.new_staged_target("access_key", world.new_ai_secret(), overlap="1h")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    previous = world.staged_value(target)["credential_id"]
    pending = put_pending_key(world, target, "2026-01-01T00:00:00Z")
    assert outcome(function.invoke(scheduled_run())) == "resumed"
    assert world.staged_value(target)["credential_id"] == pending
    # They are old enough to be due, but the slot that a rotation needs belongs to those in their overlap.
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert world.iam_keys(target) == {previous: True, pending: True}


def test_a_key_in_the_stale_fields_of_the_other_layout_is_retired(world):
    ai_secret = world.new_ai_secret(metadata={"aws_access_key_id": "AKIAOLD"})
    target = world.new_staged_target("access_key", ai_secret)
    assert outcome(world.new_function(target).invoke(scheduled_run())) == "rotated"
    first = world.staged_value(target)["credential_id"]
    assert world.braintrust.snapshot()[ai_secret]["metadata"]["aws_access_key_id"] == first
    target["ai_secrets"][0]["layout"] = "gateway"
    function = world.new_function(target)
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.braintrust.snapshot()[ai_secret]["metadata"]["aws_access_key_id"] == first
    assert outcome(function.invoke(scheduled_run())) == "not_due"
    assert list(world.iam_keys(target)) == [world.staged_value(target)["credential_id"]]


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_a_simultaneous_rollback_makes_current_is_not_deactivated(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    first = world.stages(target)["AWSCURRENT"]

    def rolled_back(request):
        """Rolls back when the second key is current and the first is about to be retired."""
        second = world.stages(target)["AWSCURRENT"]
        if request.method == "GET" and second != first:
            world.move_stage(target, "AWSCURRENT", MoveToVersionId=first, RemoveFromVersionId=second)
        return False

    world.braintrust.fail(rolled_back, Reply(500))
    # The rotation had ended. Its retirement is left to a later run, which is warned of.
    result = function.invoke(scheduled_run())
    assert outcome(result) == "rotated"
    [report] = result.body["targets"]
    assert "AWSCURRENT" in str(report["warnings"]) and "retired" not in report
    assert list(world.iam_keys(target).values()) == [True, True]
    assert world.stages(target)["AWSCURRENT"] == first and world.has_working_credentials(ai_secret)
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(world.staged_value(target))


def test_a_deleted_key_is_reported_even_if_no_other_could_be_created(world):
    target = world.new_staged_target("long_term_api_key", world.new_ai_secret())
    function, _ = orphan_key(world, target)
    before = set(world.iam_keys(target))
    world.aws.fail("iam:CreateServiceSpecificCredential", Reply(403), times=None)
    [report] = function.invoke(scheduled_run()).report_in_error()["targets"]
    [deleted] = before - set(world.iam_keys(target))
    assert report["retired"] == [{"credential_id": deleted, "how": "deleted"}]


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_deletion_that_keeps_failing_is_retried_by_one_layer_only(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function = world.new_function(target)
    for event in (scheduled_run(), FORCED):
        assert outcome(function.invoke(event)) == "rotated"
    deletion = "iam:DeleteAccessKey" if kind == "access_key" else "iam:DeleteServiceSpecificCredential"
    world.aws.fail(deletion, Reply(500), times=None)
    world.aws.requests.clear()
    function.invoke(scheduled_run())
    assert 1 <= len(world.aws_requests(deletion)) <= 5
    assert world.has_working_credentials(target["ai_secrets"][0]["id"])
