"""Keys that interrupted rotations left behind are retired once Braintrust no longer needs them."""

import time

import pytest
from support.aws_replies import FORBIDDEN_PROBE
from support.events import FORCED, scheduled_run
from support.faults import DropAfter
from support.http_messages import Reply
from support.kinds import USER_BASED
from support.orphaned_key import give_up_rotation, interrupt_after_set, orphan_key
from support.reports import failed_error, outcome
from support.staged_values import secret_of
from support.template_placeholder import TEMPLATE_PLACEHOLDER
from support.world import LISTED_BY_NOW, LONGER_THAN_ANY_RUN


@pytest.mark.parametrize("kind", USER_BASED)
def test_an_orphaned_key_in_braintrust_is_replaced_before_it_is_retired(world, kind):
    half, other = world.new_ai_secret("half"), world.new_ai_secret("other")
    target = world.new_staged_target(kind, half)
    target["ai_secrets"].append({"id": other})
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    current = world.staged_value(target)
    world.age_credentials(target)
    world.braintrust.fail(lambda request: request.method == "PATCH" and other in request.path, Reply(403), times=None)
    assert not function.invoke(scheduled_run()).ok
    world.braintrust.clear_faults()
    world.put_value(target, current)
    give_up_rotation(world, target)
    # Braintrust shows access keys. API keys aren't shown, so the run can't know that it repairs anything.
    for expected in ("repaired" if kind == "access_key" else "not_due", "not_due", "not_due"):
        assert outcome(function.invoke(scheduled_run())) == expected
        assert world.braintrust.credentials(half)["secret"] == secret_of(current)
        assert world.has_working_credentials(half) and world.has_working_credentials(other)
    assert world.iam_keys(target) == {current["credential_id"]: True}


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("status", [401, 403, 404, 503])
@pytest.mark.parametrize("is_retried_soon", [True, False])
def test_an_orphaned_key_stays_while_braintrust_may_use_it(world, kind, status, is_retried_soon):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function, _ = orphan_key(world, target)
    assert world.has_working_credentials(ai_secret)
    before = len(world.patches())
    world.braintrust.fail(lambda request: request.method == "PATCH", Reply(status), times=None)
    listed = world.iam_keys(target)
    assert not function.invoke(scheduled_run()).ok
    assert world.iam_keys(target) == listed and world.has_working_credentials(ai_secret)
    assert len(world.patches()) - before <= 5
    world.braintrust.clear_faults()
    if not is_retried_soon:
        # The run that failed has left its label, which counts for as long as that run might be alive.
        world.let_time_pass(target, LONGER_THAN_ANY_RUN)
    # Gateways cache a key that Braintrust shows, so it is replaced now and deleted later. API keys aren't shown.
    result = function.invoke(scheduled_run())
    assert result.ok == (kind == "long_term_api_key")
    if not result.ok:
        failed_error(result.report_in_error(), "conflict", "secrets_manager")
        assert world.iam_keys(target) == listed
    assert world.has_working_credentials(ai_secret)
    assert function.invoke(scheduled_run()).ok
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_an_orphaned_key_is_replaced_in_braintrust_during_the_overlap_and_retired_later(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, overlap="1h")
    function, _ = orphan_key(world, target)
    current, listed = world.staged_value(target), world.iam_keys(target)
    assert world.braintrust.credentials(ai_secret)["secret"] != secret_of(current)
    # A rotation is due, but has no slot.
    result = function.invoke(scheduled_run())
    # Braintrust shows access keys, and doesn't show API keys.
    assert outcome(result) == ("repaired" if kind == "access_key" else "not_due")
    assert bool(result.body["targets"][0].get("warnings")) == (kind == "access_key")
    assert world.braintrust.credentials(ai_secret)["secret"] == secret_of(current)
    assert world.iam_keys(target) == listed and list(listed.values()) == [True, True]
    report = function.invoke(FORCED).report_in_error()
    failed_error(report, "conflict", "iam", problem=target["user_name"])
    assert world.iam_keys(target) == listed


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_whose_creation_was_not_answered_is_deleted_even_during_the_overlap(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, overlap="1h")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    [first] = world.iam_keys(target)
    world.aws.fail(lambda request: request.call.startswith("iam:Create"), DropAfter())
    result = function.invoke(FORCED)
    assert outcome(result) == "rotated" and world.has_working_credentials(ai_secret)
    second = world.staged_value(target)["credential_id"]
    [retired] = result.body["targets"][0]["retired"]
    assert retired["how"] == "deleted" and retired["credential_id"] not in (first, second)
    assert world.iam_keys(target) == {first: True, second: True}


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_in_braintrust_is_not_deleted_where_none_is_current(world, kind):
    ai_secret, user = world.new_ai_secret(), world.new_user()
    world.create_key_by_hand(kind, user)
    time.sleep(1.1)  # the person's key must be older than the secret, and IAM's times are whole seconds
    # In a secret without any value, the interrupted version would be current.
    secret = world.new_staged_secret(TEMPLATE_PLACEHOLDER)
    target = world.new_staged_target(kind, ai_secret, user_name=user, secret_id=secret)
    function = world.new_function(target)
    interrupt_after_set(world, function, scheduled_run())
    give_up_rotation(world, target)
    listed = world.iam_keys(target)
    report = function.invoke(scheduled_run()).report_in_error()
    failed_error(report, "conflict", "secrets_manager")
    assert world.iam_keys(target) == listed and world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_first_rotation_recovers_from_two_interruptions(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function = world.new_function(target)
    for _ in range(2):
        world.create_key_by_hand(
            kind, target["user_name"]
        )  # what a run that is killed after creating a key leaves behind
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_a_key_that_braintrust_does_not_use_is_deleted_to_replace_one_that_was_deleted_by_hand(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret, overlap="1h")
    function = world.new_function(target)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert outcome(function.invoke(FORCED)) == "rotated"
    previous = world.staged_value(target, "AWSPREVIOUS")["credential_id"]
    world.end_key_by_hand(target, world.staged_value(target)["credential_id"], "deleted")
    world.age_credentials(target, LISTED_BY_NOW)
    world.create_key_by_hand(kind, target["user_name"])  # what a run that is killed after creating a key leaves behind
    assert not world.has_working_credentials(ai_secret)
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret) and world.iam_keys(target)[previous]


