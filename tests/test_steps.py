"""The rotation function that Secrets Manager calls: its four steps, their guards, and what a failed one leaves."""

import json
import uuid

import pytest
from conftest import OLD
from support.server import Answer, DropAfter
from test_crashes import KINDS, schedule
from test_staged import FORBIDDEN, move_stage, outcome

STEPS = ["createSecret", "setSecret", "testSecret", "finishSecret"]


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


class Steps:
    """A rotation that Secrets Manager has begun, step by step."""

    def __init__(self, bench, target, function=None):
        self.bench, self.target = bench, target
        self.function = function or bench.function(target)
        self.begin()

    def begin(self):
        self.token = str(uuid.uuid4())
        self.bench.aws.begin_rotation(self.target["secret_id"], self.token)

    def step(self, name, token=None):
        secret = self.target["secret_id"]
        return self.function.invoke({"Step": name, "SecretId": secret, "ClientRequestToken": token or self.token})

    def run(self, steps=STEPS):
        for name in steps:
            assert outcome(self.step(name)) == "step_done"

    def remove_pending(self):
        """What an operator does to end a stuck rotation."""
        move_stage(self.bench, self.target, "AWSPENDING", RemoveFromVersionId=self.token)


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_twice_is_the_same_as_once(bench, kind):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    for name in STEPS:
        steps.run([name])
        before = bench.staged(steps.target, "AWSPENDING")
        steps.run([name])
        assert bench.staged(steps.target, "AWSPENDING") == before
    assert bench.holds_working_credentials(ai_secret)
    assert bench.staged(steps.target)["credential_id"] == before["credential_id"]


