"""An event that the function doesn't know is refused and changes nothing; null counts as absent."""

import pytest


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        "rotate",
        {"action": "destroy"},
        {"action": "rotate", "verbose": True},
        {"action": "rotate", "targets": [{"name": "mine", "role_arn": "arn:aws:iam::123456789012:role/mine"}]},
        {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification", "detail": {}},
    ],
)
def test_an_unknown_event_is_refused_with_a_list_of_accepted_events(world, unchanged, event):
    target = world.target(world.new_ai_secret())
    unchanged()
    error = world.fail_to_rotate(target, event=event)
    assert all(accepted in error for accepted in ("EventBridge", "rotate", "status"))
    assert world.aws_requests() == [] and world.braintrust.requests == []


def test_malformed_json_is_refused(world, unchanged):
    target = world.target(world.new_ai_secret())
    unchanged()
    world.fail_to_rotate(target, event=b'{"action": "rot')
    assert world.aws_requests() == []


@pytest.mark.parametrize(
    "event",
    [
        {"action": "rotate", "targets": ["x" * 5_000_000]},
        {"action": "rotate", "targets": [str(n) for n in range(200_000)]},
        {"action": "rotate", "targets": ["\ud800", "\x00", "\u202e"]},
        {"Step": "x" * 1_000_000, "SecretId": "x" * 1_000_000, "ClientRequestToken": "\x00"},
        {"action": "rotate", "force": 1e400},
    ],
    ids=["a huge name", "many names", "odd names", "a huge step", "an endless number"],
)
def test_a_huge_or_odd_event_is_refused_with_a_short_message(world, unchanged, event):
    target = world.target(world.new_ai_secret())
    unchanged()
    result = world.new_function(target).invoke(event)
    assert not result.ok and result.status == 200
    assert len(result.raw) < 1_000
    assert world.aws_requests() == [] and world.braintrust.requests == []


def test_deeply_nested_json_is_refused(world, unchanged):
    target = world.target(world.new_ai_secret())
    unchanged()
    function = world.new_function(target)
    assert not function.invoke(b'{"action":' + b"[" * 5_000 + b"]" * 5_000 + b"}").ok
    assert function.invoke({"action": "rotate", "dry_run": True}).ok


def test_an_unknown_target_is_refused_with_a_list_of_configured_targets(world, unchanged):
    target = world.target(world.new_ai_secret(), name="prod-us")
    unchanged()
    error = world.fail_to_rotate(target, event={"action": "rotate", "targets": ["prod-eu"]})
    assert "prod-eu" in error and "prod-us" in error
    assert world.aws_requests() == []


@pytest.mark.parametrize(
    "event",
    [
        b'{"action":"rotate","action":"rotate"}',
        b'{"action":"rotate","dry_run":true,"dry_run":false}',
        b'{"action":"rotate","targets":["prod"],"targets":["prod"]}',
        b'{"id":"1","id":"2","source":"aws.events","detail-type":"Scheduled Event","detail":{}}',
        b'{"Step":"testSecret","Step":"createSecret","SecretId":"s","ClientRequestToken":"t"}',
    ],
)
def test_a_field_that_is_given_twice_in_an_event_is_refused(world, unchanged, event):
    target = world.target(world.new_ai_secret())
    unchanged()
    assert isinstance(world.fail_to_rotate(target, event=event), str)
    assert world.aws_requests() == [] and world.braintrust.requests == []


@pytest.mark.parametrize("action", ["rotate", "status", "check"])
def test_a_field_that_is_null_in_an_event_counts_as_absent(world, action):
    function = world.new_function(world.target(world.new_ai_secret()))
    fields = {"targets": None, "force": None, "dry_run": None}
    result = function.invoke({"action": action, **fields})
    assert result.ok and [target["name"] for target in result.body["targets"]] == ["prod"]
