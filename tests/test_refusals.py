"""A target that can't be rotated gets a clear error, and nothing is changed."""

import json
import uuid

import pytest
from support.http_messages import Reply
from support.reports import failed_error

UNKNOWN = str(uuid.UUID(int=7))
LIST = "GET /v1/ai_secret"
READ = "GET /v1/ai_secret/{id}"
UPDATE = "PATCH /v1/ai_secret/{id}"


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deeply_nested_answer_is_an_error(world, opening):
    ai_secret = world.new_ai_secret()
    deep = b'{"id":"%s","name":"x","type":"bedrock","metadata":' % ai_secret.encode() + opening * 100_000
    world.braintrust.fail("GET /v1/ai_secret/{id}", Reply(200, deep), times=None)
    failed_error(world.fail_to_rotate(world.target(ai_secret)), "unavailable", "braintrust", READ)
    assert world.patches() == []


@pytest.mark.parametrize("status", [400, 404])
def test_a_missing_ai_secret_is_not_found(world, unchanged, status):
    world.new_ai_secret()
    world.braintrust.missing_id_status = status
    unchanged()
    failed_error(world.fail_to_rotate(world.target(UNKNOWN)), "not_found", "braintrust", READ, UNKNOWN)


def test_a_missing_ai_secret_that_is_answered_with_403_is_a_permission_error(world, unchanged):
    world.braintrust.missing_id_status = 403
    unchanged()
    failed_error(world.fail_to_rotate(world.target(UNKNOWN)), "permission", "braintrust", READ, "403")


def test_an_unknown_name_is_answered_with_the_existing_names(world, unchanged):
    ai_secret = world.new_ai_secret("AWS Bedrock")
    world.braintrust.add_ai_secret("OpenAI", type="openai")
    unchanged()
    report = world.fail_to_rotate(world.target({"name": "AWS bedrock"}))
    error = failed_error(report, "not_found", "braintrust", LIST, ai_secret)
    assert "OpenAI" not in error["problem"]


def test_an_ambiguous_name_is_refused_with_the_candidates(world, unchanged):
    world.braintrust.add_key(world.api_key, orgs=("Acme US", "Acme EU"))
    ids = [world.new_ai_secret("AWS Bedrock", org_name=org) for org in ("Acme US", "Acme EU")]
    unchanged()
    report = world.fail_to_rotate(world.target({"name": "AWS Bedrock"}))
    error = failed_error(report, "conflict", "braintrust", LIST)
    assert all(id in error["problem"] for id in ids)


@pytest.mark.parametrize("lookup", ["id", "name"])
def test_an_ai_secret_of_another_type_is_refused(world, unchanged, lookup):
    ai_secret = world.new_ai_secret("OpenAI", type="openai")
    unchanged()
    named = {"id": {"id": ai_secret}, "name": {"name": "OpenAI"}}[lookup]
    failed_error(world.fail_to_rotate(world.target(named)), "conflict", "braintrust", problem='"openai"')


def test_an_ai_secret_with_an_unknown_auth_type_is_not_touched(world, unchanged):
    ai_secret = world.new_ai_secret(metadata={"auth_type": "web_identity"})
    unchanged()
    failed_error(world.fail_to_rotate(world.target(ai_secret)), "conflict", "braintrust", problem='"web_identity"')


@pytest.mark.parametrize("layout", ["gateway", "documented"])
def test_a_configured_layout_does_not_lift_the_refusals(world, unchanged, layout):
    ai_secret = world.new_ai_secret(metadata={"auth_type": "web_identity"})
    unchanged()
    failed_error(world.fail_to_rotate(world.target({"id": ai_secret, "layout": layout})), "conflict", "braintrust")


def test_a_role_that_does_not_exist_is_a_permission_error(world, unchanged):
    target = world.target(world.new_ai_secret(), role_arn="arn:aws:iam::000000000000:role/nobody")
    unchanged()
    failed_error(world.fail_to_rotate(target), "permission", "sts", "AssumeRole", "AccessDenied")


@pytest.mark.parametrize("external_id", [None, "wrong"])
def test_a_wrong_external_id_is_a_permission_error(world, unchanged, external_id):
    role = world.cloud.new_role(external_id="right")
    target = world.target(world.new_ai_secret(), role_arn=role, external_id=external_id)
    unchanged()
    failed_error(world.fail_to_rotate(target), "permission", "sts", "AssumeRole", "AccessDenied")


def test_credentials_that_may_not_use_bedrock_are_not_written(world, unchanged):
    role = world.cloud.new_role(allow=["s3:ListAllMyBuckets"])
    target = world.target(world.new_ai_secret(), role_arn=role)
    unchanged()
    report = world.fail_to_rotate(target)
    failed_error(report, "permission", "bedrock", "ListFoundationModels", "AccessDeniedException")
    assert len(world.aws_requests("bedrock:ListFoundationModels")) == 1


def test_an_api_key_that_braintrust_refuses_is_reported(world, unchanged):
    target = world.target(world.new_ai_secret())
    world.braintrust.remove_key(world.api_key)
    unchanged()
    failed_error(world.fail_to_rotate(target), "invalid_credentials", "braintrust", READ, "401")


@pytest.mark.parametrize("call", [READ, UPDATE])
@pytest.mark.parametrize("status", [401, 403])
def test_a_firewalls_refusal_says_nothing_about_the_api_key(world, unchanged, call, status):
    target = world.target(world.new_ai_secret())
    world.braintrust.fail(call, Reply(status, "<html>Blocked</html>", content_type="text/html"), times=None)
    unchanged()
    report = world.fail_to_rotate(target)
    failed_error(report, "unavailable", "braintrust", call, "text/html")
    assert len([r for r in world.braintrust.requests if r.call == call]) == 1


def test_an_api_key_without_an_admins_permissions_is_reported(world, unchanged):
    target = world.target(world.new_ai_secret())
    world.braintrust.add_key(world.api_key, admin=False)
    unchanged()
    failed_error(world.fail_to_rotate(target), "permission", "braintrust", UPDATE, "403")
    assert len(world.patches()) == len(world.aws_requests("secretsmanager:GetSecretValue")) == 1


def test_a_secret_without_an_api_key_is_reported(world, unchanged):
    target = world.target(world.new_ai_secret())
    unchanged()
    secret = world.cloud.new_secret(json.dumps({"key": world.api_key}))
    report = world.fail_to_rotate(target, BRAINTRUST_API_KEY_SECRET_ID=secret)
    failed_error(report, "configuration", "secrets_manager", "GetSecretValue", secret)
    assert world.api_key not in json.dumps(report)


def test_a_missing_secret_is_not_found(world, unchanged):
    target = world.target(world.new_ai_secret())
    unchanged()
    report = world.fail_to_rotate(target, BRAINTRUST_API_KEY_SECRET_ID="no-such")
    failed_error(report, "not_found", "secrets_manager", "GetSecretValue", "no-such")


def test_a_data_plane_that_ignores_the_patch_is_noticed(world, unchanged):
    target = world.target(world.new_ai_secret())
    world.braintrust.ignore_patches = True
    unchanged()
    failed_error(world.fail_to_rotate(target), "verification_failed", "braintrust", UPDATE)
