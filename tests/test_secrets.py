"""No secret leaves the function: the tests search the answers and the logs at TRACE for every form of each secret."""

import base64
import urllib.parse

import pytest
from support.faults import DropAfter, Truncate
from support.http_messages import Reply
from support.secret_forms import denied_with_echo, echo, forms

PATCH = "PATCH /v1/ai_secret/{id}"


SCENARIOS = {
    "a good rotation": lambda world: None,
    "a PATCH refused with an echo": lambda world: world.braintrust.fail(PATCH, Reply(400, echo), times=None),
    "a PATCH that fails with an echo": lambda world: world.braintrust.fail(PATCH, Reply(500, echo), times=None),
    "a PATCH answered with an echo": lambda world: world.braintrust.fail(PATCH, Reply(200, echo), times=None),
    "a refused key": lambda world: world.braintrust.remove_key(world.api_key),
    "a lost answer": lambda world: world.braintrust.fail(PATCH, DropAfter()),
    "a truncated answer": lambda world: world.braintrust.fail(PATCH, Truncate(), times=None),
    "a refused probe": lambda world: world.aws.fail(
        "bedrock:ListFoundationModels", Reply(403, echo, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    ),
    "a probe denied with an echo": lambda world: world.aws.fail(
        "bedrock:ListFoundationModels", denied_with_echo("bedrock"), times=None
    ),
    "an AssumeRole denied with an echo": lambda world: world.aws.fail(
        "sts:AssumeRole", denied_with_echo("sts"), times=None, skip=1
    ),
    "a truncated AssumeRole": lambda world: world.aws.fail("sts:AssumeRole", Truncate(), times=2),
    "a truncated GetSecretValue": lambda world: world.aws.fail("secretsmanager:GetSecretValue", Truncate(), times=2),
}


@pytest.mark.parametrize("log_format", ["JSON", "Text"])
@pytest.mark.parametrize("layout", ["gateway", "documented"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_secret_is_shown_in(world, scenario, layout, log_format):
    ai_secret = world.new_ai_secret(
        metadata={"aws_secret_access_key": "left-over-secret-key", "session_token": "left-over-token"}
    )
    variables = {
        "AWS_LAMBDA_LOG_LEVEL": "TRACE",
        "AWS_LAMBDA_LOG_FORMAT": log_format,
        "RUST_LOG": "trace",
        "RUST_BACKTRACE": "full",
    }
    function = world.new_function(world.target({"id": ai_secret, "layout": layout}), **variables)
    SCENARIOS[scenario](world)
    answers = [function.invoke({"action": "rotate"}).raw for _ in range(2)]
    shown = "\n".join(function.logs()).encode() + b"\n".join(answers)
    secrets = {world.api_key, "left-over-secret-key", "left-over-token", "old-secret"}
    for request in world.patches():
        body = request.json()
        parts = [body.get("secret"), body["metadata"].get("session_token")]
        parts += [body["metadata"].get(key) for key in ("aws_secret_access_key", "aws_session_token")]
        secrets.update(part for part in parts if part)
    secrets.update(world.aws.issued_secrets)
    secrets.update(world.cloud.caller[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    assert len(secrets) > 6 or scenario == "a refused key"
    for secret in secrets:
        for form in forms(secret):
            assert form not in shown, f"{scenario}: a secret of {len(secret)} characters is shown"


def test_the_search_would_find_a_secret():
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=="
    for shift in range(3):
        assert any(form in base64.b64encode(b"a" * shift + secret.encode() + b"rest") for form in forms(secret))
    assert any(form in urllib.parse.urlencode({"token": secret}).encode() for form in forms(secret))
