"""What a tick does when a service is slow, busy, broken or gone, and when a credential is not known yet."""

import itertools
import threading
import socket
import time
import uuid

import pytest
from support.server import Answer, Delay, DropAfter, DropBefore, Endless, Truncate
from test_refusals import failed

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
HTML = Answer(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")


@pytest.mark.parametrize("call", [GET, PATCH])
def test_a_changed_api_key_is_read_again_after_a_401(bench, call):
    ai_secret = bench.ai_secret()
    function = bench.function(bench.target(ai_secret))
    assert function.invoke({"action": "rotate"}).ok
    bench.braintrust.remove_key(bench.api_key)
    bench.braintrust.add_key("sk-changed")
    bench.stack.client("secretsmanager").put_secret_value(SecretId=bench.api_key_secret, SecretString="sk-changed")
    if call == PATCH:
        bench.braintrust.add_key(bench.api_key)
        bench.braintrust.fail(PATCH, Answer(401, b"no"))
    bench.aws.requests.clear()
    bench.braintrust.requests.clear()
    assert function.invoke({"action": "rotate"}).ok
    assert bench.holds_working_credentials(ai_secret)
    statuses = [request.status for request in bench.braintrust.requests if request.call == call]
    assert statuses == [401, 200]
    assert len(bench.aws_requests("secretsmanager:GetSecretValue")) == 1


def test_an_unchanged_api_key_is_tried_once(bench):
    target = bench.target(bench.ai_secret())
    bench.braintrust.remove_key(bench.api_key)
    failed(bench.fail(target), "invalid_credentials", "braintrust")
    assert len(bench.braintrust.requests) == 1
    assert len(bench.aws_requests("secretsmanager:GetSecretValue")) == 2


@pytest.mark.parametrize("call", [GET, PATCH])
def test_retry_after_is_waited_for(bench, call):
    ai_secret = bench.ai_secret()
    bench.braintrust.fail(call, Answer(429, headers={"Retry-After": "2"}))
    bench.rotate(bench.target(ai_secret))
    first, second = [request for request in bench.braintrust.requests if request.call == call]
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 2
    assert bench.holds_working_credentials(ai_secret)


FAULTS = {
    "500": Answer(500, b"secret echoed"),
    "503": Answer(503),
    "HTML": HTML,
    "dropped before": DropBefore(),
    "dropped after": DropAfter(),
    "truncated": Truncate(),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", [GET, PATCH])
def test_braintrust_recovers_from(bench, call, fault):
    ai_secret = bench.ai_secret()
    bench.braintrust.fail(call, FAULTS[fault], times=3)
    bench.rotate(bench.target(ai_secret))
    assert bench.holds_working_credentials(ai_secret)


AWS_CALLS = ["sts:AssumeRole", "secretsmanager:GetSecretValue", "bedrock:ListFoundationModels"]
AWS_FAULTS = ["500", "503", "dropped before", "dropped after", "truncated"]
# The probe reads nothing of a good answer, so a truncated one is as good as a whole one.
CASES = [case for case in itertools.product(AWS_CALLS, AWS_FAULTS) if case != (AWS_CALLS[2], "truncated")]


@pytest.mark.parametrize(("call", "fault"), CASES)
def test_aws_recovers_from(bench, call, fault):
    ai_secret = bench.ai_secret()
    bench.aws.fail(call, FAULTS[fault], times=2)
    bench.rotate(bench.target(ai_secret))
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_is_never_repeated_nor_looked_behind(bench, status):
    target = bench.target(bench.ai_secret())
    bench.braintrust.fail(PATCH, Answer(status, b"secret echoed"), times=None)
    report = bench.fail(target)
    assert "echoed" not in str(report)
    # Not read again either: what shows then may be another writer's.
    assert [request.method for request in bench.braintrust.requests] == ["GET", "PATCH"]


def test_an_absurd_retry_after_fails_one_target_and_not_the_function(bench):
    bad, good = bench.ai_secret("bad"), bench.ai_secret("good")
    absurd = Answer(429, headers={"Retry-After": "18446744073709551615"})
    bench.braintrust.fail(lambda request: bad in request.path, absurd, times=None)
    report = bench.fail(bench.target(bad, name="bad"), bench.target(good, name="good"))
    assert [target["outcome"] for target in report["targets"]] == ["failed", "rotated"]
    assert report["targets"][0]["error"]["class"] == "throttled"


def test_an_endless_name_does_not_make_an_endless_report(bench):
    target = bench.target(bench.ai_secret("n" * 900_000, type="t" * 100_000))
    report = bench.fail(target)
    failed(report, "conflict", "braintrust", "was not touched")
    assert len(str(report)) < 3_000


def test_an_ai_secret_that_changed_while_the_probe_waited_is_refused(bench):
    ai_secret = bench.ai_secret()
    bench.aws.new_credentials_unknown_for = 4
    function = bench.function(bench.target(ai_secret))

    def changed(request):
        if request.call == "bedrock:ListFoundationModels":
            bench.braintrust.ai_secrets[ai_secret]["metadata"]["auth_type"] = "assume_role"
        return False

    bench.aws.fail(changed, None)
    result = function.invoke({"action": "rotate"})
    assert not result.ok
    assert bench.braintrust.ai_secrets[ai_secret]["metadata"]["auth_type"] == "assume_role"
    assert bench.patches() == []


def test_lost_answers_to_a_patch_that_arrived_are_found_out(bench):
    ai_secret = bench.ai_secret()
    bench.braintrust.fail(PATCH, DropAfter(), times=5)
    report = bench.rotate(bench.target(ai_secret))
    assert report["targets"][0]["ai_secrets"][0]["updated"]
    assert bench.holds_working_credentials(ai_secret)


def test_a_braintrust_that_is_down_fails_in_seconds(bench):
    target = bench.target(bench.ai_secret())
    # Bound, so that nobody else gets the port, and not listening.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        started = time.monotonic()
        target["ai_secrets"][0]["api_url"] = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        report = bench.fail(target)
    failed(report, "unavailable", "braintrust", "could not be reached")
    assert time.monotonic() - started < 20


def test_a_braintrust_that_answers_html_is_explained(bench):
    target = bench.target(bench.ai_secret())
    before = bench.braintrust.snapshot()
    bench.braintrust.fail(GET, HTML, times=None)
    report = bench.fail(target)
    failed(report, "unavailable", "braintrust", "answered text/html where JSON", "Check that the Braintrust URL")
    assert "proxy" not in str(report)
    assert bench.braintrust.snapshot() == before


def test_a_redirect_is_not_followed(bench):
    target = bench.target(bench.ai_secret())
    elsewhere = bench.new_braintrust()
    location = {"Location": f"{elsewhere.url}/v1/ai_secret/x"}
    bench.braintrust.fail(GET, Answer(307, headers=location), times=None)
    failed(bench.fail(target), "configuration", "braintrust", "answered 307", "does not redirect")
    assert elsewhere.requests == []


def test_an_endless_answer_ends_at_a_bound(bench):
    target = bench.target(bench.ai_secret())
    bench.braintrust.fail(GET, Endless("application/json"), times=None)
    failed(bench.fail(target), "unavailable", "braintrust", "answered more than 1 MB")


def test_a_deadline_that_passes_ends_in_a_report(bench):
    slow, fast = bench.ai_secret("slow"), bench.ai_secret("fast")
    bench.braintrust.fail(lambda request: slow in request.path, Delay(30), times=None)
    started = time.monotonic()
    report = bench.fail(bench.target(slow, name="slow"), bench.target(fast, name="fast"), timeout=5)
    assert time.monotonic() - started < 5
    by_name = {target["name"]: target for target in report["targets"]}
    assert by_name["slow"]["error"]["class"] == "timeout"
    assert by_name["slow"]["error"]["call"] == GET
    assert by_name["fast"]["outcome"] == "rotated"
    assert bench.holds_working_credentials(fast)


def test_targets_without_time_to_start_are_deferred(bench):
    ids = [bench.ai_secret(f"secret {n}") for n in range(40)]
    targets = [bench.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate(ids)]
    bench.braintrust.fail(lambda request: request.path.split("/")[-1] in ids[:32], Delay(30), times=None)
    report = bench.fail(*targets, timeout=5)
    outcomes = [target["outcome"] for target in report["targets"]]
    assert outcomes == ["failed"] * 32 + ["deferred"] * 8
    assert not any(bench.holds_working_credentials(ai_secret) for ai_secret in ids[32:])


@pytest.mark.parametrize("rate, count", [(4, 60), (20, 100), (60, 300)])
def test_a_data_plane_with_a_rate_limit_is_not_hammered(bench, rate, count):
    """The first burst is refused; after that only a small part is, and every target gets through."""
    bench.braintrust.max_per_second = rate
    ids = [bench.ai_secret(f"secret {n}") for n in range(count)]
    report = bench.rotate(*(bench.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate(ids)))
    assert {target["outcome"] for target in report["targets"]} == {"rotated"}
    statuses = [request.status for request in bench.braintrust.requests]
    assert statuses.count(429) <= 32 + len(statuses) // 10, statuses.count(429)
    # Three calls a target, as a PATCH that waited reads once more: as the limit allows, and half as fast at worst.
    assert report["duration_ms"] / 1000 <= 2 * (3 * len(ids) / rate) + 3


def test_a_data_plane_that_throttles_all_holds_back_no_other(bench):
    dead, other = bench.new_braintrust(), bench.ai_secret()
    dead.add_key(bench.api_key)
    dead.fail(GET, Answer(429, headers={"Retry-After": "5"}), times=None)
    ids = [dead.add_ai_secret(f"secret {n}", metadata={}) for n in range(40)]
    there = [bench.target({"id": id, "api_url": dead.url}, name=f"dead-{n}") for n, id in enumerate(ids)]
    report = bench.fail(*there, bench.target(other), timeout=15)
    assert report["targets"][-1]["outcome"] == "rotated" and report["targets"][-1]["duration_ms"] < 2_000
    assert bench.holds_working_credentials(other)
    assert len(dead.requests) <= 40
    assert report["targets"][0]["error"]["class"] == "throttled"


def test_an_organization_that_is_throttled_holds_back_no_other(bench):
    throttled, key = [bench.ai_secret(f"secret {n}") for n in range(40)], f"sk-{uuid.uuid4()}"
    bench.braintrust.add_key(key)
    bench.braintrust.fail(lambda r: key in r.headers["authorization"], Answer(429, headers={"Retry-After": "5"}), times=None)
    secret = bench.stack.secret(key)
    there = [bench.target({"id": id, "api_key_secret_id": secret}, name=f"throttled-{n}") for n, id in enumerate(throttled)]
    report = bench.fail(*there, bench.target(bench.ai_secret("other")), timeout=15)
    assert report["targets"][-1]["outcome"] == "rotated" and report["targets"][-1]["duration_ms"] < 2_000


def test_a_patch_whose_answer_was_lost_is_not_taken_for_another_writers(bench):
    ai_secret = bench.ai_secret(metadata={})
    bench.braintrust.fail(PATCH, DropAfter())
    bench.braintrust.fail(PATCH, Answer(429, headers={"Retry-After": "3"}))
    assert bench.rotate(bench.target(ai_secret))["targets"][0]["outcome"] == "rotated"
    assert bench.holds_working_credentials(ai_secret)


OTHER_WRITERS = {
    "the auth_type": {"auth_type": "assume_role"},
    "the region": {"auth_type": "iam_credentials", "access_key": "AKIA", "region": "eu-central-1"},
    "the layout": {"aws_access_key_id": "AKIA", "region": "us-east-1"},
}


@pytest.mark.parametrize("changed", OTHER_WRITERS.values(), ids=OTHER_WRITERS)
def test_an_ai_secret_that_changed_while_its_patch_waited_for_its_turn_is_refused(bench, changed):
    ai_secrets = [bench.ai_secret(f"secret {n}") for n in range(3)]
    function = bench.function(*(bench.target(id, name=f"target-{n}") for n, id in enumerate(ai_secrets)))
    # Each PATCH is refused once, so that they come again one after another, some seconds later.
    bench.braintrust.fail(PATCH, Answer(429, headers={"Retry-After": "4"}), times=3)
    timer = threading.Timer(2, lambda: [bench.braintrust.ai_secrets[id].update(metadata=dict(changed)) for id in ai_secrets])
    timer.start()
    result = function.invoke({"action": "rotate"})
    timer.join()
    assert not result.ok
    for id in ai_secrets:
        assert bench.braintrust.ai_secrets[id]["metadata"] == changed
        assert not any(r.status == 200 and id in r.path for r in bench.patches())


@pytest.mark.parametrize("metadata", [{}, {"region": "eu-central-1"}], ids=["no region", "another region"])
def test_an_ai_secret_that_stayed_as_it_was_is_written_after_a_wait(bench, metadata):
    ai_secret = bench.ai_secret(metadata=metadata)
    bench.braintrust.fail(PATCH, Answer(429, headers={"Retry-After": "3"}))
    bench.rotate(bench.target(ai_secret))
    assert bench.holds_working_credentials(ai_secret)


def test_a_slow_target_holds_back_no_other(bench):
    slow, *fast = [bench.ai_secret(f"secret {n}") for n in range(80)]
    bench.braintrust.fail(lambda request: slow in request.path, Delay(30), times=None)
    targets = [bench.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate([slow, *fast])]
    report = bench.fail(*targets, timeout=8)
    assert [target["outcome"] for target in report["targets"]] == ["failed"] + ["rotated"] * 79
    assert report["targets"][0]["duration_ms"] >= 5_000
    assert [target["name"] for target in report["targets"]] == [target["name"] for target in targets]


def test_one_failing_target_does_not_stop_another(bench):
    good, bad = bench.ai_secret("good"), bench.ai_secret("bad", metadata={"auth_type": "assume_role"})
    report = bench.fail(bench.target(bad, name="bad"), bench.target(good, name="good"))
    assert [(target["name"], target["outcome"]) for target in report["targets"]] == [
        ("bad", "failed"),
        ("good", "rotated"),
    ]
    assert bench.holds_working_credentials(good)


def test_one_failing_ai_secret_does_not_keep_the_others_stale(bench):
    good, bad = bench.ai_secret("good"), bench.ai_secret("bad")
    bench.braintrust.fail(lambda request: request.method == "PATCH" and bad in request.path, Answer(500), times=None)
    report = bench.fail(bench.target(bad, good))
    [target] = report["targets"]
    assert [entry["updated"] for entry in target["ai_secrets"]] == [False, True]
    assert target["ai_secrets"][0]["error"]["class"] == "unavailable"
    assert bench.holds_working_credentials(good)


def test_credentials_that_are_not_known_yet_are_waited_for(bench):
    ai_secret = bench.ai_secret()
    bench.aws.new_credentials_unknown_for = 3
    bench.rotate(bench.target(ai_secret))
    asked = bench.aws_requests("bedrock:ListFoundationModels")
    assert asked[0].status == 403 and asked[-1].status == 200
    assert bench.holds_working_credentials(ai_secret)


def test_credentials_that_stay_unknown_are_never_written(bench):
    target = bench.target(bench.ai_secret())
    before = bench.braintrust.snapshot()
    bench.aws.new_credentials_unknown_for = 60
    failed(bench.fail(target, timeout=6), "invalid_credentials", "bedrock", "UnrecognizedClientException")
    assert bench.braintrust.snapshot() == before


def test_a_page_in_the_place_of_bedrock_proves_nothing(bench):
    target = bench.target(bench.ai_secret())
    before = bench.braintrust.snapshot()
    bench.aws.fail("bedrock:ListFoundationModels", HTML, times=None)
    failed(bench.fail(target), "unavailable", "bedrock", "text/html")
    assert bench.braintrust.snapshot() == before


def test_a_lost_answer_to_a_patch_leaves_what_the_report_says(bench):
    ai_secret = bench.ai_secret()
    bench.braintrust.fail(PATCH, DropAfter())
    report = bench.rotate(bench.target(ai_secret))
    assert len(bench.patches()) == 2
    assert bench.braintrust.credentials(ai_secret)["access_key"] == report["targets"][0]["credential_id"]


def test_an_answer_that_shows_nothing_is_read_again(bench):
    ai_secret = bench.ai_secret()
    bench.braintrust.fail(PATCH, Answer(200, b'{"id":"%s","name":"AWS Bedrock"}' % ai_secret.encode()))
    bench.fail(bench.target(ai_secret))
    reads = [request for request in bench.braintrust.requests if request.call == GET]
    assert len(reads) == 2
