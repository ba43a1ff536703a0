"""The action `check`: it lists all that a rotation needs, with a remedy for what is missing, and changes nothing."""

import datetime
import json
import re
import time
import uuid

import pytest
from support.events import FORCED, scheduled_run
from support.http_messages import Reply
from support.kinds import KINDS, USER_BASED
from support.orphaned_key import interrupt_after_set
from support.reports import outcome

CHECK = {"action": "check"}


def check(function):
    """The lines of the one target. A failed line doesn't fail the invocation."""
    result = function.invoke(CHECK)
    assert result.ok, result.body
    [target] = result.body["targets"]
    failed = [line for line in target["lines"] if line["result"] == "failed"]
    assert target["ok"] == result.body["ok"] == (not failed)
    assert all({"problem", "remedy"} <= set(line["error"]) for line in failed)
    return target["lines"]


def of(lines, what):
    """The only line whose text matches."""
    [line] = [line for line in lines if re.search(what, line["what"])]
    return line


def is_unknown(line):
    return line["result"] == "unknown"


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_target_has_no_failed_line_and_the_check_changes_nothing(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function = world.new_function(target)
    assert all(line["result"] in ("ok", "unknown") for line in check(function))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    before, stages, listed = world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)
    lines = check(function)
    assert all(line["result"] in ("ok", "unknown") for line in lines), lines
    assert of(lines, "call Bedrock in")["result"] == "ok"
    assert (world.braintrust.snapshot(), world.stages(target), world.iam_keys(target)) == (before, stages, listed)


def test_a_role_that_does_not_trust_the_function_is_reported(world):
    role = world.cloud.new_role(external_id="from-braintrust")
    lines = check(world.new_function(world.target(world.new_ai_secret(), role_arn=role)))
    line = of(lines, "assume the role")
    assert line["result"] == "failed"
    assert (line["error"]["class"], line["error"]["call"]) == ("permission", "AssumeRole")


def test_a_role_that_may_not_use_bedrock_is_reported(world):
    role = world.cloud.new_role(allow=[])
    lines = check(world.new_function(world.target(world.new_ai_secret(), role_arn=role)))
    assert of(lines, "assume the role")["result"] == "ok"
    line = of(lines, "call Bedrock")
    assert line["result"] == "failed"
    assert (line["error"]["class"], line["error"]["call"]) == ("permission", "ListFoundationModels")


def test_an_api_key_that_may_not_call_with_bearer_tokens_is_reported(world):
    role = world.cloud.new_role(allow=["bedrock:ListFoundationModels"])
    target = world.new_staged_target("short_term_api_key", world.new_ai_secret(), role_arn=role)
    line = of(check(world.new_function(target)), "call Bedrock")
    assert line["result"] == "failed"
    assert (line["error"]["class"], line["error"]["service"]) == ("permission", "bedrock")


def test_the_api_key_the_ai_secret_and_its_stale_fields_are_reported(world):
    metadata = {"access_key": "AKIA", "region": "us-east-1", "aws_secret_access_key": "stale-secret-key"}
    stale = world.new_ai_secret(metadata=metadata)
    lines = check(world.new_function(world.target(stale)))
    notes = [line["note"] for line in lines if line["result"] == "warning"]
    assert len(notes) == 2 and "aws_secret_access_key" in notes[0] and "permanent access key" in notes[1]
    assert is_unknown(of(lines, "update the ai_secret"))
    missing = check(world.new_function(world.target(str(uuid.uuid4()))))
    assert of(missing, "find the ai_secret")["error"]["class"] == "not_found"
    wrong_key = world.cloud.new_secret("sk-unknown")
    refused = check(world.new_function(world.target(stale), BRAINTRUST_API_KEY_SECRET_ID=wrong_key))
    assert of(refused, "find the ai_secret")["error"]["class"] == "invalid_credentials"


def test_an_api_key_that_was_changed_under_a_warm_function_is_read_anew(world):
    function = world.new_function(world.target(world.new_ai_secret()))
    assert function.invoke({"action": "check"}).body["ok"]
    value = {"SecretId": world.api_key_secret, "SecretString": "no key at all"}
    world.client("secretsmanager").put_secret_value(**value)
    answer = function.invoke({"action": "check"}).body
    assert not answer["ok"]
    [failed] = [line for line in answer["targets"][0]["lines"] if line["result"] == "failed"]
    assert failed["error"]["problem"].endswith("holds no Braintrust API key")


