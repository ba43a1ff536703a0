"""Two simultaneous runs of a target without a staged secret: older credentials don't overwrite newer ones."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.http_messages import Reply
from support.kinds import ROLE_BASED

PATCH = "PATCH /v1/ai_secret/{id}"


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_a_run_that_waited_leaves_the_newer_credentials_of_another_run(world, kind):
    ai_secret = world.new_ai_secret()
    slow, fast = (world.new_function(world.target(ai_secret, kind=kind)) for _ in range(2))
    world.braintrust.fail(PATCH, Reply(429, headers={"Retry-After": "4"}))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(slow.invoke, {"action": "rotate"})
        while not world.patches():
            time.sleep(0.01)
        written = fast.invoke({"action": "rotate"})
        waited = waiting.result()
    assert written.ok and waited.ok, (written.body, waited.body)
    [target] = waited.body["targets"]
    assert target["outcome"] == "not_due" and "credential_id" not in target
    assert not target["ai_secrets"][0]["updated"] and target["warnings"]
    assert written.body["targets"][0]["outcome"] == "rotated"
    assert len(world.patches()) == 2
    assert world.has_working_credentials(ai_secret)
