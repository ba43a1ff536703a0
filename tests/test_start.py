"""A wrong configuration fails the start with one error that names what is wrong; a right one may come from a secret."""

import json

import pytest


def started_with(bench, *targets, **extra):
    """What Lambda is told when the function cannot start."""
    function = bench.function(*targets, **extra)
    result = function.invoke({"action": "rotate"})
    assert not result.ok
    return "\n".join(function.logs())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"regoin": "us-east-1"}, ['target \\"prod\\"', "unknown field `regoin`"]),
        ({"region": ""}, ['target \\"prod\\"', "region: found"]),
        ({"duration_seconds": 7200}, ["duration_seconds: found 7200", "role chaining"]),
        ({"role_arn": None}, ["role_arn", "needs it"]),
        ({"kind": "eternal"}, ["kind: unknown variant `eternal`"]),
    ],
)
def test_a_wrong_field_fails_the_start_and_is_named(bench, fields, words):
    log = started_with(bench, bench.target(bench.ai_secret(), **fields))
    for word in words:
        assert word in log, log


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BRAINTRUST_API_URL": "http://braintrust.example"}, ["BRAINTRUST_API_URL", "not loopback"]),
        ({"TARGETS": ""}, ["neither TARGETS nor TARGETS_SECRET_ID"]),
        ({"TARGETS_SECRET_ID": "some-secret"}, ["both TARGETS and TARGETS_SECRET_ID"]),
        ({"TARGETS": "{"}, ["TARGETS", "not a JSON array"]),
        ({"BRAINTRUST_API_KEY_SECRET_ID": ""}, ["BRAINTRUST_API_KEY_SECRET_ID, its default, is not set"]),
        ({"BRAINTRUST_CA_BUNDLE": "/no/such.pem"}, ["BRAINTRUST_CA_BUNDLE", "/no/such.pem"]),
    ],
)
def test_a_wrong_variable_fails_the_start_and_is_named(bench, variables, words):
    log = started_with(bench, bench.target(bench.ai_secret()), **variables)
    for word in words:
        assert word in log, log
    assert bench.aws_requests() == []


def test_two_targets_of_one_name_fail_the_start(bench):
    targets = [bench.target(bench.ai_secret("one")), bench.target(bench.ai_secret("two"))]
    assert "name: another target has it already" in started_with(bench, *targets)


def test_the_targets_may_come_from_a_secret(bench):
    ai_secret = bench.ai_secret()
    secret = bench.stack.secret(json.dumps([bench.target(ai_secret)]))
    bench.rotate(TARGETS="", TARGETS_SECRET_ID=secret)
    assert bench.holds_working_credentials(ai_secret)


def test_a_wrong_field_in_the_secret_is_named_too(bench):
    secret = bench.stack.secret(json.dumps([bench.target(bench.ai_secret(), region="")]))
    log = started_with(bench, TARGETS="", TARGETS_SECRET_ID=secret)
    assert "TARGETS_SECRET_ID" in log and 'target \\"prod\\": region' in log


def test_a_missing_targets_secret_is_named(bench):
    assert "no-such-secret" in started_with(bench, TARGETS="", TARGETS_SECRET_ID="no-such-secret")


def test_the_api_key_may_stand_in_json(bench):
    ai_secret = bench.ai_secret()
    secret = bench.stack.secret(json.dumps({"api_key": bench.api_key}))
    bench.rotate(bench.target(ai_secret), BRAINTRUST_API_KEY_SECRET_ID=secret)
    assert bench.holds_working_credentials(ai_secret)
