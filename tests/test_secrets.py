"""No secret leaves the function: whole rotations at TRACE, good and bad, are searched for every secret in every form."""

import base64
import json
import urllib.parse

import pytest
from support.server import Answer, DropAfter, Truncate

PATCH = "PATCH /v1/ai_secret/{id}"


def echo(request):
    """An error body that repeats what was sent, as Braintrust's may."""
    return request.body + request.headers.get("authorization", "").encode()


SCENARIOS = {
    "a good rotation": lambda bench: None,
    "a PATCH refused with an echo": lambda bench: bench.braintrust.fail(PATCH, Answer(400, echo), times=None),
    "a PATCH that fails with an echo": lambda bench: bench.braintrust.fail(PATCH, Answer(500, echo), times=None),
    "a PATCH answered with an echo": lambda bench: bench.braintrust.fail(PATCH, Answer(200, echo), times=None),
    "a refused key": lambda bench: bench.braintrust.remove_key(bench.api_key),
    "a lost answer": lambda bench: bench.braintrust.fail(PATCH, DropAfter()),
    "a truncated answer": lambda bench: bench.braintrust.fail(PATCH, Truncate(), times=None),
    "a refused probe": lambda bench: bench.aws.fail(
        "bedrock:ListFoundationModels", Answer(403, echo, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    ),
    "a truncated AssumeRole": lambda bench: bench.aws.fail("sts:AssumeRole", Truncate(), times=2),
    "a truncated GetSecretValue": lambda bench: bench.aws.fail("secretsmanager:GetSecretValue", Truncate(), times=2),
}


def forms(secret):
    """A secret as it is, in base64 at each alignment, URL-encoded and as JSON would escape it."""
    raw = secret.encode()
    yield raw
    yield urllib.parse.quote(secret, safe="").encode()
    yield urllib.parse.quote_plus(secret).encode()
    yield json.dumps(secret)[1:-1].encode()
    for shift in range(3):
        # Without the characters that the neighbours of the secret decide.
        whole = base64.b64encode(b"x" * shift + raw)
        yield whole[4 if shift else 0 : len(whole) - 4]


@pytest.mark.parametrize("log_format", ["JSON", "Text"])
@pytest.mark.parametrize("layout", ["gateway", "documented"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_secret_is_shown_in(bench, scenario, layout, log_format):
    ai_secret = bench.ai_secret(metadata={"aws_secret_access_key": "left-over-secret-key", "session_token": "left-over-token"})
    variables = {"AWS_LAMBDA_LOG_LEVEL": "TRACE", "AWS_LAMBDA_LOG_FORMAT": log_format, "RUST_LOG": "trace", "RUST_BACKTRACE": "full"}
    function = bench.function(bench.target({"id": ai_secret, "layout": layout}), **variables)
    SCENARIOS[scenario](bench)
    answers = [function.invoke({"action": "rotate"}).raw for _ in range(2)]
    shown = "\n".join(function.logs()).encode() + b"\n".join(answers)
    secrets = {bench.api_key, "left-over-secret-key", "left-over-token", "old-secret"}
    for request in bench.patches():
        body = request.json()
        parts = [body.get("secret"), body["metadata"].get("session_token")]
        parts += [body["metadata"].get(key) for key in ("aws_secret_access_key", "aws_session_token")]
        secrets.update(part for part in parts if part)
    secrets.update(bench.aws.minted_secrets)
    secrets.update(bench.stack.caller[name] for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
    assert len(secrets) > 6 or scenario == "a refused key"
    for secret in secrets:
        for form in forms(secret):
            assert form not in shown, f"{scenario}: a secret of {len(secret)} characters is shown"


def test_the_search_would_find_a_secret():
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=="
    for shift in range(3):
        assert any(form in base64.b64encode(b"a" * shift + secret.encode() + b"rest") for form in forms(secret))
    assert any(form in urllib.parse.urlencode({"token": secret}).encode() for form in forms(secret))
