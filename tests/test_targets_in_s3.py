"""The list of targets may be an object in S3, which a warm function reads again when it has changed."""

import json

import pytest
from support.http_messages import Reply
from support.targets_object import TargetsObject

ROTATE, STATUS, CHECK = ({"action": action} for action in ("rotate", "status", "check"))
MEGABYTE = 1 << 20


@pytest.fixture
def fleet(world):
    return TargetsObject(world)


@pytest.fixture
def two(world):
    """Two targets, and their ai_secrets."""
    ai_secrets = [world.new_ai_secret_of_any_name() for _ in range(2)]
    return [world.target(id, name=f"target-{n}") for n, id in enumerate(ai_secrets)], ai_secrets


def names(report):
    return [target["name"] for target in report["targets"]]


def refused_start(world, fleet):
    result = world.new_function(**fleet.variables).invoke(ROTATE)
    assert not result.ok and result.body["errorType"] == "StartRefused", result.body
    return result.body["errorMessage"]


def test_the_targets_of_an_object_are_rotated_and_an_unchanged_object_is_not_sent_again(world, fleet, two):
    targets, ai_secrets = two
    fleet.put(targets)
    function = world.new_function(**fleet.variables)
    for _ in range(2):
        result = function.invoke(ROTATE)
        assert result.ok and names(result.body) == ["target-0", "target-1"], result.body
    assert all(world.has_working_credentials(id) for id in ai_secrets)
    # The first invocation follows the cold start at once, so it doesn't read the object again.
    assert fleet.reads() == [200, 304]


def test_a_list_that_has_changed_is_used_by_the_next_invocation(world, fleet, two):
    targets, ai_secrets = two
    fleet.put(targets[:1])
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    pid = function.pid
    fleet.put(targets)
    result = function.invoke(ROTATE)
    assert result.ok and names(result.body) == ["target-0", "target-1"], result.body
    assert world.has_working_credentials(ai_secrets[1])
    fleet.put(targets[1:])
    assert names(function.invoke(ROTATE).body) == ["target-1"]
    assert function.pid == pid
    assert fleet.reads() == [200, 200, 200]


def test_after_a_wrong_change_the_last_good_list_is_rotated_and_the_invocation_fails(world, fleet, two):
    targets, ai_secrets = two
    fleet.put(targets)
    function = world.new_function(**fleet.variables)
    before = function.invoke(ROTATE).body
    fleet.put([targets[0], {**targets[1], "region": ""}])
    for _ in range(2):
        result = function.invoke(ROTATE)
        assert not result.ok and result.body["errorType"] == "RotationFailed"
        report = result.report_in_error()
        assert [target["outcome"] for target in report["targets"]] == ["rotated", "rotated"]
        assert all(world.has_working_credentials(id) for id in ai_secrets)
        error = report["targets_error"]
        assert error["class"] == "configuration"
        assert f'{fleet.uri}: target "target-1": region: ' in error["problem"]
    assert any('"level":"ERROR"' in line and "targets_error" in line for line in function.logs())
    assert "targets_error" not in before
    fleet.put(targets)
    result = function.invoke(ROTATE)
    assert result.ok and "targets_error" not in result.body


def test_status_and_check_show_that_the_newest_list_is_not_used(world, fleet, two):
    targets, _ = two
    fleet.put(targets)
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    assert function.invoke(STATUS).body["ok"] and function.invoke(CHECK).body["ok"]
    fleet.put(b"[")
    for event in (STATUS, CHECK):
        result = function.invoke(event)
        assert result.ok and not result.body["ok"]
        assert result.body["targets_error"]["class"] == "configuration"
        assert names(result.body) == ["target-0", "target-1"]


