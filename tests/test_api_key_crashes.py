"""Stops the rotation of the Braintrust API key before and after every call. The function always has a working key."""

import pytest
from support.events import scheduled_run
from support.service_token_secret import ServiceTokenSecret
from support.side_by_side import side_by_side
from support.stopped_run import STOPS, kill_function, stop_at_position

CASES = "rotations stopped"


def second_rotation(world):
    """A rotation that is about to begin. The second one also deletes a token."""
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.run().ok
    key.begin()
    return key


def calls_of_rotation(world):
    """The calls of a rotation that nothing disturbs."""
    key = second_rotation(world)
    key.intercept_calls()
    assert key.run().ok
    return [request.call for request in key.interceptor.requests]


def stop_rotation(key, stop, position):
    previous, current = key.value("AWSPREVIOUS"), key.value()
    key.intercept_calls()
    stop_at_position(stop, position, key.interceptor, lambda: kill_function(key.function))
    key.run()
    if key.value()["service_token_id"] not in key.tokens():
        yield "the current token was deleted"
    retries = [key.run().ok for _ in range(2)]
    if not retries[-1]:
        yield f"the second retry failed: {key.function.logs()[-3:]}"
    new = key.value()["service_token_id"]
    if new in (previous["service_token_id"], current["service_token_id"]):
        yield "the token was not replaced"
    if key.tokens() != {current["service_token_id"], new}:
        yield f"there are the tokens {key.tokens()}"
    if not key.function.invoke(scheduled_run()).ok:
        yield "a scheduled run failed"
    key.function.stop()


@pytest.mark.parametrize("stop", STOPS)
def test_the_rotation_of_the_api_key_survives_being(world, stop, record_property):
    calls = calls_of_rotation(world)

    def check(position):
        key = second_rotation(world)
        return [f"{stop} call {position} ({calls[position]}): {wrong}" for wrong in stop_rotation(key, stop, position)]

    side_by_side(check, range(len(calls)))
    record_property(CASES, len(calls))
