"""What a tick does when all is well: working credentials arrive, in the right layout, and nothing else changes."""

import json
import re
from pathlib import Path

import pytest
from conftest import REGION
from support.server import Answer

EVENTS = Path(__file__).parent.parent / "events"


@pytest.mark.parametrize("event", ["schedule", "scheduler", "rotate"])
def test_each_event_puts_working_credentials_into_the_ai_secret(bench, event):
    ai_secret = bench.ai_secret()
    event = json.loads((EVENTS / f"{event}.json").read_text())
    report = bench.rotate(bench.target(ai_secret), event=event)
    assert bench.holds_working_credentials(ai_secret)
    [target] = report["targets"]
    metadata = bench.braintrust.ai_secrets[ai_secret]["metadata"]
    assert target["outcome"] == "rotated"
    assert target["credential_id"] == metadata["access_key"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", target["expires_at"])
    assert target["ai_secrets"] == [
        {"ai_secret": ai_secret, "id": ai_secret, "layout": "gateway", "updated": True}
    ]
    if "id" in event:
        assert (report["trigger"], report["token"]) == ("schedule", event["id"])


def test_a_stale_session_token_is_overwritten(bench):
    ai_secret = bench.ai_secret(metadata={"access_key": "AKIAOLD", "session_token": "stale", "region": REGION})
    bench.rotate(bench.target(ai_secret))
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["session_token"] not in ("stale", "")
    assert bench.holds_working_credentials(ai_secret)


def test_all_parts_travel_in_one_patch_and_nothing_else_is_added(bench):
    ai_secret = bench.ai_secret(metadata={"models": ["anthropic.claude"], "region": "eu-west-1"})
    bench.rotate(bench.target(ai_secret))
    [patch] = bench.patches()
    assert set(patch.json()) == {"secret", "metadata"}
    assert set(patch.json()["metadata"]) == {"auth_type", "access_key", "session_token", "region"}
    metadata = bench.braintrust.ai_secrets[ai_secret]["metadata"]
    assert metadata["models"] == ["anthropic.claude"]
    assert metadata["region"] == REGION


def test_the_region_is_left_alone_where_it_is_right(bench):
    bench.rotate(bench.target(bench.ai_secret()))
    [patch] = bench.patches()
    assert "region" not in patch.json()["metadata"]


def test_the_documented_layout_is_kept_where_it_is_used(bench):
    ai_secret = bench.ai_secret(metadata={"aws_access_key_id": "AKIAOLD", "aws_secret_access_key": "old"})
    report = bench.rotate(bench.target(ai_secret))
    metadata = bench.braintrust.ai_secrets[ai_secret]["metadata"]
    assert set(metadata) == {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
    assert bench.aws.works(
        metadata["aws_access_key_id"], metadata["aws_secret_access_key"], metadata["aws_session_token"], REGION
    )
    assert bench.braintrust.ai_secrets[ai_secret]["secret"] == "old-secret"
    [target] = report["targets"]
    assert target["ai_secrets"][0]["layout"] == "documented"
    assert "everybody who may list" in target["warnings"][0]


@pytest.mark.parametrize("layout", ["gateway", "documented"])
def test_a_configured_layout_wins_over_the_metadata(bench, layout):
    metadata = {"gateway": {"aws_access_key_id": "AKIAOLD"}, "documented": {"access_key": "AKIAOLD"}}[layout]
    ai_secret = bench.ai_secret(metadata=metadata)
    report = bench.rotate(bench.target({"id": ai_secret, "layout": layout}))
    assert report["targets"][0]["ai_secrets"][0]["layout"] == layout
    written = bench.braintrust.ai_secrets[ai_secret]["metadata"]
    key = {"gateway": "access_key", "documented": "aws_access_key_id"}[layout]
    assert written[key] == report["targets"][0]["credential_id"]


def test_a_secret_key_left_in_the_metadata_is_warned_of(bench):
    ai_secret = bench.ai_secret(metadata={"access_key": "AKIAOLD", "aws_secret_access_key": "left-over"})
    report = bench.rotate(bench.target(ai_secret))
    [warning] = report["targets"][0]["warnings"]
    assert ai_secret in warning and "aws_secret_access_key" in warning
    assert "left-over" not in json.dumps(report)


def test_an_ai_secret_is_found_by_its_name_behind_many_pages(bench):
    ai_secret = bench.ai_secret("the one", org_name="Acme")
    for n in range(250):
        bench.braintrust.add_ai_secret(f"other {n}", type="bedrock" if n % 2 else "openai")
    bench.rotate(bench.target({"name": "the one"}))
    assert bench.holds_working_credentials(ai_secret)


def test_a_data_plane_that_ignores_the_name_filter_is_read_to_its_last_page(bench):
    ai_secret = bench.ai_secret("the one")
    for n in range(250):
        bench.braintrust.add_ai_secret(f"other {n}")
    bench.braintrust.ignored_filters = {"ai_secret_name"}
    bench.rotate(bench.target({"name": "the one"}))
    assert bench.holds_working_credentials(ai_secret)
    assert [patch.path for patch in bench.patches()] == [f"/v1/ai_secret/{ai_secret}"]


def test_the_organization_chooses_between_equal_names(bench):
    bench.braintrust.add_key(bench.api_key, orgs=("Acme US", "Acme EU"))
    us = bench.ai_secret("AWS Bedrock", org_name="Acme US")
    eu = bench.ai_secret("AWS Bedrock", org_name="Acme EU")
    before = bench.braintrust.snapshot()[us]
    bench.rotate(bench.target({"name": "AWS Bedrock", "org_name": "Acme EU"}))
    assert bench.holds_working_credentials(eu)
    assert bench.braintrust.snapshot()[us] == before


def test_several_targets_and_ai_secrets_are_written_side_by_side(bench):
    ids = [bench.ai_secret(f"secret {n}") for n in range(6)]
    targets = [bench.target(*ids[:3], name="one"), bench.target(*ids[3:], name="two")]
    bench.braintrust.latency = 0.3
    report = bench.rotate(*targets)
    assert all(bench.holds_working_credentials(ai_secret) for ai_secret in ids)
    assert len({bench.braintrust.credentials(ai_secret)["access_key"] for ai_secret in ids}) == 2
    # Twelve calls of 0.3 s each would take 3.6 s one after the other.
    assert report["duration_ms"] < 2_000


def test_one_target_writes_to_two_data_planes_with_two_keys(bench):
    here = bench.ai_secret()
    other = bench.new_braintrust()
    other.add_key("sk-other")
    there = other.add_ai_secret("AWS Bedrock", metadata={})
    key = bench.stack.secret(json.dumps({"api_key": "sk-other"}))
    bench.rotate(bench.target(here, {"id": there, "api_url": other.url, "api_key_secret_id": key}))
    assert bench.holds_working_credentials(here)
    assert bench.holds_working_credentials(there, other)


def test_only_the_named_targets_are_rotated(bench):
    one, two = bench.ai_secret("one"), bench.ai_secret("two")
    before = bench.braintrust.snapshot()[one]
    targets = [bench.target(one, name="one"), bench.target(two, name="two")]
    report = bench.rotate(*targets, event={"action": "rotate", "targets": ["two"]})
    assert [target["name"] for target in report["targets"]] == ["two"]
    assert bench.holds_working_credentials(two)
    assert bench.braintrust.snapshot()[one] == before


def test_a_dry_run_changes_nothing_anywhere(bench):
    ai_secret = bench.ai_secret()
    before = bench.braintrust.snapshot()
    report = bench.rotate(bench.target(ai_secret), event={"action": "rotate", "dry_run": True})
    assert bench.braintrust.snapshot() == before
    assert {request.method for request in bench.braintrust.requests} == {"GET"}
    assert {request.call for request in bench.aws_requests()} == {"secretsmanager:GetSecretValue"}
    assert report["dry_run"] is True
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert report["targets"][0]["ai_secrets"][0]["layout"] == "gateway"


def test_the_external_id_and_the_session_policy_reach_sts(bench):
    role = bench.stack.role(external_id="from-braintrust", allow=["bedrock:ListFoundationModels", "s3:ListAllMyBuckets"])
    statement = {"Effect": "Allow", "Action": "bedrock:ListFoundationModels", "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    ai_secret = bench.ai_secret()
    bench.rotate(
        bench.target(
            ai_secret, role_arn=role, external_id="from-braintrust", session_policy=policy, duration_seconds=900
        )
    )
    assert bench.holds_working_credentials(ai_secret)
    [request] = bench.aws_requests("sts:AssumeRole")
    assert b"DurationSeconds=900" in request.body and b"ExternalId=from-braintrust" in request.body
    assert b"Policy=%7B" in request.body


def test_a_converse_probe_asks_the_model_for_one_token(bench):
    # AWS asks for InvokeModel, ministack for an action of the call's own name.
    role = bench.stack.role(allow=["bedrock:InvokeModel", "bedrock:Converse"])
    ai_secret = bench.ai_secret()
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    bench.rotate(bench.target(ai_secret, role_arn=role, probe={"converse": model}))
    [request] = bench.aws_requests("bedrock:Converse")
    assert request.json()["inferenceConfig"] == {"maxTokens": 1}
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] != "ASIAOLD"


def test_a_warm_function_reads_the_api_key_once(bench):
    function = bench.function(bench.target(bench.ai_secret()))
    for _ in range(3):
        assert function.invoke({"action": "rotate"}).ok
    assert len(bench.aws_requests("secretsmanager:GetSecretValue")) == 1
    assert len(bench.aws_requests("sts:AssumeRole")) == 3


def report_lines(function):
    """What the log holds but for metrics."""
    lines = [json.loads(line) for line in function.logs() if line.startswith("{")]
    return [line for line in lines if "_aws" not in line]


def test_the_report_is_the_answer_and_one_log_line(bench):
    function = bench.function(bench.target(bench.ai_secret()))
    result = function.invoke({"action": "rotate"})
    [line] = report_lines(function)
    # Lambda's log level filter needs the first two.
    assert line == {"timestamp": result.body["started_at"], "level": "INFO", **result.body}


def test_a_failed_report_is_logged_as_an_error(bench):
    function = bench.function(bench.target(bench.ai_secret(type="openai")))
    assert not function.invoke({"action": "rotate"}).ok
    [line] = report_lines(function)
    assert line["level"] == "ERROR"


def test_a_warm_rotation_asks_no_more_than_it_needs(bench):
    function = bench.function(bench.target(bench.ai_secret()))
    assert function.invoke({"action": "rotate"}).ok
    bench.braintrust.requests.clear()
    bench.aws.requests.clear()
    assert function.invoke({"action": "rotate"}).ok
    assert [request.method for request in bench.braintrust.requests] == ["GET", "PATCH"]
    assert [request.call for request in bench.aws_requests()] == ["sts:AssumeRole", "bedrock:ListFoundationModels"]


@pytest.mark.parametrize("kind", ["short_term_api_key", "temporary"])
def test_on_an_older_data_plane_a_patch_that_is_refused_for_good_is_no_success(bench, kind):
    bench.braintrust.older_data_plane = True
    ai_secret = bench.ai_secret()
    function = bench.function(bench.target(ai_secret, kind=kind))
    assert function.invoke({"action": "rotate"}).ok
    before = bench.braintrust.snapshot()
    bench.braintrust.fail("PATCH /v1/ai_secret/{id}", Answer(503), times=None)
    assert not function.invoke({"action": "rotate"}).ok
    assert bench.braintrust.snapshot() == before


def test_an_older_data_plane_without_secret_updated_at_is_served(bench):
    older = bench.new_braintrust()
    older.older_data_plane = True
    older.add_key(bench.api_key)
    ai_secret = older.add_ai_secret("AWS Bedrock", metadata={})
    bench.rotate(bench.target(ai_secret), BRAINTRUST_API_URL=older.url)
    assert bench.holds_working_credentials(ai_secret, older)


def test_one_target_serves_two_organizations_on_two_data_planes_with_two_keys(bench):
    eu, eu_key = bench.new_braintrust(), "sk-europe"
    eu.add_key(eu_key, orgs=("Acme", "Acme EU"))
    other = eu.add_ai_secret("AWS Bedrock", org_name="Acme", metadata={})
    here = bench.ai_secret("AWS Bedrock")
    there = eu.add_ai_secret("AWS Bedrock", org_name="Acme EU", metadata={})
    entry = {"name": "AWS Bedrock", "org_name": "Acme EU", "api_url": eu.url, "api_key_secret_id": bench.stack.secret(eu_key)}
    report = bench.rotate(bench.target({"name": "AWS Bedrock"}, entry))
    assert [found["id"] for found in report["targets"][0]["ai_secrets"]] == [here, there]
    assert bench.holds_working_credentials(here) and bench.holds_working_credentials(there, eu)
    # One set of credentials, and nothing for the organization that was not named.
    assert bench.braintrust.credentials(here)["access_key"] == eu.credentials(there)["access_key"]
    assert eu.ai_secrets[other]["metadata"] == {}
    for server, key in ((bench.braintrust, bench.api_key), (eu, eu_key)):
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {key}"}