def test_an_event_that_names_a_target_of_a_wrong_list_is_refused_with_what_is_wrong(world, fleet, two):
    targets, _ = two
    fleet.put(targets[:1])
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    fleet.put([targets[0], {**targets[1], "kind": "eternal"}])
    result = function.invoke({"action": "rotate", "targets": ["target-1"]})
    assert result.body["errorType"] == "EventRefused"
    for words in ('no target has the name "target-1"', fleet.uri, "kind: ", "eternal"):
        assert words in result.body["errorMessage"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Reply(503, "<Error><Code>SlowDown</Code></Error>", content_type="application/xml"), "throttled"),
        (Reply(403, "<Error><Code>AccessDenied</Code></Error>", content_type="application/xml"), "permission"),
        (Reply(200, "<html></html>", content_type="text/html"), "configuration"),
    ],
)
def test_while_the_list_cannot_be_read_the_last_good_one_is_rotated(world, fleet, two, fault, expected):
    targets, ai_secrets = two
    fleet.put(targets)
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    world.aws.fail(lambda request: request.call.startswith("s3 "), fault, times=None)
    result = function.invoke(ROTATE)
    report = result.report_in_error()
    assert not result.ok and report["targets_error"]["class"] == expected
    assert [target["outcome"] for target in report["targets"]] == ["rotated", "rotated"]
    world.aws.clear_faults()
    assert function.invoke(ROTATE).ok


def test_after_the_object_was_deleted_the_last_good_list_is_rotated_but_a_new_environment_does_not_start(
    world, fleet, two
):
    targets, ai_secrets = two
    fleet.put(targets)
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    fleet.delete()
    report = function.invoke(ROTATE).report_in_error()
    assert report["targets_error"]["class"] in ("not_found", "permission")
    assert [target["outcome"] for target in report["targets"]] == ["rotated", "rotated"]
    assert fleet.uri in refused_start(world, fleet)


def test_a_step_of_secrets_managers_rotation_does_not_fail_because_of_an_old_list(world, fleet):
    target = world.new_staged_target("access_key", world.new_ai_secret())
    fleet.put([target])
    function = world.new_function(**fleet.variables)
    assert function.invoke(ROTATE).ok
    fleet.put(b"[]")
    token = "00000000-0000-4000-8000-000000000001"
    world.aws.begin_rotation(target["secret_id"], token)
    for step in ("createSecret", "setSecret", "testSecret", "finishSecret"):
        event = {"Step": step, "SecretId": target["secret_id"], "ClientRequestToken": token}
        result = function.invoke(event)
        assert result.ok and result.body["targets_error"]["class"] == "configuration", result.body
    assert world.stages(target)["AWSCURRENT"] == token


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"name": "prod", "kind": "eternal"}]', ['target "prod"', "kind", "eternal"]),
        (b"[]", ["the array", "it has no target"]),
        (b"\xff\xfe[\x00", ["not text in UTF-8"]),
        (b" " * (16 * MEGABYTE) + b"[]", ["larger than 16 MB"]),
    ],
)
def test_a_wrong_object_fails_the_start_and_is_named(world, fleet, content, words):
    fleet.put(content)
    message = refused_start(world, fleet)
    for word in [fleet.uri, *words]:
        assert word in message, message


def test_without_permission_the_start_fails_with_what_to_allow(world, fleet):
    fleet.put([world.target(world.new_ai_secret())])
    with world.execution_policy(deny=["s3:GetObject"]):
        message = refused_start(world, fleet)
    assert f"AccessDenied for {fleet.uri}" in message and "s3:GetObject" in message


def test_a_list_of_megabytes_is_read(world, fleet):
    ai_secret = world.new_ai_secret()
    others = [{"id": f"00000000-0000-4000-8000-{n:012}"} for n in range(30_000)]
    targets = [world.target(id, name=f"other-{n}") for n, id in enumerate(others)] + [world.target(ai_secret)]
    assert len(json.dumps(targets)) > 4 * MEGABYTE
    fleet.put(targets)
    result = world.new_function(**fleet.variables).invoke({"action": "rotate", "targets": ["prod"]})
    assert result.ok and names(result.body) == ["prod"]
    assert world.has_working_credentials(ai_secret)
