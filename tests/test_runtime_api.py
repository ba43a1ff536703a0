"""What Lambda's Runtime API may pass to the function: any client context, and events that aren't JSON."""

import pytest
from support.emulated_function import EmulatedFunction
from support.lambda_function import LambdaFunction

CLIENT_CONTEXTS = [
    '{"custom":{"attempt":1}}',
    '{"client":{"app_title":null},"env":[]}',
    '{"custom":{"a":"b"},"env":{},"client":{}}',
    "[1]",
    "null",
    "no JSON",
    "{",
    "",
    "\xe9\xff",
]


@pytest.mark.parametrize("runs", [LambdaFunction, EmulatedFunction])
def test_any_client_context_is_ignored(world, runs):
    ai_secret = world.new_ai_secret()
    function = world.new_function(world.target(ai_secret), runs=runs)
    function.invoke({"action": "status"})
    pid = function.pid
    for client_context in CLIENT_CONTEXTS:
        result = function.invoke({"action": "rotate"}, client_context)
        assert result.ok, (client_context, result.body)
    assert function.pid == pid, "the process goes on"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("event", [b"", b"{", b"not JSON", b'{"action":"check"} {}', b"\xff"])
def test_an_event_that_is_not_json_is_refused_and_the_function_goes_on(world, event):
    function = world.new_function(world.target(world.new_ai_secret()))
    result = function.invoke(event)
    assert not result.ok and result.body["errorType"] == "EventRefused", result.body
    assert "JSON" in result.body["errorMessage"]
    pid = function.pid
    assert function.invoke({"action": "status"}).ok
    assert function.pid == pid
