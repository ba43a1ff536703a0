"""The action `rollback`: the previous credentials go back to Braintrust and become current."""

import json
import uuid

import pytest
from support.server import Answer, DropAfter
from test_crashes import FORCED, KINDS, ROLLBACK, STANDING, schedule
from test_staged import FORBIDDEN, outcome, secret_of
from test_steps import Steps


class Twice:
    """A target that was rotated twice, so that there is something to go back to."""

    def __init__(self, bench, kind, **fields):
        self.bench = bench
        self.ai_secret = bench.ai_secret()
        self.target = bench.staged_target(kind, self.ai_secret, **({"overlap": "1h"} if kind in STANDING else {}) | fields)
        self.function = bench.function(self.target)
        for _ in range(2):
            assert outcome(self.function.invoke(schedule() if _ == 0 else FORCED)) == "rotated"
        self.current, self.previous = (bench.staged(target=self.target, stage=s) for s in ("AWSCURRENT", "AWSPREVIOUS"))

    def roll_back(self, **options):
        return self.function.invoke({**ROLLBACK, **options})

    def refused(self, words):
        before, stages = self.bench.braintrust.snapshot(), self.bench.stages(self.target)
        result = self.roll_back()
        assert not result.ok and words in result.body["errorMessage"], result.body
        assert self.bench.braintrust.snapshot() == before and self.bench.stages(self.target) == stages


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_brings_the_previous_credentials_back_and_swaps_the_stages(bench, kind):
    twice = Twice(bench, kind)
    assert outcome(twice.roll_back()) == "rolled_back"
    assert bench.staged(twice.target) == twice.previous
    assert bench.staged(twice.target, "AWSPREVIOUS") == twice.current
    found = bench.braintrust.credentials(twice.ai_secret)
    assert found["secret"] == twice.previous.get("api_key", twice.previous.get("aws_secret_access_key"))
    assert bench.holds_working_credentials(twice.ai_secret)


@pytest.mark.parametrize("kind", STANDING)
def test_a_rollback_activates_what_was_retired_already(bench, kind):
    twice = Twice(bench, kind)
    bench.lose(twice.target, twice.previous["credential_id"], "deactivated")
    assert outcome(twice.roll_back()) == "rolled_back"
    assert bench.listed(twice.target) == {twice.previous["credential_id"]: True, twice.current["credential_id"]: True}
    assert bench.holds_working_credentials(twice.ai_secret)


def test_a_rollback_that_is_repeated_does_not_bring_back_what_it_left(bench):
    twice = Twice(bench, "access_key")
    assert outcome(twice.roll_back()) == "rolled_back"
    twice.refused("are those that a rollback left")
    assert outcome(twice.function.invoke(schedule())) == "not_due"
    assert bench.staged(twice.target) == twice.previous


def test_a_rotation_and_another_rollback_can_follow(bench):
    twice = Twice(bench, "temporary")
    assert outcome(twice.roll_back()) == "rolled_back"
    assert outcome(twice.function.invoke(schedule())) == "rotated"
    assert outcome(twice.roll_back()) == "rolled_back"
    assert bench.staged(twice.target) == twice.previous


def test_secrets_manager_can_rotate_after_a_rollback(bench):
    ai_secret = bench.ai_secret()
    steps = Steps(bench, bench.staged_target("access_key", ai_secret))
    steps.run()
    steps.begin()
    steps.run()
    previous = bench.staged(steps.target, "AWSPREVIOUS")
    assert outcome(steps.function.invoke(ROLLBACK)) == "rolled_back"
    assert bench.staged(steps.target) == previous
    assert "AWSPENDING" not in bench.stages(steps.target)
    steps.begin()
    steps.run()
    assert bench.holds_working_credentials(ai_secret)


def test_a_rehearsed_rollback_changes_nothing(bench):
    twice = Twice(bench, "access_key")
    before, stages = bench.braintrust.snapshot(), bench.stages(twice.target)
    result = twice.roll_back(dry_run=True)
    assert outcome(result) == "would_roll_back"
    assert result.body["targets"][0]["credential_id"] == twice.previous["credential_id"]
    assert bench.braintrust.snapshot() == before and bench.stages(twice.target) == stages


