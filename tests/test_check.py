"""The action `check`: all that a rotation would need, each with ok or how to mend it, told without changing anything."""

import json
import time
import uuid

import pytest
from support.server import Answer
from test_crashes import FORCED, KINDS, STANDING, schedule
from test_staged import cut_off_after_set, outcome

CHECK = {"action": "check"}


def check(function):
    """The lines of the one target, by what was tried; the invocation itself never fails because of them."""
    result = function.invoke(CHECK)
    assert result.ok, result.body
    [target] = result.body["targets"]
    failed = [line for line in target["lines"] if line["result"] == "failed"]
    assert target["ok"] == result.body["ok"] == (not failed)
    assert all({"problem", "remedy"} <= set(line["error"]) for line in failed)
    return target["lines"]


def of(lines, what):
    """The one line whose text has these words."""
    [line] = [line for line in lines if what in line["what"]]
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_target_has_no_failed_line_and_nothing_is_changed_by_asking(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret())
    function = bench.function(target)
    assert all(line["result"] in ("ok", "untold") for line in check(function))
    assert outcome(function.invoke(schedule())) == "rotated"
    before, stages, listed = bench.braintrust.snapshot(), bench.stages(target), bench.listed(target)
    lines = check(function)
    assert all(line["result"] in ("ok", "untold") for line in lines), lines
    assert of(lines, "call Bedrock in")["result"] == "ok"
    assert (bench.braintrust.snapshot(), bench.stages(target), bench.listed(target)) == (before, stages, listed)


def test_a_role_that_does_not_trust_the_function_is_told(bench):
    role = bench.stack.role(external_id="from-braintrust")
    lines = check(bench.function(bench.target(bench.ai_secret(), role_arn=role)))
    line = of(lines, "assume the role")
    assert line["result"] == "failed" and "trust policy" in line["error"]["remedy"]


def test_a_role_that_may_not_use_bedrock_is_told(bench):
    role = bench.stack.role(allow=[])
    lines = check(bench.function(bench.target(bench.ai_secret(), role_arn=role)))
    assert of(lines, "assume the role")["result"] == "ok"
    line = of(lines, "call Bedrock")
    assert line["result"] == "failed" and "bedrock:ListFoundationModels" in line["error"]["remedy"]


def test_an_api_key_that_may_not_call_with_bearer_tokens_is_told(bench):
    role = bench.stack.role(allow=["bedrock:ListFoundationModels"])
    target = bench.staged_target("short_term_api_key", bench.ai_secret(), role_arn=role)
    line = of(check(bench.function(target)), "call Bedrock")
    assert line["result"] == "failed" and "bedrock:CallWithBearerToken" in line["error"]["remedy"]


def test_the_api_key_the_ai_secret_and_its_leftovers_are_told(bench):
    leftovers = bench.ai_secret(metadata={"access_key": "AKIA", "aws_secret_access_key": "left-over"})
    lines = check(bench.function(bench.target(leftovers)))
    notes = [line["note"] for line in lines if line["result"] == "warning"]
    assert len(notes) == 1 and "aws_secret_access_key" in notes[0]
    assert of(lines, "update the ai_secret")["result"] == "untold"
    missing = check(bench.function(bench.target(str(uuid.uuid4()))))
    assert of(missing, "find the ai_secret")["error"]["class"] == "not_found"
    wrong_key = bench.stack.secret("sk-unknown")
    refused = check(bench.function(bench.target(leftovers), BRAINTRUST_API_KEY_SECRET_ID=wrong_key))
    assert of(refused, "find the ai_secret")["error"]["class"] == "invalid_credentials"


