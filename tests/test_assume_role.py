"""A target whose provider has moved to Braintrust's own `assume_role`: it is left alone, and nothing fails."""

import json

import pytest
from support.events import FORCED, rotation_step, scheduled_run
from support.kinds import KINDS, USER_BASED
from support.local_cloud import REGION
from support.reports import failed_error, outcome

MOVED = {"auth_type": "assume_role", "role_arn": "arn:aws:iam::000000000000:role/braintrust", "region": REGION}


def metrics(function) -> dict:
    """The last line of metrics."""
    lines = [json.loads(line) for line in function.logs() if "CloudWatchMetrics" in line]
    return lines[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_has_moved_is_left_alone_and_nothing_fails(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.braintrust.change_by_hand(ai_secret, **MOVED)
    if kind in USER_BASED:
        world.age_credentials(target)
    before, stages, keys = world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)
    for event in (scheduled_run(), FORCED, {"action": "rotate", "dry_run": True}):
        result = function.invoke(event)
        assert outcome(result) == "uses_assume_role"
        [report] = result.body["targets"]
        assert report["ai_secrets"][0]["uses_assume_role"] and not report["ai_secrets"][0]["updated"]
        # A person deletes them.
        assert [any(key in warning for warning in report.get("warnings", [])) for key in keys] == [True] * len(keys)
    assert (world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)) == (before, stages, keys)
    counted = metrics(function)
    assert (counted["RotationSucceeded"], counted["RotationFailed"], counted["CredentialAgeSeconds"]) == (1, 0, 0)
    assert "SecondsUntilExpiry" not in counted


def test_the_status_and_the_check_of_a_target_that_has_moved_are_ok_even_if_its_role_is_gone(world):
    target = world.target(world.new_ai_secret(metadata=MOVED), role_arn="arn:aws:iam::000000000000:role/gone")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "uses_assume_role"
    status = function.invoke({"action": "status"}).body
    assert status["ok"] and status["targets"][0]["state"] == "uses_assume_role"
    checked = function.invoke({"action": "check"}).body
    assert checked["ok"] and {line["result"] for line in checked["targets"][0]["lines"]} == {"ok"}


@pytest.mark.parametrize("missing", ["role_arn", "region"])
@pytest.mark.parametrize("value", ["absent", "empty"])
def test_a_provider_that_assumes_a_role_without_all_it_needs_has_not_moved(world, missing, value):
    """Every call to a model with it fails, so the run must not report success."""
    incomplete = {**MOVED, missing: ""} if value == "empty" else {k: v for k, v in MOVED.items() if k != missing}
    ai_secret = world.new_ai_secret(metadata=incomplete)
    function = world.new_function(world.target(ai_secret))
    failed_error(function.invoke(scheduled_run()).report_in_error(), "conflict", "braintrust", problem=missing)
    assert world.patches() == [] and metrics(function)["RotationFailed"] == 1
    checked = function.invoke({"action": "check"}).body
    assert not checked["ok"]
    own = [line["result"] for line in checked["targets"][0]["lines"] if ai_secret in line["what"]]
    assert own == ["failed", "warning"]
    answer = function.invoke({"action": "inventory"}).body
    assert not answer["ok"]
    [provider] = answer["providers"]
    assert provider["findings"] == [{"role_arn": "no_role", "region": "no_region"}[missing]]


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_target_that_has_moved_does_not_need_its_iam_user_or_the_right_to_list_keys(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret(metadata=MOVED))
    function = world.new_function(target)
    assert outcome(function.invoke(FORCED)) == "uses_assume_role"
    action = "iam:ListAccessKeys" if kind == "access_key" else "iam:ListServiceSpecificCredentials"
    with world.execution_policy(deny=[action]):
        result = function.invoke(scheduled_run())
        assert outcome(result) == "uses_assume_role" and result.body["targets"][0]["warnings"]
        checked = function.invoke({"action": "check"}).body
        unknown = [line for line in checked["targets"][0]["lines"] if line["result"] == "unknown"]
        assert checked["ok"] and len(unknown) == 1
    gone = world.new_function({**target, "user_name": "no-such-user"})
    result = gone.invoke(scheduled_run())
    assert outcome(result) == "uses_assume_role" and "warnings" not in result.body["targets"][0]
    [checked] = gone.invoke({"action": "check"}).body["targets"]
    assert {line["result"] for line in checked["lines"]} == {"ok"}


def test_the_destinations_that_have_not_moved_are_still_rotated(world):
    moved, other = world.new_ai_secret("moved", metadata=MOVED), world.new_ai_secret("other")
    report = world.rotate(world.target(moved, other))
    [target] = report["targets"]
    assert target["outcome"] == "rotated"
    assert [entry["updated"] for entry in target["ai_secrets"]] == [False, True]
    assert world.has_working_credentials(other) and world.braintrust.ai_secrets[moved]["metadata"] == MOVED


def test_a_project_that_has_moved_is_left_alone(world):
    function = world.new_function(world.target(world.new_project_provider(metadata=MOVED)))
    assert outcome(function.invoke(scheduled_run())) == "uses_assume_role"
    assert world.patches() == []


def test_a_rotation_by_secrets_manager_creates_nothing_and_says_how_to_end_it(world):
    target = world.new_staged_target("access_key", world.new_ai_secret(metadata=MOVED))
    function = world.new_function(target)
    token = "0" * 36
    world.aws.begin_rotation(target["secret_id"], token)
    result = function.invoke(rotation_step("createSecret", target["secret_id"], token))
    assert not result.ok
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert "cancel-rotate-secret" in json.dumps(result.body) and world.iam_keys(target) == {}


def test_a_rollback_of_a_target_that_has_moved_is_refused(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret, overlap="1h")
    function = world.new_function(target)
    for _ in range(2):
        assert outcome(function.invoke(FORCED)) == "rotated"
    world.braintrust.change_by_hand(ai_secret, **MOVED)
    stages = world.stages(target)
    result = function.invoke({"action": "rollback", "targets": ["prod"]})
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert world.stages(target) == stages


def test_a_target_that_has_moved_back_is_rotated_again(world):
    ai_secret = world.new_ai_secret(metadata=MOVED)
    function = world.new_function(world.target(ai_secret))
    assert outcome(function.invoke(scheduled_run())) == "uses_assume_role"
    world.braintrust.change_by_hand(ai_secret, "by hand", auth_type="iam_credentials", access_key="AKIABYHAND")
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret)