@pytest.mark.parametrize("kind", USER_BASED)
def test_missing_iam_actions_are_reported_with_the_resource(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    line = of(check(world.new_function(target)), "retire")
    assert is_unknown(line) and "iam:SimulatePrincipalPolicy" in line["note"]
    with world.execution_policy(allow=["iam:SimulatePrincipalPolicy"]):
        assert of(check(world.new_function(target)), "retire")["result"] == "ok"
        action = "iam:CreateAccessKey" if kind == "access_key" else "iam:CreateServiceSpecificCredential"
        with world.execution_policy(deny=[action]):
            line = of(check(world.new_function(target)), "retire")
            assert line["result"] == "failed" and action in str(line["error"])
            assert f"user/{target['user_name']}" in str(line["error"])


def test_a_permission_that_iam_could_not_simulate_is_unknown(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    world.aws.fail("iam:SimulatePrincipalPolicy", Reply(503), times=None)
    line = of(check(world.new_function(target)), "retire")
    assert is_unknown(line) and "SimulatePrincipalPolicy" in line["note"] and "503" in line["note"]


def test_a_staged_secret_and_its_rotation_are_reported(world):
    target = world.new_staged_target("temporary", world.new_ai_secret())
    function = world.new_function(target)
    assert of(check(function), "read the secret")["result"] == "ok"
    world.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    found = [line for line in check(function) if "the rotation of the secret" in line["what"]]
    assert [line["result"] for line in found] == ["failed", "warning"]
    assert found[0]["error"]["class"] == "conflict"
    lines = check(world.new_function({**target, "secret_id": "no-such"}))
    assert of(lines, "read the secret")["error"]["class"] == "not_found"


def test_a_service_control_policy_is_distinguished_from_a_missing_permission(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    denied = """<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
      <SimulatePrincipalPolicyResult>
      <IsTruncated>false</IsTruncated><EvaluationResults><member><EvalActionName>iam:CreateAccessKey</EvalActionName>
      <EvalDecision>implicitDeny</EvalDecision>
      <OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations>
      </OrganizationsDecisionDetail></member></EvaluationResults>
      </SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"""
    world.aws.fail("iam:SimulatePrincipalPolicy", Reply(200, denied, content_type="text/xml"))
    line = of(check(world.new_function(target)), "retire")
    assert line["result"] == "failed" and "service control policy" in str(line["error"])


def test_an_iam_user_without_a_free_slot_is_reported(world):
    user = world.new_user()
    for _ in range(2):
        world.client("iam").create_access_key(UserName=user)
    time.sleep(1.1)  # the keys must be older than the secret, and IAM's times are whole seconds
    target = world.new_staged_target("access_key", world.new_ai_secret(), user_name=user)
    line = of(check(world.new_function(target)), "another")
    assert line["result"] == "failed" and all(key in str(line["error"]) for key in world.iam_keys(target))


@pytest.mark.long
def test_a_rotation_in_progress_needs_no_free_slot(world):
    target = world.new_staged_target("access_key", world.new_ai_secret(), overlap="1h")
    function = world.new_function(target)
    assert function.invoke(scheduled_run()).ok
    interrupt_after_set(world, function, FORCED)
    assert of(check(function), "rotation .*(under way|in progress)")["result"] == "ok"
    world.end_key_by_hand(target, world.staged_value(target)["credential_id"], "deleted")
    error = of(check(function), "the current credentials")["error"]
    assert error["class"] == "invalid_credentials"


@pytest.mark.parametrize("kind", USER_BASED)
def test_no_free_slot_during_the_overlap_is_only_a_warning(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret(), overlap="60m")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    line = of(check(function), "another")
    assert line["result"] == "warning" and "overlap" in line["note"]


@pytest.mark.parametrize("kind", USER_BASED)
def test_the_key_that_makes_room_after_the_overlap_is_named(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret(), overlap="60m")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    previous = world.staged_value(target)["credential_id"]
    world.age_credentials(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    world.let_time_pass(target, datetime.timedelta(hours=2))
    line = of(check(function), "another")
    assert line["result"] == "ok" and previous in line["what"]


def test_a_schedule_that_is_too_slow_is_reported(world):
    target = world.target(world.new_ai_secret())
    for expression, result in [("rate(30 minutes)", "ok"), ("rate(45 minutes)", "warning"), ("rate(1 hour)", "failed")]:
        lines = check(world.new_function(target, SCHEDULE_EXPRESSION=expression))
        assert of(lines, "the schedule")["result"] == result


def test_a_check_shows_no_secret(world):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    shown = json.dumps(function.invoke(CHECK).body) + "\n".join(function.logs())
    assert world.staged_value(target)["aws_secret_access_key"] not in shown and world.api_key not in shown