@pytest.mark.parametrize("kind", ["access_key", "long_term_api_key"])
def test_a_key_that_was_staged_is_not_deleted_because_no_answer_said_so(bench, kind):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    bench.aws.fail("secretsmanager:PutSecretValue", DropAfter(), times=None)
    steps.run(["createSecret"])
    bench.aws.clear_faults()
    steps.run()
    assert bench.holds_working_credentials(ai_secret)
    assert list(bench.listed(steps.target)) == [bench.staged(steps.target)["credential_id"]]


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_that_createsecret_could_not_prove_are_not_set_by_hand(bench, kind):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    before = bench.braintrust.snapshot()
    bench.aws.fail("bedrock:ListFoundationModels", FORBIDDEN, times=None)
    steps.begin()
    assert not steps.step("createSecret").ok and not steps.step("setSecret").ok
    assert bench.braintrust.snapshot() == before and not bench.patches()
    bench.aws.clear_faults()
    steps.run()
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ["access_key", "long_term_api_key"])
def test_a_failed_test_puts_the_current_credentials_back_and_the_retry_goes_on(bench, kind):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    steps.run()
    first = bench.braintrust.credentials(ai_secret)["secret"]
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    second = bench.braintrust.credentials(ai_secret)["secret"]
    assert second != first
    bench.aws.fail("bedrock:ListFoundationModels", FORBIDDEN)
    result = steps.step("testSecret")
    assert not result.ok and "were put back" in result.body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["secret"] == first
    steps.run()
    assert bench.braintrust.credentials(ai_secret)["secret"] == second
    assert len(bench.listed(steps.target)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_fails_where_braintrust_reads_something_else_back_than_was_set(bench, kind):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    steps.run()
    first = bench.braintrust.credentials(ai_secret)
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    bench.braintrust.ai_secrets[ai_secret]["metadata"] = dict(OLD)
    result = steps.step("testSecret")
    assert not result.ok and "something else reads back" in result.body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["secret"] == first["secret"]
    assert bench.holds_working_credentials(ai_secret)
    assert "AWSPENDING" in bench.stages(steps.target)


def test_the_credentials_of_an_abandoned_rotation_make_room_for_the_next(bench):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run()
    current = bench.staged(steps.target)["credential_id"]
    steps.begin()
    steps.run(["createSecret"])
    abandoned = bench.staged(steps.target, "AWSPENDING")["credential_id"]
    steps.remove_pending()
    steps.begin()
    steps.run()
    assert set(bench.listed(steps.target)) == {current, bench.staged(steps.target)["credential_id"]}
    assert abandoned not in bench.listed(steps.target)


def test_a_pending_version_on_another_token_is_not_touched(bench):
    steps = Steps(bench, bench.staged_target("access_key", bench.ai_secret()))
    steps.run(["createSecret"])
    pending = bench.staged(steps.target, "AWSPENDING")
    for name in STEPS:
        result = steps.step(name, token=str(uuid.uuid4()))
        assert not result.ok and "no such version" in result.body["errorMessage"]
    assert bench.staged(steps.target, "AWSPENDING") == pending
    assert list(bench.listed(steps.target)) == [pending["credential_id"]]


@pytest.mark.parametrize("by", ["schedule", "rotation"])
def test_a_version_that_was_current_once_does_not_come_back(bench, by):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run()
    # An operator puts another value; Secrets Manager leaves AWSPENDING where it was.
    bench.put(steps.target, bench.staged(steps.target) | {"minted_at": "2026-01-01T00:00:00Z"})
    assert bench.stages(steps.target)["AWSPENDING"] == steps.token == bench.stages(steps.target)["AWSPREVIOUS"]
    current = bench.stages(steps.target)["AWSCURRENT"]
    if by == "schedule":
        assert outcome(steps.function.invoke(schedule())) == "left_to_secrets_manager"
    else:
        result = steps.step("createSecret")
        assert not result.ok and "was current before" in result.body["errorMessage"]
    assert "AWSPENDING" not in bench.stages(steps.target)
    assert bench.stages(steps.target)["AWSCURRENT"] == current
    steps.begin()
    steps.run()
    assert bench.holds_working_credentials(ai_secret)


def test_dead_pending_credentials_that_braintrust_holds_give_way_to_the_current(bench):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run()
    current = bench.staged(steps.target)["credential_id"]
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    bench.lose(steps.target, bench.staged(steps.target, "AWSPENDING")["credential_id"], "deactivated")
    result = steps.step("testSecret")
    assert not result.ok and "the current ones were put back" in result.body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["access_key"] == current
    assert bench.holds_working_credentials(ai_secret)


def test_an_events_secret_in_another_account_is_not_written_to(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    name = target["secret_id"].rsplit(":", 1)[1].rsplit("-", 1)[0]
    elsewhere = target["secret_id"].replace(":000000000000:", ":999999999999:")
    function, token = bench.function({**target, "secret_id": name}), str(uuid.uuid4())
    bench.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    result = function.invoke({"Step": "createSecret", "SecretId": elsewhere, "ClientRequestToken": token})
    assert not result.ok and "no such version" in result.body["errorMessage"]
    asked = [request.json()["SecretId"] for request in bench.aws_requests("secretsmanager:DescribeSecret")]
    assert set(asked) == {name}


def test_the_schedule_goes_on_with_a_rotation_that_was_cancelled(bench):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run(["createSecret"])
    pending = bench.staged(steps.target, "AWSPENDING")["credential_id"]
    bench.stack.client("secretsmanager").cancel_rotate_secret(SecretId=steps.target["secret_id"])
    assert outcome(steps.function.invoke(schedule())) == "resumed"
    assert bench.staged(steps.target)["credential_id"] == pending
    assert bench.holds_working_credentials(ai_secret)


def test_pending_credentials_that_iam_lost_are_abandoned(bench):
    steps = Steps(bench, bench.staged_target("access_key", bench.ai_secret()))
    steps.run(["createSecret"])
    pending = bench.staged(steps.target, "AWSPENDING")["credential_id"]
    user = steps.target["user_name"]
    bench.stack.client("iam").delete_access_key(UserName=user, AccessKeyId=pending)
    result = steps.step("setSecret")
    assert not result.ok and "the next rotation starts afresh" in result.body["errorMessage"]
    assert "AWSPENDING" not in bench.stages(steps.target)
    steps.begin()
    steps.run()


@pytest.mark.parametrize("status", [403, 503])
def test_a_rotation_is_not_abandoned_before_braintrust_has_what_works(bench, status):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run()
    steps.begin()
    steps.run(["createSecret", "setSecret"])
    bench.lose(steps.target, bench.staged(steps.target, "AWSPENDING")["credential_id"], "deleted")
    bench.braintrust.fail(lambda request: request.method == "PATCH", Answer(status), times=None)
    assert not steps.step("testSecret").ok
    bench.braintrust.clear_faults()
    assert "AWSPENDING" in bench.stages(steps.target) and not bench.holds_working_credentials(ai_secret)
    assert "the current ones were put back" in steps.step("testSecret").body["errorMessage"]
    assert "AWSPENDING" not in bench.stages(steps.target) and bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ["temporary", "access_key"])
def test_turning_rotation_on_without_rotating_tests_what_there_is(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    empty = Steps(bench, target, function)
    assert outcome(empty.step("testSecret")) == "step_done"
    empty.remove_pending()
    bench.stack.client("secretsmanager").cancel_rotate_secret(SecretId=target["secret_id"])
    assert outcome(function.invoke(schedule())) == "rotated"
    before, patches = bench.braintrust.snapshot(), len(bench.patches())
    full = Steps(bench, target, function)
    assert outcome(full.step("testSecret")) == "step_done"
    assert bench.braintrust.snapshot() == before and len(bench.patches()) == patches
    bench.braintrust.ai_secrets[ai_secret]["metadata"] = dict(OLD)
    result = full.step("testSecret")
    assert not result.ok and "something else reads back" in result.body["errorMessage"]
    assert len(bench.patches()) == patches


def test_turning_rotation_on_tells_that_the_ai_secret_is_not_there(bench):
    steps = Steps(bench, bench.staged_target("access_key", str(uuid.uuid4())))
    result = steps.step("testSecret")
    assert not result.ok and "not_found" in result.body["errorMessage"]


def test_a_secret_that_never_heard_of_rotation_is_not_one_with_rotation_off(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("access_key", ai_secret)
    function, token = bench.function(target), str(uuid.uuid4())
    key = bench.stack.client("iam").create_access_key(UserName=target["user_name"])["AccessKey"]
    held = {"kind": "access_key", "credential_id": key["AccessKeyId"], "minted_at": "2026-01-01T00:00:00Z"}
    held |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    secrets_manager, secret = bench.stack.client("secretsmanager"), target["secret_id"]
    secrets_manager.put_secret_value(
        SecretId=secret, ClientRequestToken=token, SecretString=json.dumps(held), VersionStages=["AWSPENDING"]
    )
    assert "RotationEnabled" not in secrets_manager.describe_secret(SecretId=secret)
    for name in STEPS:
        event = {"Step": name, "SecretId": secret, "ClientRequestToken": token}
        assert outcome(function.invoke(event)) == "step_done"
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ["short_term_api_key", "long_term_api_key", "access_key"])
def test_new_credentials_that_bedrock_does_not_know_yet_are_waited_for(bench, kind):
    ai_secret = bench.ai_secret()
    bench.aws.new_credentials_unknown_for = 2
    steps = Steps(bench, bench.staged_target(kind, ai_secret))
    steps.run()
    assert bench.holds_working_credentials(ai_secret)
