"""A wrong configuration fails the start with one error that names what is wrong; targets may come from a secret."""

import json

import pytest
from support.emulated_function import EmulatedFunction
from support.kinds import USER_BASED
from support.lambda_function import LambdaFunction


def refused_start(world, *targets, **options):
    """The message that Lambda answers with when the function can't start."""
    result = world.new_function(*targets, **options).invoke({"action": "rotate"})
    assert not result.ok and result.body["errorType"] == "StartRefused"
    return result.body["errorMessage"]


@pytest.mark.parametrize("runs", [EmulatedFunction, LambdaFunction])
def test_lambda_answers_for_a_function_that_cannot_start_and_starts_it_again_at_the_next_invocation(world, runs):
    function = world.new_function(TARGETS="", TARGETS_SECRET_ID="created-later", runs=runs)
    for _ in range(2):
        result = function.invoke({"action": "rotate"})
        assert not result.ok and "created-later" in result.body["errorMessage"]
    ai_secret = world.new_ai_secret()
    world.cloud.new_secret([world.target(ai_secret)], name="created-later")
    assert function.invoke({"action": "rotate"}).ok
    assert world.has_working_credentials(ai_secret)
    world.client("secretsmanager").delete_secret(SecretId="created-later", ForceDeleteWithoutRecovery=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"regoin": "us-east-1"}, ['"prod"', "regoin"]),
        ({"region": ""}, ['"prod"', "region"]),
        ({"duration_seconds": 7200}, ["duration_seconds", "7200", "900", "3600"]),
        ({"role_arn": None}, ["role_arn"]),
        ({"kind": "eternal"}, ["kind", "eternal", "access_key"]),
    ],
)
def test_a_wrong_field_fails_the_start_and_is_named(world, fields, words):
    message = refused_start(world, world.target(world.new_ai_secret(), **fields))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BRAINTRUST_API_URL": "http://braintrust.example"}, ["BRAINTRUST_API_URL", "loopback"]),
        ({"TARGETS": ""}, ["TARGETS", "TARGETS_SECRET_ID"]),
        ({"TARGETS_SECRET_ID": "some-secret"}, ["TARGETS", "TARGETS_SECRET_ID"]),
        ({"TARGETS": "{"}, ["TARGETS", "JSON"]),
        ({"BRAINTRUST_API_KEY_SECRET_ID": ""}, ["api_key_secret_id", "BRAINTRUST_API_KEY_SECRET_ID"]),
        ({"BRAINTRUST_CA_BUNDLE": "/no/such.pem"}, ["BRAINTRUST_CA_BUNDLE", "/no/such.pem"]),
        ({"AWS_CA_BUNDLE": "/no/such.pem"}, ["AWS_CA_BUNDLE", "/no/such.pem"]),
        ({"HTTPS_PROXY": "socks5://proxy.example:1080"}, ["HTTPS_PROXY", "http://"]),
        ({"AWS_ENDPOINT_URL_STS": "http://sts.example"}, ["AWS_ENDPOINT_URL_STS", "loopback"]),
    ],
)
def test_a_wrong_variable_fails_the_start_and_is_named(world, variables, words):
    message = refused_start(world, world.target(world.new_ai_secret()), **variables)
    for word in words:
        assert word in message, message
    assert world.aws_requests() == []


def test_two_targets_with_the_same_name_fail_the_start(world):
    targets = [world.target(world.new_ai_secret("one")), world.target(world.new_ai_secret("two"))]
    message = refused_start(world, *targets)
    assert '"prod"' in message and "name" in message


def test_targets_may_come_from_a_secret(world):
    ai_secret = world.new_ai_secret()
    secret = world.cloud.new_secret(json.dumps([world.target(ai_secret)]))
    world.rotate(TARGETS="", TARGETS_SECRET_ID=secret)
    assert world.has_working_credentials(ai_secret)


def test_a_wrong_field_in_the_secret_is_named_too(world):
    secret = world.cloud.new_secret(json.dumps([world.target(world.new_ai_secret(), region="")]))
    message = refused_start(world, TARGETS="", TARGETS_SECRET_ID=secret)
    assert all(word in message for word in ("TARGETS_SECRET_ID", '"prod"', "region"))


def test_a_missing_secret_with_targets_is_named(world):
    assert "no-such-secret" in refused_start(world, TARGETS="", TARGETS_SECRET_ID="no-such-secret")


@pytest.mark.parametrize(
    "form",
    ["{}", "{}\n", "\ufeff{}", '"{}"', '{{"api_key": "{}"}}', '{{"api_key": "{}\\n"}}', '\ufeff{{"api_key":"{}"}}\n'],
)
def test_the_api_key_may_have_several_forms(world, form):
    ai_secret = world.new_ai_secret()
    secret = world.cloud.new_secret(form.format(world.api_key))
    # The ID may have been copied with white space around it.
    world.rotate(world.target(ai_secret), BRAINTRUST_API_KEY_SECRET_ID=f" {secret}\n")
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("field", ["name", "kind", "region", "role_arn", "ai_secrets"])
def test_a_field_that_is_given_twice_in_a_target_fails_the_start_and_is_named(world, field):
    target = world.target(world.new_ai_secret())
    twice = json.dumps(target)[:-1] + f", {json.dumps(field)}: {json.dumps(target[field])}}}"
    message = refused_start(world, TARGETS=f"[{twice}]")
    assert "TARGETS" in message and field in message
    assert world.aws_requests() == []


def test_a_field_that_is_given_twice_in_an_ai_secret_fails_the_start_and_is_named(world):
    target = json.dumps(world.target("the-id"))
    twice = target.replace('"id": "the-id"', '"id": "the-id", "id": "the-id"')
    message = refused_start(world, TARGETS=f"[{twice}]")
    assert "TARGETS" in message and "ai_secrets" in message


OPTIONAL_IN_ALL = ["secret_id", "probe", "end_to_end"]
OPTIONAL = {
    "temporary": ["external_id", "duration_seconds", "session_policy", "user_name", "rotate_after", "overlap"],
    "short_term_api_key": ["external_id", "duration_seconds", "session_policy", "user_name", "credential_age_days"],
    "access_key": ["role_arn", "external_id", "duration_seconds", "rotate_after", "overlap", "credential_age_days"],
    "long_term_api_key": ["role_arn", "session_policy", "rotate_after", "overlap", "credential_age_days"],
}


@pytest.mark.parametrize("kind", OPTIONAL)
def test_an_optional_field_that_is_null_counts_as_absent(world, kind):
    ai_secret = {"id": world.new_ai_secret(), "name": None, "org_name": None, "api_url": None}
    ai_secret |= {"api_key_secret_id": None, "layout": None}
    target = world.new_staged_target(kind, ai_secret) if kind in USER_BASED else world.target(ai_secret, kind=kind)
    nulls = {field: None for field in [*OPTIONAL[kind], *OPTIONAL_IN_ALL] if field not in target}
    world.rotate(TARGETS=json.dumps([{**target, **nulls}]))
    assert world.has_working_credentials(ai_secret["id"])
