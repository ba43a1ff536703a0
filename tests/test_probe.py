"""New credentials are proven against Bedrock before anything is written."""

import pytest
from support.http_messages import Reply
from support.reports import failed_error

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
PROBE = "ListFoundationModels"
HTML = Reply(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")


def test_an_ai_secret_that_changed_while_the_probe_waited_is_not_written(world):
    ai_secret = world.new_ai_secret()
    world.aws.new_credentials_unknown_for = 4
    function = world.new_function(world.target(ai_secret))

    def changed(request):
        if request.call == "bedrock:ListFoundationModels":
            world.braintrust.ai_secrets[ai_secret]["metadata"]["auth_type"] = "assume_role"
        return False

    world.aws.fail(changed, None)
    result = function.invoke({"action": "rotate"})
    assert not result.ok
    assert world.braintrust.ai_secrets[ai_secret]["metadata"]["auth_type"] == "assume_role"
    assert world.patches() == []


def test_credentials_that_are_not_known_yet_are_waited_for(world):
    ai_secret = world.new_ai_secret()
    world.aws.new_credentials_unknown_for = 3
    world.rotate(world.target(ai_secret))
    asked = world.aws_requests("bedrock:ListFoundationModels")
    assert asked[0].status == 403 and asked[-1].status == 200
    assert world.has_working_credentials(ai_secret)


def test_credentials_that_stay_unknown_are_never_written(world):
    target = world.target(world.new_ai_secret())
    before = world.braintrust.snapshot()
    world.aws.new_credentials_unknown_for = 60
    report = world.fail_to_rotate(target, timeout=6)
    failed_error(report, "invalid_credentials", "bedrock", PROBE, "UnrecognizedClientException")
    assert world.braintrust.snapshot() == before


@pytest.mark.long
def test_a_page_of_html_in_place_of_bedrock_proves_nothing(world):
    target = world.target(world.new_ai_secret())
    before = world.braintrust.snapshot()
    world.aws.fail("bedrock:ListFoundationModels", HTML, times=None)
    failed_error(world.fail_to_rotate(target), "unavailable", "bedrock", PROBE, "text/html")
    assert world.braintrust.snapshot() == before
