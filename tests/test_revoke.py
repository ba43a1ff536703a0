"""The action `revoke`: leaked credentials are replaced, ended without an overlap, and proven dead."""

import time

import pytest
from support.events import FORCED, rotation_step, scheduled_run
from support.faults import Hold
from support.kinds import KINDS, ROLE_BASED, USER_BASED
from support.local_rotation import ROTATION_STEPS
from support.reports import failed_error, outcome
from support.revoked_run import ENDS_SESSIONS, REVOKE, new_role
from support.rotated_twice import RotatedTwice
from support.service_token_secret import ServiceTokenSecret

API_KEY_ALONE = {"action": "revoke", "api_key": True}


def as_held(value) -> dict:
    """A staged value, as Braintrust holds it."""
    return {
        "auth_type": "api_key" if "api_key" in value else "iam_credentials",
        "access_key": value.get("aws_access_key_id"),
        "secret": value.get("api_key") or value["aws_secret_access_key"],
        "session_token": value.get("aws_session_token"),
        "region": value["region"],
    }


def revoked(result) -> dict[str, str]:
    entries = [entry for target in result.body["targets"] for entry in target["revocation"]["revoked"]]
    return {entry["credential_id"]: entry["state"] for entry in entries}


@pytest.mark.parametrize("kind", USER_BASED)
def test_the_keys_of_an_iam_user_are_replaced_and_refused(world, kind):
    twice = RotatedTwice(world, kind)
    result = twice.function.invoke(REVOKE)
    assert outcome(result) == "revoked", result.body
    assert revoked(result) == {twice.current["credential_id"]: "dead", twice.previous["credential_id"]: "dead"}
    current = world.staged_value(twice.target)
    assert world.iam_keys(twice.target) == {current["credential_id"]: True}
    assert world.braintrust.credentials(twice.ai_secret)["secret"] == as_held(current)["secret"]
    assert world.has_working_credentials(twice.ai_secret)
    assert not world.works(as_held(twice.current)) and not world.works(as_held(twice.previous))
    failed_error(twice.roll_back().report_in_error(), "conflict", "secrets_manager")


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("kind", ROLE_BASED)
def test_the_sessions_of_a_role_are_ended_if_the_function_may_do_that(world, kind, staged):
    ai_secret, role = world.new_ai_secret(), new_role(world)
    fields = {"kind": kind, "role_arn": role, "revoke_sessions": True}
    secret = {"secret_id": world.new_staged_secret()} if staged else {}
    target = world.target(ai_secret, **fields, **secret)
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    leaked = world.braintrust.credentials(ai_secret)
    assert world.works(leaked)
    time.sleep(1.1)  # sessions are told apart by whole seconds
    with world.execution_policy(allow=ENDS_SESSIONS):
        result = function.invoke(REVOKE)
    assert outcome(result) == "revoked", result.body
    assert "dead" in revoked(result).values()
    assert not world.works(leaked)
    assert world.has_working_credentials(ai_secret)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ROLE_BASED)
def test_without_permission_the_report_has_a_command_that_ends_the_sessions(world, kind):
    ai_secret, role = world.new_ai_secret(), new_role(world)
    function = world.new_function(world.target(ai_secret, kind=kind, role_arn=role))
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    leaked = world.braintrust.credentials(ai_secret)
    time.sleep(1.1)
    result = function.invoke(REVOKE)
    assert outcome(result) == "replaced"
    [remaining] = result.body["targets"][0]["revocation"]["remaining"]
    assert world.works(leaked)
    command, _, document = remaining["command"].partition(" --policy-document ")
    words = command.split()
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:3] == ["aws", "iam", "put-role-policy"]
    world.client("iam").put_role_policy(
        RoleName=options["--role-name"], PolicyName=options["--policy-name"], PolicyDocument=document.strip("'")
    )
    assert not world.works(leaked) and world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("rotates_before", [True, False])
