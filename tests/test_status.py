"""The action `status`: it reports the state of each target, and changes nothing."""

import json

import pytest
from support.aws_replies import xml_error
from support.events import scheduled_run
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.reports import outcome

STATUS = {"action": "status"}


def status(function, **options):
    """The status of the one target. A bad status doesn't fail the invocation."""
    result = function.invoke({**STATUS, **options})
    assert result.ok, result.body
    [target] = result.body["targets"]
    assert result.body["ok"] == (target["state"] == "ok")
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_the_status_of_a_rotated_target_is_ok_and_reading_it_changes_nothing(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function = world.new_function(target)
    assert status(function)["state"] == "never_rotated"
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)
    before, stages, listed = world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)
    found = status(function)
    assert (found["state"], found["kind"], found["credential_id"]) == ("ok", kind, current["credential_id"])
    # Braintrust doesn't show API keys.
    assert found["ai_secrets"][0].get("holds_current") is (None if kind.endswith("api_key") else True)
    assert 0 <= found["age_seconds"] < 60
    # Only the versions of user-based credentials are labelled with the time.
    assert ("current_since" in found) == (kind in USER_BASED)
    assert found.get("expires_at") == current.get("expires_at")
    assert found["rotated_by"] == "schedule"
    assert (found["next_rotation"] == "next_scheduled_run") == (kind not in USER_BASED)
    assert (world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)) == (before, stages, listed)


def test_without_a_staged_secret_the_status_comes_from_braintrust(world):
    ai_secret = world.new_ai_secret()
    function = world.new_function(world.target(ai_secret))
    report = function.invoke({"action": "rotate"}).body["targets"][0]
    found = status(function)
    assert (found["state"], found["credential_id"]) == ("ok", report["credential_id"])
    assert found["expires_at"][:16] >= report["expires_at"][:16]
    assert "holds_current" not in found["ai_secrets"][0]
    world.braintrust.ai_secrets[ai_secret]["secret_updated_at"] = "2026-01-01T00:00:00Z"
    assert status(function)["state"] == "expired"


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_without_a_staged_secret_the_state_is_unknown_on_an_older_data_plane(world, kind):
    world.braintrust.older_data_plane = True
    function = world.new_function(world.target(world.new_ai_secret(), kind=kind))
    assert function.invoke({"action": "rotate"}).ok
    found = status(function)
    assert found["state"] == "unknown" and "error" not in found


def test_an_ai_secret_that_somebody_else_changed_is_out_of_step(world):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target("access_key", ai_secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] = "AKIASOMEBODYELSES000"
    found = status(function)
    assert found["state"] == "out_of_step"
    assert found["ai_secrets"][0]["access_key_id"] == "AKIASOMEBODYELSES000"


def test_an_access_key_in_place_of_temporary_credentials_is_out_of_step(world):
    ai_secret = world.new_ai_secret()
    function = world.new_function(world.target(ai_secret))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert status(function)["state"] == "ok"
    world.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] = "AKIASOMEBODYELSES000"
    assert status(function)["state"] == "out_of_step"


def test_credentials_that_are_older_than_rotate_after_are_overdue(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    found = status(function)
    assert (found["state"], found["next_rotation"]) == ("overdue", "next_scheduled_run")


def test_credentials_are_current_since_the_rotation_although_later_ones_fail(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    since = status(function)["current_since"]
    world.aws.fail("iam:CreateAccessKey", xml_error("iam", 403, "AccessDenied", "not authorized"))
    assert not function.invoke({"action": "rotate", "force": True}).ok
    assert status(function)["current_since"] == since


def test_a_rotation_by_secrets_manager_that_is_in_progress_is_reported(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.aws.begin_rotation(target["secret_id"], "0" * 36)
    found = status(function)
    assert (found["rotated_by"], found["rotation_under_way"]) == ("secrets_manager", True)


def test_an_error_is_reported_where_the_state_cannot_be_read(world):
    missing = world.new_staged_target("access_key", world.new_ai_secret(), secret_id="gone")
    found = status(world.new_function(missing))
    assert found["state"] == "unknown" and found["error"]["class"] == "not_found"
    refused = world.new_ai_secret("x", type="openai")
    found = status(world.new_function(world.target(refused)))
    assert found["state"] == "unknown" and found["error"]["class"] == "conflict"


def test_a_status_can_name_its_targets_and_shows_no_secret(world):
    one, two = (
        world.target(world.new_ai_secret("one"), name="one"),
        world.target(world.new_ai_secret("two"), name="two"),
    )
    function = world.new_function(one, two)
    result = function.invoke({**STATUS, "targets": ["two"]})
    assert [target["name"] for target in result.body["targets"]] == ["two"]
    assert "old-secret" not in json.dumps(result.body) and "old-token" not in json.dumps(result.body)
    for field in ("force", "dry_run"):
        assert not function.invoke({**STATUS, field: True}).ok
