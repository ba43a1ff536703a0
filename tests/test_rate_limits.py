"""A Braintrust that throttles: the function waits, keeps other targets going, and looks again before it writes."""

import threading
import uuid

import pytest
from support.faults import DropAfter
from support.http_messages import Reply

GET = "GET /v1/ai_secret/{id}"
PATCH = "PATCH /v1/ai_secret/{id}"
HTML = Reply(200, b"<html><body>Sign in to your proxy</body></html>", content_type="text/html; charset=utf-8")
OTHER_WRITERS = {
    "the auth_type": {"auth_type": "assume_role"},
    "the region": {"auth_type": "iam_credentials", "access_key": "AKIA", "region": "eu-central-1"},
    "the layout": {"aws_access_key_id": "AKIA", "region": "us-east-1"},
}


@pytest.mark.parametrize("call", [GET, PATCH])
def test_retry_after_is_waited_for(world, call):
    ai_secret = world.new_ai_secret()
    world.braintrust.fail(call, Reply(429, headers={"Retry-After": "2"}))
    world.rotate(world.target(ai_secret))
    first, second = [request for request in world.braintrust.requests if request.call == call]
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 2
    assert world.has_working_credentials(ai_secret)


def test_an_absurd_retry_after_fails_one_target_and_not_the_function(world):
    bad, good = world.new_ai_secret("bad"), world.new_ai_secret("good")
    absurd = Reply(429, headers={"Retry-After": "18446744073709551615"})
    world.braintrust.fail(lambda request: bad in request.path, absurd, times=None)
    report = world.fail_to_rotate(world.target(bad, name="bad"), world.target(good, name="good"))
    assert [target["outcome"] for target in report["targets"]] == ["failed", "rotated"]
    assert report["targets"][0]["error"]["class"] == "throttled"


@pytest.mark.long
@pytest.mark.parametrize("rate, count", [(4, 60), (20, 100), (60, 300)])
def test_a_data_plane_with_a_rate_limit_is_not_flooded(world, rate, count):
    """The first burst is throttled, then only a small part of the calls, and every target is rotated."""
    world.braintrust.max_per_second = rate
    ids = [world.new_ai_secret(f"secret {n}") for n in range(count)]
    report = world.rotate(*(world.target(ai_secret, name=f"target-{n}") for n, ai_secret in enumerate(ids)))
    assert {target["outcome"] for target in report["targets"]} == {"rotated"}
    statuses = [request.status for request in world.braintrust.requests]
    assert statuses.count(429) <= 32 + len(statuses) // 10, statuses.count(429)
    # A target needs three calls, because a PATCH that waited reads once more. They may be half as fast as allowed.
    assert report["duration_ms"] / 1000 <= 2 * (3 * len(ids) / rate) + 3


def test_a_data_plane_that_throttles_every_call_does_not_hold_back_another(world):
    dead, other = world.new_braintrust(), world.new_ai_secret()
    dead.add_key(world.api_key)
    dead.fail(GET, Reply(429, headers={"Retry-After": "5"}), times=None)
    ids = [dead.add_ai_secret(f"secret {n}", metadata={}) for n in range(40)]
    there = [world.target({"id": id, "api_url": dead.url}, name=f"dead-{n}") for n, id in enumerate(ids)]
    report = world.fail_to_rotate(*there, world.target(other), timeout=15)
    assert report["targets"][-1]["outcome"] == "rotated" and report["targets"][-1]["duration_ms"] < 2_000
    assert world.has_working_credentials(other)
    assert len(dead.requests) <= 40
    assert report["targets"][0]["error"]["class"] == "throttled"


def test_an_organization_that_is_throttled_does_not_hold_back_another(world):
    throttled, key = [world.new_ai_secret(f"secret {n}") for n in range(40)], f"sk-{uuid.uuid4()}"
    world.braintrust.add_key(key)
    world.braintrust.fail(
        lambda r: key in r.headers["authorization"], Reply(429, headers={"Retry-After": "5"}), times=None
    )
    secret = world.cloud.new_secret(key)
    there = [
        world.target({"id": id, "api_key_secret_id": secret}, name=f"throttled-{n}") for n, id in enumerate(throttled)
    ]
    report = world.fail_to_rotate(*there, world.target(world.new_ai_secret("other")), timeout=15)
    assert report["targets"][-1]["outcome"] == "rotated" and report["targets"][-1]["duration_ms"] < 2_000


def test_a_patch_whose_answer_was_lost_is_not_mistaken_for_another_writers(world):
    ai_secret = world.new_ai_secret(metadata={})
    world.braintrust.fail(PATCH, DropAfter())
    world.braintrust.fail(PATCH, Reply(429, headers={"Retry-After": "3"}))
    assert world.rotate(world.target(ai_secret))["targets"][0]["outcome"] == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("changed", OTHER_WRITERS.values(), ids=OTHER_WRITERS)
def test_an_ai_secret_that_changed_while_its_patch_was_queued_is_not_written(world, changed):
    ai_secrets = [world.new_ai_secret(f"secret {n}") for n in range(3)]
    function = world.new_function(*(world.target(id, name=f"target-{n}") for n, id in enumerate(ai_secrets)))
    # Each PATCH is throttled once, so that they are sent again one after another, seconds later.
    world.braintrust.fail(PATCH, Reply(429, headers={"Retry-After": "4"}), times=3)
    timer = threading.Timer(
        2, lambda: [world.braintrust.ai_secrets[id].update(metadata=dict(changed)) for id in ai_secrets]
    )
    timer.start()
    result = function.invoke({"action": "rotate"})
    timer.join()
    assert not result.ok
    for id in ai_secrets:
        assert world.braintrust.ai_secrets[id]["metadata"] == changed
        assert not any(r.status == 200 and id in r.path for r in world.patches())


@pytest.mark.parametrize("metadata", [{}, {"region": "eu-central-1"}], ids=["no region", "another region"])
def test_an_ai_secret_that_did_not_change_is_written_after_the_wait(world, metadata):
    ai_secret = world.new_ai_secret(metadata=metadata)
    world.braintrust.fail(PATCH, Reply(429, headers={"Retry-After": "3"}))
    world.rotate(world.target(ai_secret))
    assert world.has_working_credentials(ai_secret)
