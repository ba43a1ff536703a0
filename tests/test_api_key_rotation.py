"""The Braintrust API key's own rotation by Secrets Manager: service tokens made, tested, promoted and deleted."""

import itertools
import json
import os
import signal
import urllib.request
import uuid

import pytest
from support.server import Answer, DropAfter, DropBefore, Kill
from test_crashes import CASES, schedule
from test_steps import STEPS


class ApiKey:
    """A secret with a service token, a function that uses it, and rotations of it."""

    def __init__(self, bench, value=None, **extra):
        self.bench, self.account = bench, str(uuid.uuid4())
        self.first, key = bench.braintrust.add_service_token(self.account)
        held = {"api_key": key, "service_token_id": self.first, "service_account_id": self.account, **extra}
        self.secret = bench.stack.secret(held if value is None else value)
        self.ai_secret = bench.ai_secret(f"AWS Bedrock {self.account}")
        self.function = bench.function(bench.target(self.ai_secret), BRAINTRUST_API_KEY_SECRET_ID=self.secret)

    def begin(self):
        """What Secrets Manager does before its first step."""
        self.token = str(uuid.uuid4())
        self.bench.aws.begin_rotation(self.secret, self.token)

    def step(self, name):
        return self.function.invoke({"Step": name, "SecretId": self.secret, "ClientRequestToken": self.token})

    def run(self):
        """The steps until one fails; answers the last result."""
        for name in STEPS:
            result = self.step(name)
            if not result.ok:
                break
        return result

    def held(self, stage="AWSCURRENT"):
        return self.bench.staged({"secret_id": self.secret}, stage)

    def tokens(self):
        """The ids of this account's service tokens."""
        found = self.bench.braintrust.service_tokens
        return {id for id, token in found.items() if token["service_account_id"] == self.account}

    def is_ours(self, request):
        root = f"Credential={self.bench.stack.ministack.root['AWS_ACCESS_KEY_ID']}/"
        return root not in request.headers.get("authorization", "")


def test_a_service_token_is_replaced_and_the_one_before_the_previous_deleted(bench):
    key = ApiKey(bench)
    assert key.function.invoke(schedule()).ok
    known = [key.first]
    for _ in range(3):
        key.begin()
        result = key.run()
        assert result.ok, result.body
        assert result.body["targets"][0]["name"] == "braintrust_api_key"
        known.append(key.held()["service_token_id"])
        # The current one and the previous one, which a run under way may still use.
        assert key.tokens() == set(known[-2:])
        assert key.function.invoke(schedule()).ok
    assert len(set(known)) == 4
    assert key.held()["service_account_id"] == key.account


def test_a_token_is_named_after_its_secret_and_version_and_those_of_other_secrets_stay(bench):
    key, other = ApiKey(bench), ApiKey(bench)
    for rotated in (other, other, key, key):
        rotated.begin()
        assert rotated.run().ok
    held = key.held()
    for rotated in (key, other):
        assert rotated.tokens() == {rotated.held(stage)["service_token_id"] for stage in ("AWSCURRENT", "AWSPREVIOUS")}
    name = bench.braintrust.service_tokens[held["service_token_id"]]["name"]
    assert name == f"bedrock-braintrust-rotator {key.secret.rsplit(':')[-1]} {key.token}"


def test_secrets_manager_rotates_the_api_key_by_the_four_steps(bench):
    key = ApiKey(bench)
    bench.aws.rotation.invoke = key.function.invoke
    bench.stack.client("secretsmanager").rotate_secret(
        SecretId=key.secret, RotationRules={"AutomaticallyAfterDays": 30}
    )
    steps = bench.aws.wait_for_rotation(key.secret)
    bench.aws.rotation.invoke = None
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in STEPS], steps
    assert key.tokens() == {key.first, key.held()["service_token_id"]}


def test_a_token_that_was_staged_is_not_deleted_because_no_answer_said_so(bench):
    key = ApiKey(bench)
    key.begin()
    bench.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    assert key.step("createSecret").ok
    bench.aws.clear_faults()
    assert key.run().ok
    assert key.tokens() == {key.first, key.held()["service_token_id"]}


def test_a_token_that_may_be_staged_is_not_deleted(bench):
    key = ApiKey(bench)
    key.begin()
    bench.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    # createSecret reads the current version, and whether the pending one has a value.
    bench.aws.fail("secretsmanager:GetSecretValue", Answer(500), times=None, skip=2)
    result = key.step("createSecret")
    assert not result.ok and "may be neither staged nor deleted" in result.body["errorMessage"]
    bench.aws.clear_faults()
    assert key.held("AWSPENDING")["service_token_id"] in key.tokens()
    assert key.run().ok


