"""What happens to the credentials of a rotation by Secrets Manager that is abandoned or canceled."""

import uuid

import pytest
from support.events import scheduled_run
from support.http_messages import Reply
from support.local_rotation import ROTATION_STEPS
from support.reports import failed_error, outcome
from support.stepped_rotation import SteppedRotation
from support.template_placeholder import TEMPLATE_PLACEHOLDER


def test_the_key_of_an_abandoned_rotation_is_deleted_by_the_next_one(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    current = world.staged_value(steps.target)["credential_id"]
    steps.begin()
    steps.run(["createSecret"])
    abandoned = world.staged_value(steps.target, "AWSPENDING")["credential_id"]
    steps.remove_pending()
    steps.begin()
    steps.run()
    assert set(world.iam_keys(steps.target)) == {current, world.staged_value(steps.target)["credential_id"]}
    assert abandoned not in world.iam_keys(steps.target)


def test_a_pending_version_of_another_token_is_not_touched(world):
    steps = SteppedRotation(world, world.new_staged_target("access_key", world.new_ai_secret()))
    steps.run(["createSecret"])
    pending = world.staged_value(steps.target, "AWSPENDING")
    for name in ROTATION_STEPS:
        result = steps.step(name, token=str(uuid.uuid4()))
        failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert world.staged_value(steps.target, "AWSPENDING") == pending
    assert list(world.iam_keys(steps.target)) == [pending["credential_id"]]


@pytest.mark.parametrize("by", ["schedule", "rotation"])
def test_a_version_that_was_current_before_does_not_become_current_again(world, by):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    # Only a first version doesn't keep AWSPENDING.
    steps.begin()
    steps.run()
    # An operator puts another value, and Secrets Manager leaves AWSPENDING where it was.
    world.put_value(steps.target, world.staged_value(steps.target) | {"minted_at": "2026-01-01T00:00:00Z"})
    assert world.stages(steps.target)["AWSPENDING"] == steps.token == world.stages(steps.target)["AWSPREVIOUS"]
    current = world.stages(steps.target)["AWSCURRENT"]
    if by == "schedule":
        assert outcome(steps.function.invoke(scheduled_run())) == "left_to_secrets_manager"
    else:
        result = steps.step("createSecret")
        failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert "AWSPENDING" not in world.stages(steps.target)
    assert world.stages(steps.target)["AWSCURRENT"] == current
    steps.begin()
    steps.run()
    assert world.has_working_credentials(ai_secret)


def test_the_current_credentials_replace_dead_pending_ones_in_braintrust(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    current = world.staged_value(steps.target)["credential_id"]
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    world.end_key_by_hand(steps.target, world.staged_value(steps.target, "AWSPENDING")["credential_id"], "deactivated")
    result = steps.step("testSecret")
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert world.braintrust.credentials(ai_secret)["access_key"] == current
    assert world.has_working_credentials(ai_secret)


def test_a_scheduled_run_resumes_a_rotation_that_was_canceled(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run(["createSecret"])
    pending = world.staged_value(steps.target, "AWSPENDING")["credential_id"]
    world.client("secretsmanager").cancel_rotate_secret(SecretId=steps.target["secret_id"])
    assert outcome(steps.function.invoke(scheduled_run())) == "resumed"
    assert world.staged_value(steps.target)["credential_id"] == pending
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("how", ["deleted", "deactivated"])
def test_a_rotation_whose_key_was_deleted_or_deactivated_is_abandoned(world, is_first, how):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret, secret_id=world.new_staged_secret(TEMPLATE_PLACEHOLDER))
    steps = SteppedRotation(world, target)
    if not is_first:
        steps.run()
        steps.begin()
    steps.run(["createSecret"])
    world.end_key_by_hand(target, world.staged_value(target, "AWSPENDING")["credential_id"], how)
    if how == "deleted":
        steps.age_pending()
    result = steps.step("setSecret")
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert "AWSPENDING" not in world.stages(target)
    steps.begin()
    steps.run()
    assert world.has_working_credentials(ai_secret)


def test_a_rotation_whose_first_version_lost_its_key_starts_afresh(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run(["createSecret"])
    # Secrets Manager has made the first version current.
    assert world.stages(steps.target) == {"AWSPENDING": steps.token, "AWSCURRENT": steps.token}
    world.end_key_by_hand(steps.target, steps.staged_value()["credential_id"], "deactivated")
    failed_error(steps.step("setSecret").report_in_error(), "conflict", "secrets_manager")
    assert "AWSPENDING" not in world.stages(steps.target) and not world.patches()
    steps.begin()
    steps.run()
    assert world.has_working_credentials(ai_secret)
    assert world.iam_keys(steps.target)[world.staged_value(steps.target)["credential_id"]]


def test_a_young_key_that_iam_does_not_list_does_not_end_the_rotation(world):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    current = world.staged_value(steps.target)
    steps.begin()
    steps.run(["createSecret"])
    world.end_key_by_hand(steps.target, steps.staged_value()["credential_id"], "deleted")
    result = steps.step("setSecret")
    failed_error(result.report_in_error(), "invalid_credentials", "bedrock")
    assert world.stages(steps.target)["AWSPENDING"] == steps.token
    assert world.braintrust.credentials(ai_secret)["access_key"] == current["credential_id"]


@pytest.mark.parametrize("status", [403, 503])
def test_a_rotation_is_not_abandoned_before_braintrust_has_working_credentials(world, status):
    ai_secret = world.new_ai_secret()
    steps = SteppedRotation(world, world.new_staged_target("access_key", ai_secret))
    steps.run()
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    world.end_key_by_hand(steps.target, world.staged_value(steps.target, "AWSPENDING")["credential_id"], "deactivated")
    world.braintrust.fail(lambda request: request.method == "PATCH", Reply(status), times=None)
    assert not steps.step("testSecret").ok
    world.braintrust.clear_faults()
    assert "AWSPENDING" in world.stages(steps.target) and not world.has_working_credentials(ai_secret)
    failed_error(steps.step("testSecret").report_in_error(), "conflict", "secrets_manager")
    assert "AWSPENDING" not in world.stages(steps.target) and world.has_working_credentials(ai_secret)
