"""What a run does when all is well: working credentials arrive, and nothing else changes."""

import json
import re
from pathlib import Path

import pytest
from support.local_cloud import REGION
from support.reports import failed_error
from support.upstream import form

EVENTS = Path(__file__).parent.parent / "events"


@pytest.mark.parametrize("event", ["schedule", "scheduler", "rotate"])
def test_each_event_puts_working_credentials_into_the_ai_secret(world, event):
    ai_secret = world.new_ai_secret()
    event = json.loads((EVENTS / f"{event}.json").read_text())
    report = world.rotate(world.target(ai_secret), event=event)
    assert world.has_working_credentials(ai_secret)
    [target] = report["targets"]
    metadata = world.braintrust.ai_secrets[ai_secret]["metadata"]
    assert target["outcome"] == "rotated"
    assert target["credential_id"] == metadata["access_key"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", target["expires_at"])
    assert target["ai_secrets"] == [{"ai_secret": ai_secret, "id": ai_secret, "layout": "gateway", "updated": True}]
    if "id" in event:
        assert (report["trigger"], report["token"]) == ("schedule", event["id"])


def test_a_stale_session_token_is_overwritten(world):
    ai_secret = world.new_ai_secret(metadata={"access_key": "AKIAOLD", "session_token": "stale", "region": REGION})
    world.rotate(world.target(ai_secret))
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["session_token"] not in ("stale", "")
    assert world.has_working_credentials(ai_secret)


def test_all_parts_are_written_in_one_patch_and_nothing_else_is_added(world):
    ai_secret = world.new_ai_secret(metadata={"models": ["anthropic.claude"], "region": "eu-west-1"})
    world.rotate(world.target(ai_secret))
    [patch] = world.patches()
    assert set(patch.json()) == {"secret", "metadata"}
    assert set(patch.json()["metadata"]) == {"access_key", "session_token", "region"}
    metadata = world.braintrust.ai_secrets[ai_secret]["metadata"]
    assert metadata["models"] == ["anthropic.claude"]
    assert metadata["region"] == REGION


def test_a_region_that_is_right_is_not_written(world):
    world.rotate(world.target(world.new_ai_secret()))
    [patch] = world.patches()
    assert "region" not in patch.json()["metadata"]


def test_only_the_named_targets_are_rotated(world):
    one, two = world.new_ai_secret("one"), world.new_ai_secret("two")
    before = world.braintrust.snapshot()[one]
    targets = [world.target(one, name="one"), world.target(two, name="two")]
    report = world.rotate(*targets, event={"action": "rotate", "targets": ["two"]})
    assert [target["name"] for target in report["targets"]] == ["two"]
    assert world.has_working_credentials(two)
    assert world.braintrust.snapshot()[one] == before


def test_a_dry_run_changes_nothing_anywhere(world):
    ai_secret = world.new_ai_secret()
    before = world.braintrust.snapshot()
    report = world.rotate(world.target(ai_secret), event={"action": "rotate", "dry_run": True})
    assert world.braintrust.snapshot() == before
    assert {request.method for request in world.braintrust.requests} == {"GET"}
    assert {request.call for request in world.aws_requests()} == {"secretsmanager:GetSecretValue"}
    assert report["dry_run"] is True
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert report["targets"][0]["ai_secrets"][0]["layout"] == "gateway"


def test_the_external_id_and_the_session_policy_reach_sts(world):
    role = world.cloud.new_role(
        external_id="from-braintrust", allow=["bedrock:ListFoundationModels", "s3:ListAllMyBuckets"]
    )
    statement = {"Effect": "Allow", "Action": "bedrock:ListFoundationModels", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    ai_secret = world.new_ai_secret()
    world.rotate(
        world.target(
            ai_secret, role_arn=role, external_id="from-braintrust", session_policy=policy, duration_seconds=900
        )
    )
    assert world.has_working_credentials(ai_secret)
    [request] = world.aws_requests("sts:AssumeRole")
    assert b"DurationSeconds=900" in request.body and b"ExternalId=from-braintrust" in request.body
    assert b"Policy=%7B" in request.body


def test_the_source_identity_and_the_tags_reach_sts(world):
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": actions}
    role = world.cloud.new_role(trust={"Version": "2012-10-17", "Statement": [statement]})
    ai_secret, tags = world.new_ai_secret(), {"cost center": "42", "team": "ml"}
    world.rotate(world.target(ai_secret, role_arn=role, source_identity="rotator@example.com", session_tags=tags))
    assert world.has_working_credentials(ai_secret)
    [request] = world.aws_requests("sts:AssumeRole")
    sent = form(request)
    assert sent["SourceIdentity"] == "rotator@example.com"
    assert {sent[f"Tags.member.{n}.Key"]: sent[f"Tags.member.{n}.Value"] for n in (1, 2)} == tags


def test_a_role_that_allows_no_tags_is_reported_with_the_action(world):
    report = world.fail_to_rotate(world.target(world.new_ai_secret(), session_tags={"team": "ml"}))
    assert "sts:TagSession" in failed_error(report, "permission", "sts", "AssumeRole")["remedy"]


def test_a_converse_probe_asks_the_model_for_one_token(world):
    # AWS requires InvokeModel. ministack requires an action with the name of the call.
    role = world.cloud.new_role(allow=["bedrock:InvokeModel", "bedrock:Converse"])
    ai_secret = world.new_ai_secret()
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    world.rotate(world.target(ai_secret, role_arn=role, probe={"converse": model}))
    [request] = world.aws_requests("bedrock:Converse")
    assert request.json()["inferenceConfig"] == {"maxTokens": 1}
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] != "ASIAOLD"


def test_a_warm_function_reads_the_api_key_once(world):
    function = world.new_function(world.target(world.new_ai_secret()))
    for _ in range(3):
        assert function.invoke({"action": "rotate"}).ok
    assert len(world.aws_requests("secretsmanager:GetSecretValue")) == 1
    assert len(world.aws_requests("sts:AssumeRole")) == 3


def report_lines(function):
    """The lines of the log that are not metrics."""
    lines = [json.loads(line) for line in function.logs() if line.startswith("{")]
    return [line for line in lines if "_aws" not in line]


def test_the_report_is_the_answer_and_one_log_line(world):
    function = world.new_function(world.target(world.new_ai_secret()))
    result = function.invoke({"action": "rotate"})
    [line] = report_lines(function)
    # Lambda's log level filter needs the first two fields.
    assert line == {"timestamp": result.body["started_at"], "level": "INFO", **result.body}


def test_a_failed_report_is_logged_as_an_error(world):
    function = world.new_function(world.target(world.new_ai_secret(type="openai")))
    assert not function.invoke({"action": "rotate"}).ok
    [line] = report_lines(function)
    assert line["level"] == "ERROR"


def test_a_warm_rotation_makes_no_more_calls_than_it_needs(world):
    function = world.new_function(world.target(world.new_ai_secret()))
    assert function.invoke({"action": "rotate"}).ok
    world.braintrust.requests.clear()
    world.aws.requests.clear()
    assert function.invoke({"action": "rotate"}).ok
    assert [request.method for request in world.braintrust.requests] == ["GET", "PATCH"]
    assert [request.call for request in world.aws_requests()] == ["sts:AssumeRole", "bedrock:ListFoundationModels"]
