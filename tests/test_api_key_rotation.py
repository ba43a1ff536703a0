"""The rotation of the Braintrust API key: service tokens are created, tested, promoted and deleted."""

import urllib.request
import uuid

import pytest
from support.events import scheduled_run
from support.faults import DropAfter
from support.http_messages import Reply
from support.local_rotation import ROTATION_STEPS
from support.reports import failed_error
from support.service_token_secret import ServiceTokenSecret


def test_a_service_token_is_replaced_and_the_one_before_the_previous_deleted(world):
    key = ServiceTokenSecret(world)
    assert key.function.invoke(scheduled_run()).ok
    known = [key.first]
    for _ in range(3):
        key.begin()
        result = key.run()
        assert result.ok, result.body
        assert result.body["targets"][0]["name"] == "braintrust_api_key"
        known.append(key.value()["service_token_id"])
        # A run that is in progress may still use the previous one.
        assert key.tokens() == set(known[-2:])
        assert key.function.invoke(scheduled_run()).ok
    assert len(set(known)) == 4
    assert key.value()["service_account_id"] == key.account


def test_further_fields_of_the_secret_are_kept(world):
    further = {"owner": "team-a", "tags": [{"a": None}, 1.5, 10**17]}
    key = ServiceTokenSecret(world, **further)
    for _ in range(2):
        key.begin()
        assert key.run().ok
    value = key.value()
    assert {name: value[name] for name in further} == further
    assert set(value) == {"api_key", "service_token_id", "service_account_id", *further}


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_token_whose_deletion_lost_its_answer_counts_as_deleted(world, status):
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.run().ok
    key.begin()
    world.braintrust.missing_id_status = status
    world.braintrust.fail("DELETE /v1/service_token/{id}", DropAfter())
    assert key.run().ok
    assert key.first not in key.tokens() and len(key.tokens()) == 2


def test_a_token_is_named_after_its_secret_and_version_and_tokens_of_other_secrets_stay(world):
    key, other = ServiceTokenSecret(world), ServiceTokenSecret(world)
    for rotated in (other, other, key, key):
        rotated.begin()
        assert rotated.run().ok
    value = key.value()
    for rotated in (key, other):
        assert rotated.tokens() == {rotated.value(stage)["service_token_id"] for stage in ("AWSCURRENT", "AWSPREVIOUS")}
    name = world.braintrust.service_tokens[value["service_token_id"]]["name"]
    assert name == f"bedrock-braintrust-rotator {key.secret.rsplit(':')[-1]} {key.token}"


def test_secrets_manager_rotates_the_api_key_by_the_four_steps(world):
    key = ServiceTokenSecret(world)
    world.aws.rotation.invoke = key.function.invoke
    world.client("secretsmanager").rotate_secret(SecretId=key.secret, RotationRules={"AutomaticallyAfterDays": 30})
    steps = world.aws.wait_for_rotation(key.secret)
    world.aws.rotation.invoke = None
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in ROTATION_STEPS], steps
    assert key.tokens() == {key.first, key.value()["service_token_id"]}


def test_a_staged_token_is_not_deleted_because_the_answer_was_lost(world):
    key = ServiceTokenSecret(world)
    key.begin()
    world.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    assert key.step("createSecret").ok
    world.aws.clear_faults()
    assert key.run().ok
    assert key.tokens() == {key.first, key.value()["service_token_id"]}


def test_a_token_that_may_be_staged_is_not_deleted(world):
    key = ServiceTokenSecret(world)
    key.begin()
    world.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    # createSecret first reads the current version, and whether the pending one has a value.
    world.aws.fail("secretsmanager:GetSecretValue", Reply(500), times=None, skip=2)
    result = key.step("createSecret")
    failed_error(result.report_in_error(), "unavailable", "secrets_manager", "PutSecretValue")
    world.aws.clear_faults()
    assert key.value("AWSPENDING")["service_token_id"] in key.tokens()
    assert key.run().ok


def test_the_key_of_several_organizations_creates_its_token_in_the_configured_one(world):
    world.braintrust.add_key(world.api_key, orgs=("Acme", "Acme EU"))
    account = str(uuid.uuid4())
    id, text = world.braintrust.add_service_token(account, orgs=("Acme", "Acme EU"))
    value = {"api_key": text, "service_token_id": id, "service_account_id": account, "org_name": "Acme EU"}
    ai_secret = world.new_ai_secret("AWS Bedrock", org_name="Acme EU")
    key = ServiceTokenSecret(world, value=value)
    key.function = key.new_function(ai_secret)
    key.begin()
    result = key.run()
    assert result.ok, result.body
    assert key.value()["org_name"] == "Acme EU" and key.value()["service_token_id"] != id


@pytest.mark.parametrize("value", ["sk-made-by-hand", {"api_key": "sk-made-by-hand"}, {"api_key": "bt-st-1"}])
def test_an_api_key_that_is_not_a_service_token_is_refused(world, value):
    key = ServiceTokenSecret(world, value=value)
    key.begin()
    for step in ("createSecret", "testSecret"):
        result = key.step(step)
        failed_error(result.report_in_error(), "configuration", "secrets_manager")
    assert key.tokens() == {key.first}


def test_turning_rotation_on_tests_the_current_key(world):
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.step("testSecret").ok
    assert key.tokens() == {key.first}


def test_finishsecret_is_refused_before_a_token_was_created(world):
    key = ServiceTokenSecret(world)
    before = key.value()
    key.begin()
    result = key.step("finishSecret")
    failed_error(result.report_in_error(), "conflict", "secrets_manager")
    assert key.value() == before


def test_a_rotation_whose_token_was_deleted_is_abandoned(world):
    key = ServiceTokenSecret(world)
    key.begin()
    assert key.step("createSecret").ok
    pending = key.value("AWSPENDING")
    url = f"{world.braintrust.url}/v1/service_token/{pending['service_token_id']}"
    headers = {"Authorization": f"Bearer {pending['api_key']}"}
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers))
    result = key.run()
    failed_error(result.report_in_error(), "conflict", "braintrust")
    assert "AWSPENDING" not in world.stages({"secret_id": key.secret})
    key.begin()
    assert key.run().ok
    assert key.tokens() == {key.first, key.value()["service_token_id"]}