@pytest.mark.parametrize("kind", STANDING)
def test_missing_iam_actions_are_told_with_the_resource(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret())
    line = of(check(bench.function(target)), "make and retire")
    assert line["result"] == "untold" and "iam:SimulatePrincipalPolicy" in line["note"]
    with bench.execution_policy(allow=["iam:SimulatePrincipalPolicy"]):
        assert of(check(bench.function(target)), "make and retire")["result"] == "ok"
        action = "iam:CreateAccessKey" if kind == "access_key" else "iam:CreateServiceSpecificCredential"
        with bench.execution_policy(deny=[action]):
            line = of(check(bench.function(target)), "make and retire")
            assert line["result"] == "failed" and action in line["error"]["remedy"]
            assert f"user/{target['user_name']}" in line["error"]["remedy"]


def test_what_iam_could_not_say_is_untold(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    bench.aws.fail("iam:SimulatePrincipalPolicy", Answer(503), times=None)
    line = of(check(bench.function(target)), "make and retire")
    assert line["result"] == "untold" and "SimulatePrincipalPolicy: answered 503" in line["note"]


def test_a_staged_secret_and_its_rotation_are_told(bench):
    target = bench.staged_target("temporary", bench.ai_secret())
    function = bench.function(target)
    assert of(check(function), "read the secret")["result"] == "ok"
    bench.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    found = [line for line in check(function) if "the rotation of the secret" in line["what"]]
    assert [line["result"] for line in found] == ["failed", "warning"]
    assert "every four hours at the shortest" in found[0]["error"]["remedy"]
    lines = check(bench.function({**target, "secret_id": "no-such"}))
    assert of(lines, "read the secret")["error"]["class"] == "not_found"


def test_a_service_control_policy_is_told_from_a_missing_permission(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    denied = """<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>
      <IsTruncated>false</IsTruncated><EvaluationResults><member><EvalActionName>iam:CreateAccessKey</EvalActionName>
      <EvalDecision>implicitDeny</EvalDecision><OrganizationsDecisionDetail><AllowedByOrganizations>false</AllowedByOrganizations>
      </OrganizationsDecisionDetail></member></EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"""
    bench.aws.fail("iam:SimulatePrincipalPolicy", Answer(200, denied, content_type="text/xml"))
    line = of(check(bench.function(target)), "make and retire")
    assert line["result"] == "failed" and "service control policy" in line["error"]["remedy"]


def test_an_iam_user_without_room_is_told(bench):
    user = bench.user()
    for _ in range(2):
        bench.stack.client("iam").create_access_key(UserName=user)
    time.sleep(1.1)  # the keys are to be older than the secret, and IAM tells seconds
    target = bench.staged_target("access_key", bench.ai_secret(), user_name=user)
    line = of(check(bench.function(target)), "room for another")
    assert line["result"] == "failed" and "Not made by this function" in line["error"]["remedy"]


def test_a_rotation_that_is_under_way_needs_no_room(bench):
    target = bench.staged_target("access_key", bench.ai_secret(), overlap="1h")
    function = bench.function(target)
    assert function.invoke(schedule()).ok
    cut_off_after_set(bench, function, FORCED)
    assert of(check(function), "the rotation that is under way has its credential")["result"] == "ok"
    bench.lose(target, bench.staged(target)["credential_id"], "deleted")
    error = of(check(function), "the current credentials")["error"]
    assert error["class"] == "invalid_credentials" and "aws secretsmanager rotate-secret" in error["remedy"]


@pytest.mark.parametrize("kind", STANDING)
def test_no_room_inside_the_overlap_is_only_warned_of(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret(), overlap="60m")
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    line = of(check(function), "room for another")
    assert line["result"] == "warning" and "in its overlap until" in line["note"]


def test_a_schedule_that_is_too_slow_is_told(bench):
    target = bench.target(bench.ai_secret())
    for expression, result in [("rate(30 minutes)", "ok"), ("rate(45 minutes)", "warning"), ("rate(1 hour)", "failed")]:
        lines = check(bench.function(target, SCHEDULE_EXPRESSION=expression))
        assert of(lines, "the schedule")["result"] == result


def test_a_check_shows_no_secret(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    shown = json.dumps(function.invoke(CHECK).body) + "\n".join(function.logs())
    assert bench.staged(target)["aws_secret_access_key"] not in shown and bench.api_key not in shown
