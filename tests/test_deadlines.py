"""A slow or failing target: the run ends in time, and the other targets are rotated."""

import socket
import time

from support.faults import Delay
from support.http_messages import Reply
from support.reports import failed_error

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
HTML = Reply(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")


def test_a_braintrust_that_is_down_fails_in_seconds(world):
    target = world.target(world.new_ai_secret())
    # The port is bound so that nobody else gets it, but nothing listens on it.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        started = time.monotonic()
        target["ai_secrets"][0]["api_url"] = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        report = world.fail_to_rotate(target)
    failed_error(report, "unavailable", "braintrust", GET)
    assert time.monotonic() - started < 20


def test_a_deadline_that_passes_ends_in_a_report(world):
    slow, fast = world.new_ai_secret("slow"), world.new_ai_secret("fast")
    world.braintrust.fail(lambda request: slow in request.path, Delay(30), times=None)
    started = time.monotonic()
    report = world.fail_to_rotate(world.target(slow, name="slow"), world.target(fast, name="fast"), timeout=5)
    assert time.monotonic() - started < 5
    by_name = {target["name"]: target for target in report["targets"]}
    assert by_name["slow"]["error"]["class"] == "timeout"
    assert by_name["slow"]["error"]["call"] == GET
    assert by_name["fast"]["outcome"] == "rotated"
    assert world.has_working_credentials(fast)


def test_targets_without_time_to_start_are_deferred(world):
    ids = [world.new_ai_secret(f"secret {n}") for n in range(40)]
    targets = [world.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate(ids)]
    world.braintrust.fail(lambda request: request.path.split("/")[-1] in ids[:32], Delay(30), times=None)
    report = world.fail_to_rotate(*targets, timeout=5)
    outcomes = [target["outcome"] for target in report["targets"]]
    assert outcomes == ["failed"] * 32 + ["deferred"] * 8
    assert not any(world.has_working_credentials(ai_secret) for ai_secret in ids[32:])


def test_a_slow_target_does_not_hold_back_the_others(world):
    slow, *fast = [world.new_ai_secret(f"secret {n}") for n in range(80)]
    world.braintrust.fail(lambda request: slow in request.path, Delay(30), times=None)
    targets = [world.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate([slow, *fast])]
    report = world.fail_to_rotate(*targets, timeout=8)
    assert [target["outcome"] for target in report["targets"]] == ["failed"] + ["rotated"] * 79
    assert report["targets"][0]["duration_ms"] >= 5_000
    assert [target["name"] for target in report["targets"]] == [target["name"] for target in targets]


def test_one_failing_target_does_not_stop_another(world):
    good, bad = world.new_ai_secret("good"), world.new_ai_secret("bad", metadata={"auth_type": "web_identity"})
    report = world.fail_to_rotate(world.target(bad, name="bad"), world.target(good, name="good"))
    assert [(target["name"], target["outcome"]) for target in report["targets"]] == [
        ("bad", "failed"),
        ("good", "rotated"),
    ]
    assert world.has_working_credentials(good)


def test_one_failing_ai_secret_does_not_stop_the_others(world):
    good, bad = world.new_ai_secret("good"), world.new_ai_secret("bad")
    world.braintrust.fail(lambda request: request.method == "PATCH" and bad in request.path, Reply(500), times=None)
    report = world.fail_to_rotate(world.target(bad, good))
    [target] = report["targets"]
    assert [entry["updated"] for entry in target["ai_secrets"]] == [False, True]
    assert target["ai_secrets"][0]["error"]["class"] == "unavailable"
    assert world.has_working_credentials(good)