@pytest.mark.parametrize("kind", USER_BASED)
@pytest.mark.parametrize("how", ["deactivated", "ended"])
def test_an_orphaned_key_makes_room_where_the_current_credentials_are_dead(world, kind, how):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function, _ = orphan_key(world, target)
    current = world.staged_value(target)
    if how == "ended":
        world.put_value(target, {**current, "expires_at": current["minted_at"]})
    else:
        world.end_key_by_hand(target, current["credential_id"], how)
    started = time.monotonic()
    if kind == "access_key":
        # Braintrust shows that it uses the orphaned key.
        orphan = world.braintrust.credentials(ai_secret)["access_key"]
        report = function.invoke(scheduled_run()).report_in_error()
        failed_error(report, "conflict", "secrets_manager", problem=orphan)
        assert world.has_working_credentials(ai_secret)
        world.end_key_by_hand(target, world.staged_value(target)["credential_id"], "deleted")
    assert outcome(function.invoke(scheduled_run())) == "rotated"
    assert world.has_working_credentials(ai_secret)
    assert time.monotonic() - started < 30, "the function waited for credentials that IAM shows to be dead"


@pytest.mark.parametrize("kind", USER_BASED)
def test_an_orphaned_key_stays_where_the_probe_of_the_current_credentials_fails(world, kind):
    ai_secret = world.new_ai_secret()
    target = world.new_staged_target(kind, ai_secret)
    function, _ = orphan_key(world, target)
    listed = world.iam_keys(target)
    world.aws.fail("bedrock:ListFoundationModels", FORBIDDEN_PROBE, times=None)
    assert not function.invoke(scheduled_run()).ok
    world.aws.clear_faults()
    assert world.iam_keys(target) == listed and world.has_working_credentials(ai_secret)


@pytest.mark.parametrize("kind", USER_BASED)
def test_an_orphaned_key_that_another_run_resumes_meanwhile_stays(world, kind):
    target = world.new_staged_target(kind, world.new_ai_secret())
    function, orphan = orphan_key(world, target)
    listed = world.iam_keys(target)

    def resume(request):
        if request.method == "PATCH":
            world.move_stage(target, "AWSPENDING", MoveToVersionId=orphan)
        return False

    world.braintrust.fail(resume, Reply(500))
    report = function.invoke(scheduled_run()).report_in_error()
    failed_error(report, "conflict", "secrets_manager")
    assert world.iam_keys(target) == listed