def test_what_cannot_be_gone_back_to_is_refused(bench):
    target = bench.staged_target("temporary", bench.ai_secret())
    result = bench.function(target).invoke(ROLLBACK)
    assert not result.ok and "no version AWSPREVIOUS holds credentials" in result.body["errorMessage"]
    result = bench.function(bench.target(bench.ai_secret())).invoke(ROLLBACK)
    assert not result.ok and "has no secret_id" in result.body["errorMessage"]
    twice = Twice(bench, "access_key")
    bench.lose(twice.target, twice.previous["credential_id"], "deleted")
    twice.refused("the previous credentials were deleted")
    twice = Twice(bench, "temporary")
    bench.put(twice.target, twice.current | {"expires_at": "2026-01-01T00:00:00Z"})
    bench.put(twice.target, twice.current | {"expires_at": "2099-01-01T00:00:00Z"})
    twice.refused("the previous credentials have ended")
    twice = Twice(bench, "access_key")
    bench.aws.begin_rotation(twice.target["secret_id"], str(uuid.uuid4()))
    twice.refused("a rotation is under way")


def test_a_rollback_names_its_targets(bench):
    target = bench.staged_target("temporary", bench.ai_secret())
    for event in ({"action": "rollback"}, {"action": "rollback", "targets": []}):
        result = bench.function(target).invoke(event)
        assert not result.ok and "has to name its targets" in result.body["errorMessage"]
    result = bench.function(target).invoke({**ROLLBACK, "force": True})
    assert not result.ok and "force" in json.dumps(result.body)


def test_a_rollback_that_fails_half_way_leaves_braintrust_with_what_stays_current(bench):
    half, other = bench.ai_secret("half"), bench.ai_secret("other")
    target = bench.staged_target("access_key", half)
    target["ai_secrets"].append({"id": other})
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    current = bench.staged(target)["credential_id"]
    bench.braintrust.fail(lambda request: request.method == "PATCH" and other in request.path, Answer(403))
    result = function.invoke(ROLLBACK)
    assert not result.ok and "The current credentials were put back" in result.body["errorMessage"]
    for _ in range(3):
        assert bench.braintrust.credentials(half)["access_key"] == current
        assert bench.holds_working_credentials(half) and bench.holds_working_credentials(other)
        assert outcome(function.invoke(schedule())) == "not_due"
    assert bench.listed(target) == {current: True}


def promotes(request):
    return request.call == "secretsmanager:UpdateSecretVersionStage" and b'"AWSCURRENT"' in request.body


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_whose_last_answer_was_lost_has_succeeded(bench, kind):
    twice = Twice(bench, kind)
    bench.aws.fail(promotes, DropAfter())
    assert outcome(twice.roll_back()) == "rolled_back"
    assert bench.staged(twice.target) == twice.previous
    assert bench.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)


@pytest.mark.parametrize("kind", STANDING)
def test_what_a_failed_rollback_left_with_braintrust_is_not_deleted(bench, kind):
    twice = Twice(bench, kind, overlap="0m")
    shown = twice.current.get("api_key") or twice.current["credential_id"]
    # The current credentials are bad, so that they cannot be put back.
    bench.aws.fail(lambda request: shown in request.headers.get("authorization", ""), FORBIDDEN, times=None)
    bench.aws.fail(promotes, Answer(403))
    result = twice.roll_back()
    assert not result.ok and "could not be put back: roll back again" in result.body["errorMessage"]
    assert bench.braintrust.credentials(twice.ai_secret)["secret"] == secret_of(twice.previous)
    listed = bench.listed(twice.target)
    assert listed[twice.previous["credential_id"]] and len(listed) == 2
    for event in (FORCED, schedule()):
        assert not twice.function.invoke(event).ok
        assert bench.listed(twice.target) == listed
    assert bench.holds_working_credentials(twice.ai_secret)
    assert outcome(twice.roll_back()) == "rolled_back"
    assert bench.holds_working_credentials(twice.ai_secret)
