"""Targets with a staged secret: what a tick decides, and what is retired."""

import json
import threading
import time
import uuid

import pytest
from conftest import refused
from support.answers import json_error
from support.server import Answer, DropAfter
from test_crashes import FORCED, KINDS, STANDING, schedule
from test_refusals import failed


FORBIDDEN = json_error(403, "AccessDeniedException", "User: x is not authorized to perform: bedrock:ListFoundationModels")


def move_stage(bench, target, stage, **move):
    bench.stack.client("secretsmanager").update_secret_version_stage(
        SecretId=target["secret_id"], VersionStage=stage, **move
    )


def secret_of(held):
    return held.get("api_key") or held["aws_secret_access_key"]


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
    failed(report, "conflict", "iam", human, "Not made by this function")
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
    result = function.invoke(FORCED)
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


def test_a_dry_run_of_a_staged_target_changes_nothing(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    before = bench.braintrust.snapshot()
    report = bench.rotate(target, event={"action": "rotate", "dry_run": True})
    assert report["targets"][0]["outcome"] == "would_rotate"
    assert bench.braintrust.snapshot() == before and bench.listed(target) == {} and bench.stages(target) == {}


def test_going_from_one_kind_to_another_never_leaves_braintrust_without(bench):
    ai_secret, secret, user = bench.ai_secret(), bench.staged_secret(), bench.user()
    kinds = ["temporary", "access_key", "long_term_api_key", "short_term_api_key", "access_key", "temporary"]
    sent = []
    bench.braintrust.fail(lambda request: sent.append(request.call) or False, None, times=None)
    for kind in kinds:
        fields = {"user_name": user} if kind in STANDING else {}
        target = bench.staged_target(kind, ai_secret, secret_id=secret, **fields)
        before = bench.braintrust.credentials(ai_secret)
        assert outcome(bench.function(target).invoke(schedule())) == "rotated"
        assert bench.holds_working_credentials(ai_secret)
        if kind != kinds[0]:
            # A gateway that still has the old ones goes on.
            assert bench.work(before)
        held, found = bench.staged(target), bench.braintrust.credentials(ai_secret)
        assert held["kind"] == kind
        assert found["secret"] == held.get("api_key", held.get("aws_secret_access_key"))


def put_pending(bench, target, minted_at):
    """A rotation that was begun at that time, and held up since."""
    key = bench.stack.client("iam").create_access_key(UserName=target["user_name"])["AccessKey"]
    held = {"kind": "access_key", "credential_id": key["AccessKeyId"], "minted_at": minted_at}
    held |= {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    bench.stack.client("secretsmanager").put_secret_value(
        SecretId=target["secret_id"], SecretString=json.dumps(held), VersionStages=["AWSPENDING"]
    )
    return key["AccessKeyId"]


def test_the_overlap_begins_when_credentials_become_current_and_not_when_they_were_made(bench):
    target = bench.staged_target("access_key", bench.ai_secret(), overlap="1h")
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    previous = bench.staged(target)["credential_id"]
    held_up = put_pending(bench, target, "2026-01-01T00:00:00Z")
    assert outcome(function.invoke(schedule())) == "resumed"
    assert bench.staged(target)["credential_id"] == held_up
    # Old enough to be due again, which would need the place of those that are in their overlap.
    assert outcome(function.invoke(schedule())) == "not_due"
    assert bench.listed(target) == {previous: True, held_up: True}


def test_credentials_that_have_ended_are_not_put_back(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("temporary", ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    ended = bench.staged(target) | {"expires_at": "2026-01-01T00:00:00Z"}
    bench.stack.client("secretsmanager").put_secret_value(
        SecretId=target["secret_id"], SecretString=json.dumps(ended)
    )
    refused = Answer(403, headers={"x-amzn-ErrorType": "AccessDeniedException"})
    bench.aws.fail("bedrock:ListFoundationModels", refused, skip=1)
    result = function.invoke(schedule())
    assert not result.ok and "could not be put back" in result.body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["access_key"] != ended["credential_id"]
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("comes_again", [False, True])
def test_pending_credentials_that_have_ended_give_way(bench, comes_again):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("temporary", ai_secret)
    function, held_up = bench.function(target), schedule()
    assert outcome(function.invoke(schedule())) == "rotated"
    ended = bench.staged(target) | {"expires_at": "2026-01-01T00:00:00Z"}
    bench.stack.client("secretsmanager").put_secret_value(
        SecretId=target["secret_id"],
        ClientRequestToken=held_up["id"],
        SecretString=json.dumps(ended),
        VersionStages=["AWSPENDING"],
    )
    if comes_again:
        # A version's value cannot be changed: this event can make no other credentials.
        report = refused(function.invoke(held_up))
        failed(report, "conflict", "secrets_manager", "the current ones were put back", "the next tick starts afresh")
        assert "AWSPENDING" not in bench.stages(target) and bench.holds_working_credentials(ai_secret)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret) and "AWSPENDING" not in bench.stages(target)


def test_credentials_that_live_an_hour_are_not_to_be_left_to_secrets_manager(bench):
    target = bench.staged_target("temporary", bench.ai_secret())
    bench.aws.begin_rotation(target["secret_id"], str(uuid.uuid4()))
    report = bench.rotate(target, event=schedule())
    assert "four hours at the shortest" in report["targets"][0]["warnings"][0]


@pytest.mark.parametrize("kind", STANDING)
@pytest.mark.parametrize("lost", ["deleted", "deactivated"])
def test_a_current_credential_that_iam_lost_is_due_at_once(bench, kind, lost):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.lose(target, bench.staged(target)["credential_id"], lost)
    assert not bench.holds_working_credentials(ai_secret)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", ["temporary", "short_term_api_key"])
def test_an_event_that_is_late_brings_nothing_old_back(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function, late = bench.function(target), schedule()
    assert outcome(function.invoke(late)) == "rotated"
    assert outcome(function.invoke(FORCED)) == "rotated"
    held = bench.staged(target)["credential_id"]
    assert outcome(function.invoke(late)) == "not_due"
    assert bench.staged(target)["credential_id"] == held


@pytest.mark.parametrize("kind", STANDING)
def test_an_orphan_that_braintrust_holds_is_replaced_before_it_is_retired(bench, kind):
    half, other = bench.ai_secret("half"), bench.ai_secret("other")
    target = bench.staged_target(kind, half)
    target["ai_secrets"].append({"id": other})
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    current = bench.staged(target)
    bench.age(target)
    bench.braintrust.fail(lambda request: request.method == "PATCH" and other in request.path, Answer(403), times=None)
    assert not function.invoke(schedule()).ok
    bench.braintrust.clear_faults()
    bench.put(target, current)
    # What an operator does to end a stuck rotation.
    move_stage(bench, target, "AWSPENDING", RemoveFromVersionId=bench.stages(target)["AWSPENDING"])
    for _ in range(3):
        assert outcome(function.invoke(schedule())) == "not_due"
        assert bench.holds_working_credentials(half) and bench.holds_working_credentials(other)
    assert bench.listed(target) == {current["credential_id"]: True}


@pytest.mark.parametrize("kind", STANDING)
def test_what_cannot_be_staged_is_deleted_and_never_set(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function, before = bench.function(target), bench.braintrust.snapshot()
    bench.aws.fail("secretsmanager:PutSecretValue", Answer(403), times=None)
    assert not function.invoke(schedule()).ok
    assert bench.listed(target) == {} and bench.braintrust.snapshot() == before
    bench.aws.clear_faults()
    assert function.invoke(schedule()).ok
    assert bench.holds_working_credentials(ai_secret)


def cut_off_after_set(bench, function, event):
    """A rotation that Braintrust has, and that does not become current."""
    bench.aws.fail("secretsmanager:UpdateSecretVersionStage", Answer(403), times=None)
    assert not function.invoke(event).ok
    bench.aws.clear_faults()


def with_an_orphan(bench, target):
    """A function whose rotation is due and needs the slot of an orphan that Braintrust holds; and the orphan's version."""
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    cut_off_after_set(bench, function, schedule())
    # An operator gives it up.
    orphan = bench.stages(target)["AWSPENDING"]
    move_stage(bench, target, "AWSPENDING", RemoveFromVersionId=orphan)
    return function, orphan


@pytest.mark.parametrize("kind", STANDING)
@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_an_orphan_stays_while_braintrust_may_hold_it(bench, kind, status):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function, _ = with_an_orphan(bench, target)
    assert bench.holds_working_credentials(ai_secret)
    before = len(bench.patches())
    bench.braintrust.fail(lambda request: request.method == "PATCH", Answer(status), times=None)
    listed = bench.listed(target)
    assert not function.invoke(schedule()).ok
    assert bench.listed(target) == listed and bench.holds_working_credentials(ai_secret)
    assert len(bench.patches()) - before <= 5
    bench.braintrust.clear_faults()
    # Gateways have what Braintrust is seen to hold: that is replaced, and deleted by a later run. An API key is not seen.
    result = function.invoke(schedule())
    assert result.ok == (kind == "long_term_api_key")
    assert result.ok or bench.listed(target) == listed and "until now" in result.body["errorMessage"]
    assert bench.holds_working_credentials(ai_secret)
    assert function.invoke(schedule()).ok
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_an_orphan_is_taken_from_braintrust_in_the_overlap_and_retired_after_it(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret, overlap="1h")
    function, _ = with_an_orphan(bench, target)
    current, listed = bench.staged(target), bench.listed(target)
    assert bench.braintrust.credentials(ai_secret)["secret"] != secret_of(current)
    # It is due, but needs the slot.
    result = function.invoke(schedule())
    assert outcome(result) == "not_due"
    # An API key is not seen.
    assert ("Braintrust held" in json.dumps(result.body)) == (kind == "access_key")
    assert bench.braintrust.credentials(ai_secret)["secret"] == secret_of(current)
    assert bench.listed(target) == listed and list(listed.values()) == [True, True]
    report = refused(function.invoke(FORCED))
    failed(report, "conflict", "iam", "is in its overlap until")
    assert bench.listed(target) == listed


@pytest.mark.parametrize("kind", STANDING)
def test_the_credential_of_a_lost_answer_makes_room_in_the_overlap_too(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret, overlap="1h")
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    [first] = bench.listed(target)
    bench.aws.fail(lambda request: request.call.startswith("iam:Create"), DropAfter())
    result = function.invoke(FORCED)
    assert outcome(result) == "rotated" and bench.holds_working_credentials(ai_secret)
    second = bench.staged(target)["credential_id"]
    [retired] = result.body["targets"][0]["retired"]
    assert retired["how"] == "deleted" and retired["credential_id"] not in (first, second)
    assert bench.listed(target) == {first: True, second: True}


@pytest.mark.parametrize("kind", STANDING)
def test_what_braintrust_holds_is_not_deleted_where_nothing_is_current(bench, kind):
    ai_secret, user = bench.ai_secret(), bench.user()
    bench.mint_by_hand(kind, user)
    time.sleep(1.1)  # the human's is to be older than the secret, and IAM tells seconds
    target = bench.staged_target(kind, ai_secret, user_name=user)
    function = bench.function(target)
    cut_off_after_set(bench, function, schedule())
    move_stage(bench, target, "AWSPENDING", RemoveFromVersionId=bench.stages(target)["AWSPENDING"])
    listed = bench.listed(target)
    report = refused(function.invoke(schedule()))
    failed(report, "conflict", "secrets_manager", "AWSCURRENT holds no credentials to give to Braintrust")
    assert bench.listed(target) == listed and bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_a_first_rotation_that_was_cut_off_twice_heals(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    for _ in range(2):
        bench.mint_by_hand(kind, target["user_name"])  # what a run that is killed after minting leaves
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_what_braintrust_does_not_hold_makes_room_for_what_was_deleted_by_hand(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret, overlap="1h")
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert outcome(function.invoke(FORCED)) == "rotated"
    previous = bench.staged(target, "AWSPREVIOUS")["credential_id"]
    bench.lose(target, bench.staged(target)["credential_id"], "deleted")
    bench.mint_by_hand(kind, target["user_name"])  # what a run that is killed after minting leaves
    assert not bench.holds_working_credentials(ai_secret)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret) and bench.listed(target)[previous]


def test_a_key_that_the_other_layout_still_names_is_retired(bench):
    ai_secret = bench.ai_secret(metadata={"aws_access_key_id": "AKIAOLD"})
    target = bench.staged_target("access_key", ai_secret)
    assert outcome(bench.function(target).invoke(schedule())) == "rotated"
    first = bench.staged(target)["credential_id"]
    assert bench.braintrust.snapshot()[ai_secret]["metadata"]["aws_access_key_id"] == first
    target["ai_secrets"][0]["layout"] = "gateway"
    function = bench.function(target)
    bench.age(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.braintrust.snapshot()[ai_secret]["metadata"]["aws_access_key_id"] == first
    assert outcome(function.invoke(schedule())) == "not_due"
    assert list(bench.listed(target)) == [bench.staged(target)["credential_id"]]


@pytest.mark.parametrize("kind", STANDING)
def test_dead_pending_credentials_give_way_to_the_current_ones_until_others_are_staged(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    cut_off_after_set(bench, function, FORCED)
    bench.lose(target, bench.staged(target, "AWSPENDING")["credential_id"], "deleted")
    assert not bench.holds_working_credentials(ai_secret)
    bench.aws.fail(lambda request: request.call.startswith("iam:Create"), Answer(403), times=None)
    assert not function.invoke(schedule()).ok
    bench.aws.clear_faults()
    assert bench.braintrust.credentials(ai_secret)["secret"] == secret_of(bench.staged(target))
    # Those are young: nothing else would be due.
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
@pytest.mark.parametrize("how", ["deactivated", "ended"])
def test_an_orphan_makes_room_where_the_current_credentials_are_dead(bench, kind, how):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function, _ = with_an_orphan(bench, target)
    held = bench.staged(target)
    if how == "ended":
        bench.put(target, {**held, "expires_at": held["minted_at"]})
    else:
        bench.lose(target, held["credential_id"], how)
    started = time.monotonic()
    if kind == "access_key":
        # Braintrust is seen to work with it.
        report = refused(function.invoke(schedule()))
        failed(report, "conflict", "secrets_manager", "the current credentials are dead", "Delete the IAM user's other one")
        assert bench.holds_working_credentials(ai_secret)
        bench.lose(target, bench.staged(target)["credential_id"], "deleted")
    assert outcome(function.invoke(schedule())) == "rotated"
    assert bench.holds_working_credentials(ai_secret)
    assert time.monotonic() - started < 30, "nobody waits for Bedrock to know credentials that IAM says are dead"


@pytest.mark.parametrize("kind", STANDING)
def test_an_orphan_stays_where_a_probe_that_is_wrong_proves_nothing(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function, _ = with_an_orphan(bench, target)
    listed = bench.listed(target)
    bench.aws.fail("bedrock:ListFoundationModels", FORBIDDEN, times=None)
    assert not function.invoke(schedule()).ok
    bench.aws.clear_faults()
    assert bench.listed(target) == listed and bench.holds_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_an_orphan_that_another_run_takes_up_meanwhile_stays(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret())
    function, orphan = with_an_orphan(bench, target)
    listed = bench.listed(target)

    def taken_up(request):
        if request.method == "PATCH":
            move_stage(bench, target, "AWSPENDING", MoveToVersionId=orphan)
        return False

    bench.braintrust.fail(taken_up, Answer(500))
    report = refused(function.invoke(schedule()))
    failed(report, "conflict", "secrets_manager", "another run has taken up")
    assert bench.listed(target) == listed


@pytest.mark.parametrize("kind", STANDING)
def test_what_a_rollback_brings_back_meanwhile_is_not_deactivated(bench, kind):
    ai_secret = bench.ai_secret()
    target = bench.staged_target(kind, ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    first = bench.stages(target)["AWSCURRENT"]

    def rolled_back(request):
        """Once the second is current, and the first is about to be retired."""
        second = bench.stages(target)["AWSCURRENT"]
        if request.method == "GET" and second != first:
            move_stage(bench, target, "AWSCURRENT", MoveToVersionId=first, RemoveFromVersionId=second)
        return False

    bench.braintrust.fail(rolled_back, Answer(500))
    report = refused(function.invoke(schedule()))
    failed(report, "conflict", "secrets_manager", "another run has taken up")
    assert list(bench.listed(target).values()) == [True, True]
    assert bench.braintrust.credentials(ai_secret)["secret"] == secret_of(bench.staged(target))


def test_what_was_deleted_is_reported_though_nothing_could_be_made(bench):
    target = bench.staged_target("long_term_api_key", bench.ai_secret())
    function, _ = with_an_orphan(bench, target)
    before = set(bench.listed(target))
    bench.aws.fail("iam:CreateServiceSpecificCredential", Answer(403), times=None)
    [report] = refused(function.invoke(schedule()))["targets"]
    [deleted] = before - set(bench.listed(target))
    assert report["retired"] == [{"credential_id": deleted, "how": "deleted"}]


def test_what_somebody_made_current_meanwhile_is_not_put_back_over(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("access_key", ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    before, written = bench.staged(target), []
    bench.age(target)

    def put_by_a_human(request):
        """While testSecret reads; setSecret has read and written."""
        if request.method == "PATCH":
            written.append(request)
        if request.method != "GET" or not written:
            return False
        bench.put(target, before)
        return True

    bench.braintrust.fail(put_by_a_human, Answer(403))
    assert "could not be put back" in function.invoke(schedule()).body["errorMessage"]
    assert bench.braintrust.credentials(ai_secret)["secret"] != secret_of(before)


def test_an_answer_that_did_not_come_puts_nothing_back(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("access_key", ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    current = bench.staged(target)["credential_id"]
    bench.age(target)
    # setSecret reads once; all that testSecret asks is lost.
    bench.braintrust.fail("GET /v1/ai_secret/{id}", Answer(500), times=5, skip=1)
    assert not function.invoke(schedule()).ok
    assert bench.braintrust.credentials(ai_secret)["access_key"] not in ("ASIAOLD", current)
    assert bench.holds_working_credentials(ai_secret)
    assert outcome(function.invoke(schedule())) == "resumed"
