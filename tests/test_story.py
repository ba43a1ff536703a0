"""What `make run` tells about a rotation."""

import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from urllib.parse import urlencode

import pytest
from support.http_messages import RecordedRequest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import story  # noqa: E402
from local_rotation import Invocation, ModelCall  # noqa: E402
from page import Page  # noqa: E402

NOW = datetime(2026, 1, 10, tzinfo=timezone.utc)
ROLE = "arn:aws:iam::123456789012:role/bedrock-braintrust-rotator-BedrockRole-3FE477A374EA0"
FORM = {"content-type": "application/x-www-form-urlencoded"}
REFUSED = ModelCall(
    "ASIAOLD", False, "403 UnrecognizedClientException: The security token included in the request is invalid"
)


def recorded(call, body=b"", **form):
    return RecordedRequest("POST", "/", FORM, urlencode(form).encode() if form else body, call=call)


def invocation(name, outcome, calls=(), **fields):
    report = {"targets": [{"name": "default", "outcome": outcome, **fields}]}
    return Invocation(name, report, outcome == "failed", 12.4, list(calls))


CALLS = [
    recorded("secretsmanager:GetSecretValue"),
    recorded("GET /v1/ai_secret/{id}"),
    recorded("sts:AssumeRole", RoleArn=ROLE),
    recorded("bedrock:ListFoundationModels"),
    recorded("PATCH /v1/ai_secret/{id}"),
    recorded("bedrock:ListFoundationModels"),
    recorded("secretsmanager:UpdateSecretVersionStage", b'{"VersionStage":"AWSCURRENT"}'),
    recorded("secretsmanager:UpdateSecretVersionStage", b'{"VersionStage":"AWSPENDING"}'),
]


def test_the_acts_are_what_the_function_did_in_that_order():
    assert [act.split()[0] for act in story.acts(CALLS)] == ["assumed", "proved", "wrote", "made"]
    assert story.acts(CALLS)[0] == f"assumed the role {ROLE}"
    assert story.acts(CALLS[:2]) == []


@pytest.mark.parametrize(
    "call, act",
    [
        ("iam:CreateAccessKey", "created an access key for the IAM user somebody"),
        ("iam:CreateServiceSpecificCredential", "created a Bedrock API key for the IAM user somebody"),
    ],
)
def test_a_new_key_is_an_act(call, act):
    assert story.acts([recorded(call, UserName="somebody")]) == [act]


def test_a_short_term_api_key_is_signed_before_it_is_proved():
    proof = recorded("bedrock:ListFoundationModels")
    signed = replace(proof, headers={"authorization": "Bearer bedrock-api-key-YmVkcm9jaw=="})
    assert [act.split(" with ")[0] for act in story.acts([signed, signed])] == [
        "signed a short-term API key",
        "proved that Bedrock accepts the new credentials",
    ]
    assert len(story.acts([proof])) == 1


def test_each_run_says_what_it_reported_and_the_steps_of_one_rotation_share_a_line():
    runs = [
        invocation("A run", "rotated", CALLS[:1], credential_id="ASIA1", expires_at="2026-01-10T01:00:00Z"),
        invocation("Another", "not_due", credential_id="ASIA1"),
    ]
    lines = story.the_rotation(runs, Page(80), NOW)
    assert lines == [
        "The rotation",
        "  A run (12 ms): rotated, ASIA1, expires in 60 minutes",
        "  Another (12 ms): not due, ASIA1",
    ]
    steps = [invocation(name, "step_done", credential_id="AKIA1") for name in ("createSecret", "setSecret")]
    assert story.the_rotation(steps, Page(80), NOW)[1:] == ["  createSecret (12 ms), setSecret (12 ms): done, AKIA1"]


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("colors", [False, True])
def test_the_story_fits_the_page(width, colors):
    page = Page(width, colors)
    lines = story.provider("Before", REFUSED, page, "which expired long ago")
    lines += story.the_rotation([invocation("A scheduled run", "rotated", CALLS, credential_id="ASIA1")], page, NOW)
    for outputs in ({"BedrockRoleArn": ROLE}, {"IamUserName": "somebody"}):
        lines += story.try_next(outputs, page)
    plain = [re.sub(r"\x1b\[\d+m", "", line) for line in lines]
    assert all(len(line) <= width or " " not in line.strip() for line in plain), plain
    assert any(line.endswith(ROLE) for line in plain)
    assert (plain != lines) == colors


def test_a_user_based_kind_has_something_else_to_break():
    assert story.try_next({"BedrockRoleArn": ROLE}, Page(80))[1].startswith("  make break WHAT=trust ")
    assert story.try_next({"IamUserName": "somebody"}, Page(80))[1].startswith("  make break WHAT=bedrock ")


def test_a_failure_ends_the_story_with_its_remedy():
    error = {"class": "permission", "service": "sts", "call": "AssumeRole", "problem": "answered AccessDenied"}
    failed = invocation("A scheduled run", "failed", error={**error, "remedy": "Check the trust policy"})
    with pytest.raises(SystemExit, match="(?s)A scheduled run failed.*STS AssumeRole.*Check the trust policy"):
        story.stop_at_failure([failed], Page(80))
    crashed = Invocation("A scheduled run", "Runtime.ExitError", True, 1, [])
    with pytest.raises(SystemExit, match="(?s)A scheduled run failed.*Runtime.ExitError"):
        story.stop_at_failure([crashed], Page(80))
