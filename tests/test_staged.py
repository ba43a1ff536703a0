"""What a scheduled run decides for a target with a staged secret, and what it reads for that."""

import json
import threading
import uuid
from collections import Counter

import pytest
from support.events import FORCED, scheduled_run
from support.http_messages import Reply
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.reports import failed_error, outcome
from support.staged_values import secret_of
from support.template_placeholder import TEMPLATE_PLACEHOLDER
from support.world import LISTED_BY_NOW


@pytest.mark.fast
@pytest.mark.parametrize("kind", KINDS)
def test_a_scheduled_run_stages_what_braintrust_receives(world, kind):
    ai_secret = world.new_ai_secret(metadata={"access_key": "AKIAOLD", "session_token": "stale", "region": "eu-west-1"})
    target = world.new_staged_target(kind, ai_secret)
    report = world.rotate(target, event=scheduled_run())
    staged, found = world.staged_value(target), world.braintrust.credentials(ai_secret)
    assert world.has_working_credentials(ai_secret)
    assert (staged["kind"], staged["target"], staged["region"]) == (kind, "prod", "us-east-1")
    assert staged["credential_id"] == report["targets"][0]["credential_id"]
    if kind.endswith("api_key"):
        assert (found["auth_type"], found["secret"]) == ("api_key", staged["api_key"])
    else:
        assert found["access_key"] == staged["aws_access_key_id"] == staged["credential_id"]
        assert found["session_token"] == staged.get("aws_session_token")
    assert "AWSPENDING" not in world.stages(target)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_the_same_event_twice_rotates_once(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function, event = world.new_function(target), scheduled_run()
    assert outcome(function.invoke(event)) == "rotated"
    first = world.staged_value(target)["credential_id"]
    assert outcome(function.invoke(event)) == "not_due"
    assert world.staged_value(target)["credential_id"] == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_event_twice_at_once_ends_in_agreement(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    functions, event = [world.new_function(target) for _ in range(2)], scheduled_run()
    threads = [threading.Thread(target=function.invoke, args=(event,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(4):
        functions[0].invoke(scheduled_run())
    assert world.has_working_credentials(ai_secret)
    staged, found = world.staged_value(target), world.braintrust.credentials(ai_secret)
    assert found["secret"] == staged.get("api_key", staged.get("aws_secret_access_key"))
    if kind in USER_BASED:
        assert world.iam_keys(target) == {staged["credential_id"]: True}


def test_a_dry_run_of_a_staged_target_changes_nothing(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    before = world.braintrust.snapshot()
    report = world.rotate(target, event={"action": "rotate", "dry_run": True})
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert world.braintrust.snapshot() == before and world.iam_keys(target) == {} and world.stages(target) == {}


def test_a_change_of_kind_never_leaves_braintrust_without_working_credentials(world):
    ai_secret, secret, user = world.new_ai_secret(), world.new_staged_secret(), world.new_user()
    kinds = ["temporary", "access_key", "long_term_api_key", "short_term_api_key", "access_key", "temporary"]
    sent = []
    world.braintrust.fail(lambda request: sent.append(request.call) or False, None, times=None)
    for kind in kinds:
        fields = {"user_name": user} if kind in USER_BASED else {}
        target = world.new_staged_target(kind, ai_secret, secret_id=secret, **fields)
        before = world.braintrust.credentials(ai_secret)
        assert outcome(world.new_function(target).invoke(scheduled_run())) == "rotated"
        assert world.has_working_credentials(ai_secret)
        if kind != kinds[0]:
            # The previous ones keep working for the gateways that still use them.
            assert world.works(before)
        staged, found = world.staged_value(target), world.braintrust.credentials(ai_secret)
        assert staged["kind"] == kind
        assert found["secret"] == staged.get("api_key", staged.get("aws_secret_access_key"))


@pytest.mark.parametrize("is_repeated", [False, True])
def test_expired_pending_credentials_are_replaced(world, is_repeated):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("temporary", ai_secret)
    function, pending = world.new_function(target), scheduled_run()
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    expired = world.staged_value(target) | {"expires_at": "2026-01-01T00:00:00Z"}
    world.client("secretsmanager").put_secret_value(
        SecretId=target["secret_id"],
        ClientRequestToken=pending["id"],
        SecretString=json.dumps(expired),
        VersionStages=["AWSPENDING"],
    )
    if is_repeated:
        # A version's value can't be changed, so this event can't bring other credentials.
        report = function.invoke(pending).report_in_error()
        failed_error(report, "conflict", "secrets_manager")
        assert "AWSPENDING" not in world.stages(target) and world.has_working_credentials(ai_secret)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret) and "AWSPENDING" not in world.stages(target)


def test_leaving_credentials_that_live_an_hour_to_secrets_manager_is_warned_of(world):
    target = world.new_staged_target("temporary", world.new_ai_secret())
    world.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    report = world.rotate(target, event=scheduled_run())
    assert "four hours" in report["targets"][0]["warnings"][0]


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("lost", ["deleted", "deactivated"])
def test_a_rotation_is_due_as_soon_as_the_current_key_is_deleted_or_deactivated(world, kind, lost):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.end_key_by_hand(target, world.staged_value(target)["credential_id"], lost)
    assert not world.has_working_credentials(ai_secret)
    if lost == "deleted":
        world.age_credentials(target, LISTED_BY_NOW)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_an_event_that_arrives_late_does_not_bring_back_old_credentials(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function, late = world.new_function(target), scheduled_run()
    assert outcome(function.invoke(late)) == "rotated"
    assert outcome(function.invoke(FORCED)) == "rotated"
    staged = world.staged_value(target)["credential_id"]
    assert outcome(function.invoke(late)) == "not_due"
    assert world.staged_value(target)["credential_id"] == staged


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_cannot_be_staged_is_deleted_and_never_written_to_braintrust(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function, before = world.new_function(target), world.braintrust.snapshot()
    world.aws.fail("secretsmanager:PutSecretValue", Reply(403), times=None)
    assert not function.invoke(scheduled_run()).ok
    assert world.iam_keys(target) == {} and world.braintrust.snapshot() == before
    world.aws.clear_faults()
    assert function.invoke(scheduled_run()).ok
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_the_role_that_manages_the_user_is_assumed_once_in_a_run(world, kind):
    actions = ["iam:*AccessKey*", "iam:*ServiceSpecificCredential*"]
    role, ai_secret = world.cloud.new_role(allow=actions), world.new_ai_secret()
    function = world.new_function(world.new_staged_target(kind, ai_secret, role_arn=role))
    for event, expected in [(scheduled_run(), "rotated"), (scheduled_run(), "not_due"), (FORCED, "rotated")]:
        world.aws.requests.clear()
        assert outcome(function.invoke(event)) == expected
        assert len(world.aws_requests("sts:AssumeRole")) == 1
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, TEMPLATE_PLACEHOLDER])
@pytest.mark.parametrize("at", ["PATCH", "UpdateSecretVersionStage"])
def test_a_first_rotation_that_failed_after_staging_is_resumed_by_the_next_run(world, kind, value, at):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, secret_id=world.new_staged_secret(value))
    function, before = world.new_function(target), world.braintrust.snapshot()
    if at == "PATCH":
        world.braintrust.fail(lambda request: request.method == "PATCH", Reply(403), times=None)
    else:
        world.aws.fail("secretsmanager:UpdateSecretVersionStage", Reply(403), times=None)
    assert not function.invoke(scheduled_run()).ok
    world.braintrust.clear_faults()
    world.aws.clear_faults()
    staged, keys = world.staged_value(target, "AWSPENDING"), world.iam_keys(target)
    assert (world.braintrust.snapshot() == before) == (at == "PATCH")
    assert outcome(function.invoke({"action": "rotate", "dry_run": True})) == "would_rotate"
    assert outcome(function.invoke(scheduled_run())) == "resumed"
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(staged)
    assert world.has_working_credentials(ai_secret)
    assert world.staged_value(target) == staged and "AWSPENDING" not in world.stages(target)
    assert world.iam_keys(target) == keys
    if kind in USER_BASED:
        assert outcome(function.invoke(scheduled_run())) == "not_due"


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_role_based_credentials_that_a_full_secret_cannot_stage_reach_braintrust(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    staged, stages = world.staged_value(target), world.stages(target)
    world.aws.secrets_manager.max_versions = 1
    for _ in range(2):
        before = world.braintrust.credentials(ai_secret)
        result = function.invoke(scheduled_run())
        assert outcome(result) == "rotated"
        [report] = result.body["targets"]
        [warning] = report["warnings"]
        assert report["credential_id"] in warning and "LimitExceeded" in warning
        found = world.braintrust.credentials(ai_secret)
        assert found["secret"] != before["secret"] and world.has_working_credentials(ai_secret)
        assert (world.staged_value(target), world.stages(target)) == (staged, stages)
    world.aws.secrets_manager.max_versions = 100
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(world.staged_value(target))


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_a_full_secret_cannot_stage_is_deleted(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    before, stages, keys = world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)
    world.aws.secrets_manager.max_versions = 1
    report = function.invoke(FORCED).report_in_error()
    failed_error(report, "configuration", "secrets_manager", "PutSecretValue", "LimitExceeded")
    assert world.braintrust.snapshot() == before
    assert world.stages(target) == stages and world.iam_keys(target) == keys


def reads_of(world, target):
    """How often the function has read each version of the staged secret."""
    asked = [request.json() for request in world.aws_requests("secretsmanager:GetSecretValue")]
    return Counter(
        read.get("VersionId") or read["VersionStage"] for read in asked if read["SecretId"] == target["secret_id"]
    )


def announcements(world):
    """How often the function has announced that it ends a key or writes older credentials again."""
    moves = [request.json() for request in world.aws_requests("secretsmanager:UpdateSecretVersionStage")]
    labels = ("RESTORING", "DEACTIVATING", "DELETING")
    return len([move for move in moves if "MoveToVersionId" in move and move["VersionStage"].startswith(labels)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_of_the_staged_secret_is_read_once_and_again_before_a_key_ends_or_is_restored(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    for event in (FORCED, FORCED, scheduled_run(), scheduled_run()):
        world.aws.requests.clear()
        assert function.invoke(event).ok
        reads = reads_of(world, target)
        assert reads and max(reads.values()) <= 1 + announcements(world), (event, reads)
