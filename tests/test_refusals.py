"""Bad input gets a clear error and changes nothing."""

import json
import uuid

import pytest
from support.server import Answer

UNKNOWN = str(uuid.UUID(int=7))


@pytest.fixture
def unchanged(bench):
    """Fails the test if any ai_secret was changed since the test took its snapshot."""
    taken = {}
    yield lambda: taken.update(before=bench.braintrust.snapshot())
    assert bench.braintrust.snapshot() == taken["before"]


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        "rotate",
        {"action": "destroy"},
        {"action": "rotate", "verbose": True},
        {"action": "rotate", "targets": [{"name": "mine", "role_arn": "arn:aws:iam::123456789012:role/mine"}]},
        {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "detail": {}},
    ],
)
def test_an_unknown_event_is_refused_with_what_is_accepted(bench, unchanged, event):
    target = bench.target(bench.ai_secret())
    unchanged()
    error = bench.fail(target, event=event)
    assert "Accepted: an EventBridge" in error
    assert bench.aws_requests() == [] and bench.braintrust.requests == []


def test_malformed_json_is_refused(bench, unchanged):
    target = bench.target(bench.ai_secret())
    unchanged()
    bench.fail(target, event=b'{"action": "rot')
    assert bench.aws_requests() == []


@pytest.mark.parametrize(
    "event",
    [
        {"action": "rotate", "targets": ["x" * 5_000_000]},
        {"action": "rotate", "targets": [str(n) for n in range(200_000)]},
        {"action": "rotate", "targets": ["\ud800", "\x00", "\u202e"]},
        {"Step": "x" * 1_000_000, "SecretId": "x" * 1_000_000, "ClientRequestToken": "\x00"},
        {"action": "rotate", "force": 1e400},
    ],
    ids=["a huge name", "many names", "odd names", "a huge step", "an endless number"],
)
def test_a_huge_or_odd_event_is_refused_in_few_words(bench, unchanged, event):
    target = bench.target(bench.ai_secret())
    unchanged()
    result = bench.function(target).invoke(event)
    assert not result.ok and result.status == 200
    assert len(result.raw) < 1_000
    assert bench.aws_requests() == [] and bench.braintrust.requests == []


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deeply_nested_answer_is_an_error(bench, opening):
    ai_secret = bench.ai_secret()
    deep = b'{"id":"%s","name":"x","type":"bedrock","metadata":' % ai_secret.encode() + opening * 100_000
    bench.braintrust.fail("GET /v1/ai_secret/{id}", Answer(200, deep), times=None)
    failed(bench.fail(bench.target(ai_secret)), "unavailable", "braintrust")
    assert bench.patches() == []


def test_deeply_nested_json_is_refused(bench, unchanged):
    target = bench.target(bench.ai_secret())
    unchanged()
    function = bench.function(target)
    assert not function.invoke(b'{"action":' + b"[" * 5_000 + b"]" * 5_000 + b"}").ok
    assert function.invoke({"action": "rotate", "dry_run": True}).ok


def test_a_target_that_is_not_configured_is_refused_with_those_that_are(bench, unchanged):
    target = bench.target(bench.ai_secret(), name="prod-us")
    unchanged()
    error = bench.fail(target, event={"action": "rotate", "targets": ["prod-eu"]})
    assert "prod-eu" in error and "Configured are: prod-us" in error
    assert bench.aws_requests() == []


def failed(report, klass, service, *words):
    """The error of a report's only target, checked for its class and for what it says."""
    [target] = report["targets"]
    assert target["outcome"] == "failed"
    error = target["error"]
    assert (error["class"], error["service"]) == (klass, service), error
    for word in words:
        assert word in f"{error['problem']} {error['remedy']}", error
    return error


@pytest.mark.parametrize("status", [400, 404])
def test_a_missing_ai_secret_is_not_found(bench, unchanged, status):
    bench.ai_secret()
    bench.braintrust.missing_id_status = status
    unchanged()
    failed(bench.fail(bench.target(UNKNOWN)), "not_found", "braintrust", UNKNOWN, "Check the id")


def test_a_missing_ai_secret_that_answers_403_is_a_permission(bench, unchanged):
    bench.braintrust.missing_id_status = 403
    unchanged()
    failed(bench.fail(bench.target(UNKNOWN)), "permission", "braintrust", "key sees its own organizations only")


def test_a_missing_name_is_answered_with_the_names_there_are(bench, unchanged):
    ai_secret = bench.ai_secret("AWS Bedrock")
    bench.braintrust.add_ai_secret("OpenAI", type="openai")
    unchanged()
    error = failed(bench.fail(bench.target({"name": "AWS bedrock"})), "not_found", "braintrust", ai_secret)
    assert "OpenAI" not in error["problem"]