def test_a_key_that_sees_several_organizations_makes_its_token_in_its_own(bench):
    bench.braintrust.add_key(bench.api_key, orgs=("Acme", "Acme EU"))
    account = str(uuid.uuid4())
    id, text = bench.braintrust.add_service_token(account, orgs=("Acme", "Acme EU"))
    held = {"api_key": text, "service_token_id": id, "service_account_id": account, "org_name": "Acme EU"}
    ai_secret = bench.ai_secret("AWS Bedrock", org_name="Acme EU")
    key = ApiKey(bench, value=held)
    key.function = bench.function(bench.target(ai_secret), BRAINTRUST_API_KEY_SECRET_ID=key.secret)
    key.begin()
    result = key.run()
    assert result.ok, result.body
    assert key.held()["org_name"] == "Acme EU" and key.held()["service_token_id"] != id


@pytest.mark.parametrize("value", ["sk-made-by-hand", {"api_key": "sk-made-by-hand"}, {"api_key": "bt-st-1"}])
def test_a_key_that_is_no_service_token_is_refused_with_the_way_out(bench, value):
    key = ApiKey(bench, value=value)
    key.begin()
    for step in ("createSecret", "testSecret"):
        result = key.step(step)
        assert not result.ok
        message = result.body["errorMessage"]
        assert "holds no Braintrust service token" in message and "cannot be made by API" in message
    assert key.tokens() == {key.first}


def test_turning_rotation_on_tests_the_key_that_there_is(bench):
    key = ApiKey(bench)
    key.begin()
    assert key.step("testSecret").ok
    assert key.tokens() == {key.first}


def test_finishing_before_a_token_was_made_is_refused(bench):
    key = ApiKey(bench)
    before = key.held()
    key.begin()
    result = key.step("finishSecret")
    assert not result.ok and "holds no value" in result.body["errorMessage"]
    assert key.held() == before


def test_a_pending_token_that_is_gone_is_abandoned(bench):
    key = ApiKey(bench)
    key.begin()
    assert key.step("createSecret").ok
    pending = key.held("AWSPENDING")
    url = f"{bench.braintrust.url}/v1/service_token/{pending['service_token_id']}"
    headers = {"Authorization": f"Bearer {pending['api_key']}"}
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers))
    result = key.run()
    assert not result.ok and "is gone" in result.body["errorMessage"]
    assert "AWSPENDING" not in bench.stages({"secret_id": key.secret})
    key.begin()
    assert key.run().ok
    assert key.tokens() == {key.first, key.held()["service_token_id"]}


FAULTS = {
    "killed before": lambda kill: Kill(kill, acts=False),
    "killed after": lambda kill: Kill(kill, acts=True),
    "connection lost before": lambda kill: DropBefore(),
    "answer lost": lambda kill: DropAfter(),
}


def calls_of(bench):
    """The calls of an undisturbed second rotation, which deletes a token too."""
    key, calls = second_rotation(bench), []

    def watch(request):
        calls.extend([request.call] if key.is_ours(request) else [])
        return False

    for server in (bench.aws, bench.braintrust):
        server.fail(watch, None, times=None)
    assert key.run().ok
    return calls


def second_rotation(bench):
    for server in (bench.aws, bench.braintrust):
        server.clear_faults()
    key = ApiKey(bench)
    key.begin()
    assert key.run().ok
    key.begin()
    return key


@pytest.mark.parametrize("stopped", FAULTS)
def test_the_api_keys_rotation_survives_being(bench, stopped, record_property):
    calls = calls_of(bench)
    for place, call in enumerate(calls):
        key, seen = second_rotation(bench), itertools.count()
        previous, current = key.held("AWSPREVIOUS"), key.held()

        def kill(function=key.function):
            if pid := function.pid:
                os.kill(pid, signal.SIGKILL)

        for server in (bench.aws, bench.braintrust):
            server.fail(lambda request: key.is_ours(request) and next(seen) == place, FAULTS[stopped](kill))
        case = f"{stopped} call {place} ({call})"
        key.run()
        assert key.held()["service_token_id"] in key.tokens(), case
        results = [key.run().ok for _ in range(2)]
        assert results[-1], f"{case}: {key.function.logs()[-3:]}"
        held = key.held()["service_token_id"]
        assert held not in (previous["service_token_id"], current["service_token_id"]), case
        assert key.tokens() == {current["service_token_id"], held}, case
        assert key.function.invoke(schedule()).ok, case
        key.function.stop()
    record_property(CASES, len(calls))
