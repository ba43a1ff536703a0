"""Stops the revocation of the Braintrust API key at each of its calls. The function always has a working key."""

import pytest
from support.events import scheduled_run
from support.service_token_secret import ServiceTokenSecret
from support.side_by_side import side_by_side
from support.stopped_run import STOPS, kill_function, stop_at_position

CASES = "revocations of API keys stopped"
EVENT = {"action": "revoke", "api_key": True}
TRIES = 3


def rotated(world):
    """A secret with a current and a previous token, whose rotation was canceled."""
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.run().ok
    world.client("secretsmanager").cancel_rotate_secret(SecretId=key.secret)
    return key


def calls_of_revocation(world):
    """The calls of a revocation that nothing disturbs."""
    key = rotated(world)
    key.intercept_calls()
    assert key.function.invoke(EVENT).ok
    return [request.call for request in key.interceptor.requests]


def stop_revocation(key, stop, position):
    leaked = {key.value(stage)["service_token_id"] for stage in ("AWSPREVIOUS", "AWSCURRENT")}
    key.intercept_calls()
    stop_at_position(stop, position, key.interceptor, lambda: kill_function(key.function))
    key.function.invoke(EVENT)
    if key.value()["service_token_id"] not in key.tokens():
        yield "the current token was deleted"
    if not key.function.invoke(scheduled_run()).ok:
        yield "a scheduled run failed"
    if not any(key.function.invoke(EVENT).ok for _ in range(TRIES)):
        yield f"the command failed {TRIES} times: {key.function.logs()[-3:]}"
    if key.tokens() & leaked:
        yield "a leaked token still exists"
    if key.tokens() != {key.value()["service_token_id"]}:
        yield f"there are the tokens {key.tokens()}"
    if not key.function.invoke(scheduled_run()).ok:
        yield "a scheduled run failed after the revocation"
    key.function.stop()


@pytest.mark.parametrize("stop", STOPS)
def test_the_revocation_of_an_api_key_survives_being(world, stop, record_property):
    calls = calls_of_revocation(world)

    def check(position):
        key = rotated(world)
        wrong = stop_revocation(key, stop, position)
        return [f"{stop} call {position} ({calls[position]}): {problem}" for problem in wrong]

    # Each kind of stop takes different positions, and together they cover each call.
    positions = range(STOPS.index(stop) % 2, len(calls), 2)
    side_by_side(check, positions)
    record_property(CASES, len(positions))
