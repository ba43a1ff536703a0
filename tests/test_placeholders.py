"""Which values of a staged secret count as empty, so that the first rotation may replace them."""

import pytest
from support.events import FORCED, ROLLBACK, scheduled_run
from support.kinds import KINDS
from support.local_rotation import ROTATION_STEPS
from support.reports import failed_error, outcome
from support.stepped_rotation import SteppedRotation
from support.template_placeholder import TEMPLATE_PLACEHOLDER

EMPTY = {"no value": None, "an empty object": "{}", "the template's placeholder": TEMPLATE_PLACEHOLDER}
NOT_EMPTY = {
    "a database's password": '{"username":"admin","password":"x"}',
    "a longer placeholder": TEMPLATE_PLACEHOLDER.replace("}", ',"owner":"team-a"}'),
    "another text in the placeholder": TEMPLATE_PLACEHOLDER.replace("replaces", "has replaced"),
    "another placeholder": '{"placeholder":"x"}',
    "a bare word": "change-me",
    "null": "null",
    "a list": "[]",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", EMPTY)
def test_a_rotation_replaces_an_empty_value(world, kind, value):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, secret_id=world.new_staged_secret(EMPTY[value]))
    assert outcome(world.new_function(target).invoke(scheduled_run())) == "rotated"
    assert world.staged_value(target)["kind"] == kind and world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", EMPTY)
def test_secrets_manager_rotates_an_empty_value(world, kind, value):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, secret_id=world.new_staged_secret(EMPTY[value]))
    SteppedRotation(world, target).run()
    assert world.staged_value(target)["kind"] == kind and world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", NOT_EMPTY)
def test_another_value_is_never_replaced(world, unchanged, kind, value):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, secret_id=world.new_staged_secret(NOT_EMPTY[value]))
    before, function = world.stages(target), world.new_function(target)
    unchanged()
    for event in (scheduled_run(), FORCED, {"action": "rotate", "dry_run": True}, ROLLBACK):
        failed_error(function.invoke(event).report_in_error(), "conflict", "secrets_manager", problem="AWSCURRENT")
    found = function.invoke({"action": "status"}).body["targets"][0]
    assert (found["state"], found["error"]["class"]) == ("unknown", "conflict")
    checked = function.invoke({"action": "check"}).body["targets"][0]
    failed = [line["error"] for line in checked["lines"] if line["result"] == "failed"]
    assert ("conflict", "secrets_manager") in [(error["class"], error["service"]) for error in failed]
    assert world.stages(target) == before and world.iam_keys(target) == {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", NOT_EMPTY)
def test_no_step_replaces_another_value(world, unchanged, kind, value):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, secret_id=world.new_staged_secret(NOT_EMPTY[value]))
    steps = SteppedRotation(world, target)
    before = world.stages(target)
    unchanged()
    for name in ROTATION_STEPS:
        error = failed_error(steps.step(name).report_in_error(), "conflict", "secrets_manager", problem="AWSCURRENT")
        assert error["remedy"]
    assert world.stages(target) == before and world.iam_keys(target) == {}
