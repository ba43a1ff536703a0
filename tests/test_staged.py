"""Targets with a staged secret: what a tick decides, what Secrets Manager's four steps do, and what is retired."""

import json
import threading
import time
import uuid

import pytest
from local.server import Answer
from test_crashes import KINDS, STANDING, schedule
from test_refusals import failed

STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]


def outcome(result):
    assert result.ok, result.body
    return result.body["targets"][0]["outcome"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tick_stages_what_braintrust_gets(bench, kind):
    ai_secret = bench.ai_secret(metadata={"access_key": "AKIAOLD", "session_token": "stale", "region": "eu-west-1"})
    target = bench.staged_target(kind, ai_secret)
    report = bench.rotate(target, event=schedule())
    held, found = bench.staged(target), bench.braintrust.credentials(ai_secret)
    assert bench.holds_working_credentials(ai_secret)
    assert (held["kind"], held["target"], held["region"]) == (kind, "prod", "us-east-1")
    assert held["credential_id"] == report["targets"][0]["credential_id"]
    if kind.endswith("api_key"):
        assert (found["auth_type"], found["secret"]) == ("api_key", held["api_key"])
    else:
        assert found["access_key"] == held["aws_access_key_id"] == held["credential_id"]
        assert found["session_token"] == held.get("aws_session_token")
    assert "AWSPENDING" not in bench.stages(target)


@pytest.mark.parametrize("kind", KINDS)
def test_secrets_manager_rotates_by_the_four_steps(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    bench.aws.rotation.invoke = function.invoke
    bench.stack.client("secretsmanager").rotate_secret(
        SecretId=target["secret_id"], RotationRules={"AutomaticallyAfterDays": 30}
    )
    steps = bench.aws.wait_for_rotation(target["secret_id"])
    bench.aws.rotation.invoke = None
    assert [(step.name, step.ok) for step in steps] == [(name, True) for name in STEPS], steps
    assert bench.holds_working_credentials(ai_secret)
    assert bench.staged(target)["credential_id"] == steps[-1].body["targets"][0]["credential_id"]
    assert outcome(function.invoke(schedule())) == "left_to_secrets_manager"


@pytest.mark.parametrize("kind", STANDING)
def test_standing_credentials_are_due_by_age_and_retired_by_id(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    [first] = bench.listed(target)
    assert outcome(function.invoke(schedule())) == "not_due"
    bench.age(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    second = bench.staged(target)["credential_id"]
    assert bench.listed(target) == {first: False, second: True}
    assert outcome(function.invoke(schedule())) == "not_due"
    assert bench.listed(target) == {second: True}


def test_a_key_that_a_human_made_is_never_touched(bench):
    user = bench.user()
    iam = bench.stack.client("iam")
    human = iam.create_access_key(UserName=user)["AccessKey"]["AccessKeyId"]
    time.sleep(1.1)  # the key is to be older than the secret, and IAM tells seconds
    target = bench.staged_target("access_key", bench.ai_secret(), user_name=user)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    result = function.invoke(schedule())
    assert not result.ok
    report = json.loads(result.body["errorMessage"])
    failed(report, "conflict", "iam", human, "was not made by this function")
    assert bench.listed(target)[human] is True
    assert bench.holds_working_credentials(target["ai_secrets"][0]["id"])


def test_an_overlap_keeps_the_previous_credentials(bench):
    target = bench.staged_target("access_key", bench.ai_secret(), overlap="1h")
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert outcome(function.invoke(schedule())) == "not_due"
    assert list(bench.listed(target).values()) == [True, True]
    result = function.invoke({"action": "rotate", "force": True})
    assert not result.ok
    assert "is in its overlap until" in result.body["errorMessage"]
    assert list(bench.listed(target).values()) == [True, True]


def test_a_failed_test_puts_the_current_credentials_back(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("access_key", ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    current = bench.staged(target)["credential_id"]
    bench.age(target)
    # createSecret proves twice; the third question is testSecret's.
    refused = Answer(403, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    bench.aws.fail("bedrock:ListFoundationModels", refused, skip=2)
    result = function.invoke(schedule())
    assert not result.ok
    assert f"The current credentials ({current}) were put back" in result.body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["access_key"] == current
    assert bench.holds_working_credentials(ai_secret)
    assert outcome(function.invoke(schedule())) == "resumed"
    assert bench.staged(target)["credential_id"] != current


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_the_same_event_twice_rotates_once(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret())
    function, event = bench.function(target), schedule()
    assert outcome(function.invoke(event)) == "rotated"
    first = bench.staged(target)["credential_id"]
    assert outcome(function.invoke(event)) == "not_due"
    assert bench.staged(target)["credential_id"] == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_event_twice_at_once_ends_in_agreement(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    functions, event = [bench.function(target) for _ in range(2)], schedule()
    threads = [threading.Thread(target=function.invoke, args=(event,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(4):
        functions[0].invoke(schedule())
    assert bench.holds_working_credentials(ai_secret)
    held, found = bench.staged(target), bench.braintrust.credentials(ai_secret)
    assert found["secret"] == held.get("api_key", held.get("aws_secret_access_key"))
    if kind in STANDING:
        assert bench.listed(target) == {held["credential_id"]: True}


@pytest.mark.parametrize(
    ("begun", "token", "step", "words"),
    [
        (True, "unknown", "createSecret", "no such version"),
        (True, "pending", "dropSecret", "an unknown step"),
        (True, "pending", "setSecret", "holds no value"),
        (True, "pending", "finishSecret", "holds no value"),
    ],
)
def test_a_step_out_of_order_is_refused(bench, begun, token, step, words):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("temporary", ai_secret)
    before = bench.braintrust.snapshot()
    pending = str(uuid.uuid4())
    if begun:
        bench.aws.begin_rotation(target["secret_id"], pending)
    token = {"unknown": str(uuid.uuid4()), "pending": pending}[token]
    event = {"Step": step, "SecretId": target["secret_id"], "ClientRequestToken": token}
    result = bench.function(target).invoke(event)
    assert not result.ok and words in result.body["errorMessage"]
    assert bench.braintrust.snapshot() == before


def test_a_rotation_that_is_off_is_refused_and_one_that_is_done_is_done(bench):
    target = bench.staged_target("temporary", bench.ai_secret())
    function, token = bench.function(target), str(uuid.uuid4())
    bench.aws.begin_rotation(target["secret_id"], token)
    step = {"SecretId": target["secret_id"], "ClientRequestToken": token, "RotationToken": str(uuid.uuid4())}
    for name in STEPS:
        assert outcome(function.invoke({"Step": name, **step})) == "step_done"
    current = bench.staged(target)
    for name in STEPS:
        assert outcome(function.invoke({"Step": name, **step})) == "step_done"
    assert bench.staged(target) == current
    bench.stack.client("secretsmanager").cancel_rotate_secret(SecretId=target["secret_id"])
    result = function.invoke({"Step": "createSecret", **step})
    assert not result.ok and "no rotation turned on" in result.body["errorMessage"]


def test_a_dry_run_of_a_staged_target_changes_nothing(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    before = bench.braintrust.snapshot()
    report = bench.rotate(target, event={"action": "rotate", "dry_run": True})
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert bench.braintrust.snapshot() == before and bench.listed(target) == {} and bench.stages(target) == {}
