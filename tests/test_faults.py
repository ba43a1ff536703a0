"""What the function does when Braintrust or AWS fails, or sends an answer that the function doesn't expect."""

import itertools

import pytest
from support.faults import DropAfter, DropBefore, Endless, Truncate
from support.http_messages import Reply
from support.reports import failed_error

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
HTML = Reply(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")
FAULTS = {
    "500": Reply(500, b"secret echoed"),
    "503": Reply(503),
    "HTML": HTML,
    "dropped before": DropBefore(),
    "dropped after": DropAfter(),
    "truncated": Truncate(),
}
AWS_CALLS = ["sts:AssumeRole", "secretsmanager:GetSecretValue", "bedrock:ListFoundationModels"]
AWS_FAULTS = ["500", "503", "dropped before", "dropped after", "truncated"]


@pytest.mark.parametrize("call", [GET, PATCH])
def test_a_changed_api_key_is_read_again_after_a_401(world, call):
    ai_secret = world.new_ai_secret()
    function = world.new_function(world.target(ai_secret))
    assert function.invoke({"action": "rotate"}).ok
    world.braintrust.remove_key(world.api_key)
    world.braintrust.add_key("sk-changed")
    world.client("secretsmanager").put_secret_value(SecretId=world.api_key_secret, SecretString="sk-changed")
    if call == PATCH:
        world.braintrust.add_key(world.api_key)
        world.braintrust.fail(PATCH, Reply(401, b"no"))
    world.aws.requests.clear()
    world.braintrust.requests.clear()
    assert function.invoke({"action": "rotate"}).ok
    assert world.has_working_credentials(ai_secret)
    statuses = [request.status for request in world.braintrust.requests if request.call == call]
    assert statuses == [401, 200]
    assert len(world.aws_requests("secretsmanager:GetSecretValue")) == 1


def test_an_unchanged_api_key_is_tried_once(world):
    target = world.target(world.new_ai_secret())
    world.braintrust.remove_key(world.api_key)
    failed_error(world.fail_to_rotate(target), "invalid_credentials", "braintrust", GET)
    assert len(world.braintrust.requests) == 1
    assert len(world.aws_requests("secretsmanager:GetSecretValue")) == 2


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", [GET, PATCH])
def test_braintrust_recovers_from(world, call, fault):
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(call, FAULTS[fault], times=3)
    world.rotate(world.target(ai_secret))
    assert world.has_working_credentials(ai_secret)


# The probe doesn't read the body of a success, so a truncated one makes no difference.
CASES = [case for case in itertools.product(AWS_CALLS, AWS_FAULTS) if case != (AWS_CALLS[2], "truncated")]


@pytest.mark.parametrize(("call", "fault"), CASES)
def test_aws_recovers_from(world, call, fault):
    ai_secret = world.new_ai_secret()
    world.aws.fail(call, FAULTS[fault], times=2)
    world.rotate(world.target(ai_secret))
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_patch_is_neither_repeated_nor_verified(world, status):
    target = world.target(world.new_ai_secret())
    world.braintrust.fail(PATCH, Reply(status, b"secret echoed"), times=None)
    report = world.fail_to_rotate(target)
    assert "echoed" not in str(report)
    # It isn't read again either, because what it holds by then may be another writer's.
    assert [request.method for request in world.braintrust.requests] == ["GET", "PATCH"]


def test_a_very_long_name_does_not_make_a_very_long_report(world):
    target = world.target(world.new_ai_secret("n" * 900_000, type="t" * 100_000))
    report = world.fail_to_rotate(target)
    failed_error(report, "conflict", "braintrust", PATCH)
    assert len(str(report)) < 3_000


def test_a_patch_that_arrived_succeeds_though_its_answers_were_lost(world):
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(PATCH, DropAfter(), times=5)
    report = world.rotate(world.target(ai_secret))
    assert report["targets"][0]["ai_secrets"][0]["updated"]
    assert world.has_working_credentials(ai_secret)


def test_a_page_of_html_in_place_of_braintrust_is_reported(world):
    target = world.target(world.new_ai_secret())
    before = world.braintrust.snapshot()
    world.braintrust.fail(GET, HTML, times=None)
    report = world.fail_to_rotate(target)
    failed_error(report, "unavailable", "braintrust", GET, "text/html")
    assert "proxy" not in str(report)
    assert world.braintrust.snapshot() == before


def test_a_redirect_is_not_followed(world):
    target = world.target(world.new_ai_secret())
    elsewhere = world.new_braintrust()
    location = {"Location": f"{elsewhere.url}/v1/ai_secret/x"}
    world.braintrust.fail(GET, Reply(307, headers=location), times=None)
    failed_error(world.fail_to_rotate(target), "configuration", "braintrust", GET, "307")
    assert elsewhere.requests == []


def test_an_endless_answer_is_cut_off(world):
    target = world.target(world.new_ai_secret())
    world.braintrust.fail(GET, Endless("application/json"), times=None)
    failed_error(world.fail_to_rotate(target), "unavailable", "braintrust", GET, "1 MB")


def test_after_a_lost_answer_to_a_patch_braintrust_has_what_the_report_says(world):
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(PATCH, DropAfter())
    report = world.rotate(world.target(ai_secret))
    assert len(world.patches()) == 2
    assert world.braintrust.credentials(ai_secret)["access_key"] == report["targets"][0]["credential_id"]


def test_an_ai_secret_is_read_again_where_the_answer_to_a_patch_does_not_show_it(world):
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(PATCH, Reply(200, b'{"id":"%s","name":"AWS Bedrock"}' % ai_secret.encode()))
    world.fail_to_rotate(world.target(ai_secret))
    reads = [request for request in world.braintrust.requests if request.call == GET]
    assert len(reads) == 2