def test_a_key_of_the_kind_before_is_left_with_the_command_that_deletes_it(world, rotates_before):
    user = world.new_staged_target("access_key", world.new_ai_secret())
    assert outcome(world.new_function(user).invoke(scheduled_run())) == "rotated"
    [key] = world.iam_keys(user)
    leaked = as_held(world.staged_value(user))
    fields = {"kind": "temporary", "role_arn": new_role(world), "revoke_sessions": True}
    role = {field: value for field, value in user.items() if field not in ["user_name", "overlap"]} | fields
    function = world.new_function(role)
    if rotates_before:
        assert outcome(function.invoke(scheduled_run())) == "rotated"
        time.sleep(1.1)
    with world.execution_policy(allow=ENDS_SESSIONS):
        result = function.invoke(REVOKE)
    assert outcome(result) == "replaced", result.body
    assert revoked(result).pop(key) == "alive" and world.works(leaked)
    assert not any(stage.startswith("REVOKING_") for stage in world.stages(role))
    [remaining] = result.body["targets"][0]["revocation"]["remaining"]
    assert remaining["command"] == f"aws iam delete-access-key --user-name USER --access-key-id {key}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_changes_nothing(world, kind):
    twice = RotatedTwice(world, kind)
    before, stages = world.braintrust.snapshot(), world.stages(twice.target)
    result = twice.function.invoke(REVOKE | {"dry_run": True})
    assert outcome(result) == "would_revoke"
    # Without revoke_sessions, sessions stay.
    expected = "would_end" if kind in USER_BASED else "alive"
    assert set(revoked(result).values()) == {expected} and twice.current["credential_id"] in revoked(result)
    assert (world.braintrust.snapshot(), world.stages(twice.target)) == (before, stages)


def test_a_service_token_is_replaced_and_the_old_ones_are_refused(world):
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.run().ok
    world.client("secretsmanager").cancel_rotate_secret(SecretId=key.secret)
    leaked = key.value()["service_token_id"]
    result = key.function.invoke(API_KEY_ALONE | {"dry_run": True})
    assert outcome(result) == "would_revoke" and key.value()["service_token_id"] == leaked
    result = key.function.invoke(API_KEY_ALONE)
    assert outcome(result) == "revoked", result.body
    assert revoked(result)[leaked] == "dead" and revoked(result)[key.first] == "dead"
    evidence = result.body["targets"][0]["revocation"]["revoked"][0]["evidence"]
    assert evidence["service"] == "braintrust" and evidence["answer"].startswith("401")
    assert key.tokens() == {key.value()["service_token_id"]}
    assert key.function.invoke(scheduled_run()).ok


@pytest.mark.parametrize("steps", [1, len(ROTATION_STEPS)])
def test_a_rotation_that_begins_during_the_revocation_keeps_its_service_token(world, steps):
    key = ServiceTokenSecret(world)
    rotating = key.new_function(key.ai_secret)

    def step(name):
        return rotating.invoke(rotation_step(name, key.secret, key.token)).ok

    def begin():
        key.begin()
        assert all([step(name) for name in ROTATION_STEPS[:steps]])

    key.intercept_calls()
    is_replaced = lambda: key.value()["service_token_id"] != key.first  # noqa: E731
    key.interceptor.fail(lambda request: request.call == "GET /v1/service_token" and is_replaced(), Hold(begin))
    result = key.function.invoke(API_KEY_ALONE)
    assert result.ok == (steps == 1), result.body
    assert all([step(name) for name in ROTATION_STEPS[steps:]])
    assert key.value()["service_token_id"] in key.tokens()
    world.client("secretsmanager").cancel_rotate_secret(SecretId=key.secret)
    result = key.function.invoke(API_KEY_ALONE)
    assert outcome(result) == "revoked" and key.tokens() == {key.value()["service_token_id"]}, result.body


def test_an_api_key_that_is_not_a_service_token_is_refused(world):
    key = ServiceTokenSecret(world, value="sk-made-by-hand")
    result = key.function.invoke(API_KEY_ALONE)
    failed_error(result.report_in_error(), "configuration", "secrets_manager")


def test_a_command_that_names_targets_revokes_the_api_key_before_their_credentials(world):
    key = ServiceTokenSecret(world)
    leaked = world.braintrust.credentials(key.ai_secret)
    result = key.function.invoke(REVOKE | {"api_key": True})
    assert result.ok, result.body
    assert [target["outcome"] for target in result.body["targets"]] == ["revoked", "replaced"]
    assert revoked(result)[key.first] == "dead"
    assert world.braintrust.credentials(key.ai_secret) != leaked and world.has_working_credentials(key.ai_secret)


def test_an_api_key_that_can_not_be_replaced_does_not_keep_the_credentials_alive(world):
    key = ServiceTokenSecret(world, value=world.api_key)
    result = key.function.invoke(REVOKE | {"api_key": True})
    assert not result.ok
    assert [target["outcome"] for target in result.report_in_error()["targets"]] == ["failed", "replaced"]


def test_the_next_rotation_after_a_revocation_has_its_overlap(world):
    twice = RotatedTwice(world, "access_key")
    assert outcome(twice.function.invoke(REVOKE)) == "revoked"
    successor = world.staged_value(twice.target)["credential_id"]
    assert outcome(twice.function.invoke(FORCED)) == "rotated"
    assert world.iam_keys(twice.target)[successor]