def test_an_ambiguous_name_is_refused_with_the_candidates(bench, unchanged):
    bench.braintrust.add_key(bench.api_key, orgs=("Acme US", "Acme EU"))
    ids = [bench.ai_secret("AWS Bedrock", org_name=org) for org in ("Acme US", "Acme EU")]
    unchanged()
    failed(bench.fail(bench.target({"name": "AWS Bedrock"})), "conflict", "braintrust", *ids, "add org_name")


@pytest.mark.parametrize("lookup", ["id", "name"])
def test_an_ai_secret_of_another_type_is_refused(bench, unchanged, lookup):
    ai_secret = bench.ai_secret("OpenAI", type="openai")
    unchanged()
    named = {"id": {"id": ai_secret}, "name": {"name": "OpenAI"}}[lookup]
    failed(bench.fail(bench.target(named)), "conflict", "braintrust", '"openai", not "bedrock"', "was not touched")


def test_an_ai_secret_on_assume_role_is_refused_with_the_way_out(bench, unchanged):
    ai_secret = bench.ai_secret(metadata={"auth_type": "assume_role", "role_arn": "x"})
    unchanged()
    failed(bench.fail(bench.target(ai_secret)), "conflict", "braintrust", "needs no rotation")


@pytest.mark.parametrize("layout", ["gateway", "documented"])
def test_a_configured_layout_does_not_lift_the_refusals(bench, unchanged, layout):
    ai_secret = bench.ai_secret(metadata={"auth_type": "assume_role"})
    unchanged()
    failed(bench.fail(bench.target({"id": ai_secret, "layout": layout})), "conflict", "braintrust")


def test_a_role_that_does_not_exist_is_explained(bench, unchanged):
    target = bench.target(bench.ai_secret(), role_arn="arn:aws:iam::000000000000:role/nobody")
    unchanged()
    failed(bench.fail(target), "permission", "sts", "role/nobody", "trust policy names this")


@pytest.mark.parametrize("external_id", [None, "wrong"])
def test_a_wrong_external_id_is_explained(bench, unchanged, external_id):
    role = bench.stack.role(external_id="right")
    target = bench.target(bench.ai_secret(), role_arn=role, external_id=external_id)
    unchanged()
    failed(bench.fail(target), "permission", "sts", "ExternalId")


def test_a_role_that_may_not_use_bedrock_is_not_written(bench, unchanged):
    role = bench.stack.role(allow=["s3:ListAllMyBuckets"])
    target = bench.target(bench.ai_secret(), role_arn=role)
    unchanged()
    failed(bench.fail(target), "permission", "bedrock", "allow bedrock:ListFoundationModels", "are known")
    assert len(bench.aws_requests("bedrock:ListFoundationModels")) == 1


def test_a_key_that_braintrust_refuses_is_explained(bench, unchanged):
    target = bench.target(bench.ai_secret())
    bench.braintrust.remove_key(bench.api_key)
    unchanged()
    failed(bench.fail(target), "invalid_credentials", "braintrust", "refuses the API key")


def test_a_key_that_is_no_admins_is_explained(bench, unchanged):
    target = bench.target(bench.ai_secret())
    bench.braintrust.add_key(bench.api_key, admin=False)
    unchanged()
    failed(bench.fail(target), "permission", "braintrust", "only an organization's admins")
    assert len(bench.patches()) == len(bench.aws_requests("secretsmanager:GetSecretValue")) == 1


def test_a_secret_without_a_key_is_explained(bench, unchanged):
    target = bench.target(bench.ai_secret())
    unchanged()
    secret = bench.stack.secret(json.dumps({"key": bench.api_key}))
    report = bench.fail(target, BRAINTRUST_API_KEY_SECRET_ID=secret)
    failed(report, "configuration", "secrets_manager", "holds no Braintrust API key", '"api_key"')
    assert bench.api_key not in json.dumps(report)


def test_a_missing_secret_is_not_found(bench, unchanged):
    target = bench.target(bench.ai_secret())
    unchanged()
    failed(bench.fail(target, BRAINTRUST_API_KEY_SECRET_ID="no-such"), "not_found", "secrets_manager", "no-such")


def test_a_data_plane_that_takes_no_change_is_found_out(bench, unchanged):
    target = bench.target(bench.ai_secret())
    bench.braintrust.ignore_patches = True
    unchanged()
    failed(bench.fail(target), "verification_failed", "braintrust", "something else reads back")
