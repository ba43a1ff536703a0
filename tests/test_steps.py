"""The rotation function that Secrets Manager calls: its four steps, in and out of order."""

import json
import uuid

import pytest
from support.aws_replies import FORBIDDEN_PROBE
from support.events import scheduled_run
from support.faults import DropAfter
from support.http_messages import Reply
from support.kinds import KINDS, USER_BASED
from support.local_rotation import ROTATION_STEPS
from support.reports import failed_error, outcome
from support.staged_values import secret_of
from support.stepped_rotation import SteppedRotation
from support.world import OLD_METADATA


@pytest.mark.parametrize(
    "kind", [kind if kind != "access_key" else pytest.param(kind, marks=pytest.mark.fast) for kind in KINDS]
)
def test_secrets_manager_rotates_by_the_four_steps(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    world.aws.rotation.invoke = function.invoke
    world.client("secretsmanager").rotate_secret(
        SecretId=target["secret_id"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    steps = world.aws.wait_for_rotation(target["secret_id"])
    world.aws.rotation.invoke = None
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in ROTATION_STEPS], steps
    assert world.has_working_credentials(ai_secret)
    assert world.staged_value(target)["credential_id"] == steps[-1].body["targets"][0]["credential_id"]
    assert outcome(function.invoke(scheduled_run())) == "left_to_secrets_manager"


@pytest.mark.parametrize(
    ("token", "step"), [("unknown", "createSecret"), ("pending", "setSecret"), ("pending", "finishSecret")]
)
def test_a_step_out_of_order_is_refused(world, token, step):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("temporary", ai_secret)
    before = world.braintrust.snapshot()
    pending = str(uuid.uuid4())
    world.aws.begin_rotation(target["secret_id"], pending)
    token = {"unknown": str(uuid.uuid4()), "pending": pending}[token]
    event = {"Step": step, "SecretId": target["secret_id"], "ClientRequestToken": token}
    result = world.new_function(target).invoke(event)
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert world.braintrust.snapshot() == before


def test_an_unknown_step_is_refused_with_a_list_of_steps(world, unchanged):
    rotation = SteppedRotation(world, world.new_staged_target("temporary", world.new_ai_secret()))
    unchanged()
    result = rotation.step("dropSecret")
    assert not result.ok and all(name in result.body["errorMessage"] for name in ROTATION_STEPS)


def test_a_step_is_refused_with_rotation_turned_off_and_a_finished_rotation_stays_finished(world):
    target = world.new_staged_target("temporary", world.new_ai_secret())
    function, token = world.new_function(target), str(uuid.uuid4())
    world.aws.begin_rotation(target["secret_id"], token)
    step = {"SecretId": target["secret_id"], "ClientRequestToken": token, "RotationToken": str(uuid.uuid4())}
    for name in ROTATION_STEPS:
        assert outcome(function.invoke({"Step": name, **step})) == "step_done"
    current = world.staged_value(target)
    for name in ROTATION_STEPS:
        assert outcome(function.invoke({"Step": name, **step})) == "step_done"
    assert world.staged_value(target) == current
    world.client("secretsmanager").cancel_rotate_secret(SecretId=target["secret_id"])
    result = function.invoke({"Step": "createSecret", **step})
    failed_error(result.report_in_error(), "conflict", "secrets_manager")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_first", [True, False])
def test_each_step_can_be_repeated(world, kind, is_first):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    if not is_first:
        steps.run()
        steps.begin()
    for name in ROTATION_STEPS:
        steps.run([name])
        before = steps.staged_value()
        steps.run([name])
        assert steps.staged_value() == before
    assert world.has_working_credentials(ai_secret)
    assert world.stages(steps.target)["AWSCURRENT"] == steps.token
    # Secrets Manager leaves AWSPENDING on the version. On a first version, it would look like a rotation under way.
    assert world.stages(steps.target).get("AWSPENDING") == (None if is_first else steps.token)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_first", [True, False])
def test_the_retry_of_a_rotation_whose_patch_was_refused_does_the_work(world, kind, is_first):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    if not is_first:
        steps.run()
        steps.begin()
    steps.run(["createSecret"])
    created, keys = steps.staged_value(), world.iam_keys(steps.target)
    before = world.braintrust.snapshot()
    world.braintrust.fail(lambda request: request.method == "PATCH", Reply(403), times=None)
    failed_error(steps.step("setSecret").report_in_error(), "permission", "braintrust")
    assert world.braintrust.snapshot() == before
    world.braintrust.clear_faults()
    patches = len(world.patches())
    # Secrets Manager tries all steps again. None of them may take the first version, which is current, for done.
    steps.run()
    assert len(world.patches()) == patches + 1
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(created)
    assert world.has_working_credentials(ai_secret)
    assert world.staged_value(steps.target) == created and world.iam_keys(steps.target) == keys


@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_after_createsecret_do_not_succeed_on_a_first_version_that_braintrust_does_not_hold(world, kind):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    steps.run(["createSecret"])
    assert world.stages(steps.target)["AWSCURRENT"] == steps.token
    failed_error(steps.step("testSecret").report_in_error(), "verification_failed", "braintrust")
    assert world.stages(steps.target)["AWSPENDING"] == steps.token
    steps.run()
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(world.staged_value(steps.target))


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("seconds", [1, 30])
def test_a_new_key_that_iam_does_not_list_yet_is_neither_abandoned_nor_created_again(world, kind, is_first, seconds):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    if not is_first:
        steps.run()
        steps.begin()
    before = set(world.iam_keys(steps.target))
    world.aws.requests.clear()
    world.aws.new_keys_unlisted_for = seconds
    steps.run()
    creations = [request for request in world.aws_requests() if request.call.startswith("iam:Create")]
    assert len(creations) == 1
    staged = world.staged_value(steps.target)
    assert set(world.iam_keys(steps.target)) - before == {staged["credential_id"]}
    assert all(world.iam_keys(steps.target).values()) and world.has_working_credentials(ai_secret)
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(staged)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_staged_key_is_not_deleted_because_the_answer_was_lost(world, kind):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    world.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    steps.run(["createSecret"])
    world.aws.clear_faults()
    steps.run()
    assert world.has_working_credentials(ai_secret)
    assert list(world.iam_keys(steps.target)) == [world.staged_value(steps.target)["credential_id"]]


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_that_createsecret_could_not_prove_are_not_written_by_setsecret(world, kind):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    before = world.braintrust.snapshot()
    world.aws.fail("bedrock:ListFoundationModels", FORBIDDEN_PROBE, times=None)
    steps.begin()
    assert not steps.step("createSecret").ok and not steps.step("setSecret").ok
    assert world.braintrust.snapshot() == before and not world.patches()
    world.aws.clear_faults()
    steps.run()
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_failed_test_restores_the_current_credentials_and_a_retry_resumes(world, kind):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    steps.run()
    first = world.braintrust.credentials(ai_secret)["secret"]
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    second = world.braintrust.credentials(ai_secret)["secret"]
    assert second != first
    world.aws.fail("bedrock:ListFoundationModels", FORBIDDEN_PROBE)
    result = steps.step("testSecret")
    failed_error(result.report_in_error(), "permission", "bedrock", "ListFoundationModels")
    assert world.braintrust.credentials(ai_secret)["secret"] == first
    steps.run()
    assert world.braintrust.credentials(ai_secret)["secret"] == second
    assert len(world.iam_keys(steps.target)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_testsecret_fails_where_braintrust_does_not_have_what_was_written(world, kind):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    steps.run()
    first = world.braintrust.credentials(ai_secret)
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    world.braintrust.ai_secrets[ai_secret]["metadata"] = dict(OLD_METADATA)
    result = steps.step("testSecret")
    failed_error(result.report_in_error(), "verification_failed", "braintrust")
    assert world.braintrust.credentials(ai_secret)["secret"] == first["secret"]
    assert world.has_working_credentials(ai_secret)
    assert "AWSPENDING" in world.stages(steps.target)


def test_a_secret_of_the_same_name_in_another_account_is_not_written(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    name = target["secret_id"].rsplit(":", 1)[1].rsplit("-", 1)[0]
    elsewhere = target["secret_id"].replace(":000000000000:", ":999999999999:")
    function, token = world.new_function({**target, "secret_id": name}), str(uuid.uuid4())
    world.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    result = function.invoke({"Step": "createSecret", "SecretId": elsewhere, "ClientRequestToken": token})
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    asked = [request.json()["SecretId"] for request in world.aws_requests("secretsmanager:DescribeSecret")]
    assert set(asked) == {name}


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_turning_rotation_on_without_rotating_tests_the_current_credentials(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    empty = SteppedRotation(world, target, function)
    assert outcome(empty.step("testSecret")) == "step_done"
    empty.remove_pending()
    world.client("secretsmanager").cancel_rotate_secret(SecretId=target["secret_id"])
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    before, patches = world.braintrust.snapshot(), len(world.patches())
    full = SteppedRotation(world, target, function)
    assert outcome(full.step("testSecret")) == "step_done"
    assert world.braintrust.snapshot() == before and len(world.patches()) == patches
    world.braintrust.ai_secrets[ai_secret]["metadata"] = dict(OLD_METADATA)
    result = full.step("testSecret")
    failed_error(result.report_in_error(), "verification_failed", "braintrust")
    assert len(world.patches()) == patches


def test_turning_rotation_on_fails_where_the_ai_secret_is_missing(world):
    steps = SteppedRotation(world, world.new_staged_target("access_key", str(uuid.uuid4())))
    result = steps.step("testSecret")
    failed_error(result.report_in_error(), "not_found", "braintrust")


def test_a_secret_whose_rotation_was_never_configured_is_not_one_with_rotation_turned_off(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret)
    function, token = world.new_function(target), str(uuid.uuid4())
    key = world.client("iam").create_access_key(UserName=target["user_name"])["AccessKey"]
    value = {"kind": "access_key", "credential_id": key["AccessKeyId"], "minted_at": "2026-01-01T00:00:00Z"}
    value |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    secrets_manager, secret = world.client("secretsmanager"), target["secret_id"]
    secrets_manager.put_secret_value(
        SecretId=secret, ClientRequestToken=token, SecretString=json.dumps(value), VersionStages=["AWSPENDING"]
    )
    assert "RotationEnabled" not in secrets_manager.describe_secret(SecretId=secret)
    for name in ROTATION_STEPS:
        event = {"Step": name, "SecretId": secret, "ClientRequestToken": token}
        assert outcome(function.invoke(event)) == "step_done"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ["short_term_api_key", "long_term_api_key", "access_key"])
def test_new_credentials_that_bedrock_does_not_know_yet_are_waited_for(world, kind):
    ai_secret = world.new_ai_secret()
    world.aws.new_credentials_unknown_for = 2
    steps = SteppedRotation(world, world.new_staged_target(kind, ai_secret))
    steps.run()
    assert world.has_working_credentials(ai_secret)
