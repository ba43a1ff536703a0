"""The action `status`: what there is, told without changing it."""

import json

import pytest
from test_crashes import KINDS, STANDING, schedule
from test_staged import outcome

STATUS = {"action": "status"}


def status(function, **options):
    """The one target's status; the invocation itself never fails because of it."""
    result = function.invoke({**STATUS, **options})
    assert result.ok, result.body
    [target] = result.body["targets"]
    assert result.body["ok"] == (target["state"] == "ok")
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_the_status_of_a_rotated_target_is_ok_and_nothing_is_changed_by_asking(bench, kind):
    target = bench.staged_target(kind, bench.ai_secret())
    function = bench.function(target)
    assert status(function)["state"] == "never_rotated"
    assert outcome(function.invoke(schedule())) == "rotated"
    held = bench.staged(target)
    before, stages, listed = bench.braintrust.snapshot(), bench.stages(target), bench.listed(target)
    found = status(function)
    assert (found["state"], found["kind"], found["credential_id"]) == ("ok", kind, held["credential_id"])
    # An API key does not read back.
    assert found["ai_secrets"][0].get("holds_current") is (None if kind.endswith("api_key") else True)
    assert 0 <= found["age_seconds"] < 60
    assert found.get("expires_at") == held.get("expires_at")
    assert found["rotated_by"] == "schedule"
    assert (found["next_rotation"] == "next_tick") == (kind not in STANDING)
    assert (bench.braintrust.snapshot(), bench.stages(target), bench.listed(target)) == (before, stages, listed)


def test_without_a_staged_secret_braintrust_tells_what_there_is(bench):
    ai_secret = bench.ai_secret()
    function = bench.function(bench.target(ai_secret))
    report = function.invoke({"action": "rotate"}).body["targets"][0]
    found = status(function)
    assert (found["state"], found["credential_id"]) == ("ok", report["credential_id"])
    assert found["expires_at"][:16] >= report["expires_at"][:16]
    assert "holds_current" not in found["ai_secrets"][0]
    bench.braintrust.ai_secrets[ai_secret]["secret_updated_at"] = "2026-01-01T00:00:00Z"
    assert status(function)["state"] == "expired"


@pytest.mark.parametrize("kind", ["temporary", "short_term_api_key"])
def test_without_a_staged_secret_an_older_data_plane_tells_too_little(bench, kind):
    bench.braintrust.older_data_plane = True
    function = bench.function(bench.target(bench.ai_secret(), kind=kind))
    assert function.invoke({"action": "rotate"}).ok
    found = status(function)
    assert found["state"] == "unknown" and "error" not in found


def test_an_ai_secret_that_somebody_else_changed_is_out_of_step(bench):
    ai_secret = bench.ai_secret()
    target = bench.staged_target("access_key", ai_secret)
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] = "AKIASOMEBODYELSES000"
    found = status(function)
    assert found["state"] == "out_of_step"
    assert found["ai_secrets"][0]["access_key_id"] == "AKIASOMEBODYELSES000"


def test_standing_credentials_in_the_place_of_temporary_ones_are_out_of_step(bench):
    ai_secret = bench.ai_secret()
    function = bench.function(bench.target(ai_secret))
    assert outcome(function.invoke(schedule())) == "rotated"
    assert status(function)["state"] == "ok"
    bench.braintrust.ai_secrets[ai_secret]["metadata"]["access_key"] = "AKIASOMEBODYELSES000"
    assert status(function)["state"] == "out_of_step"


def test_credentials_that_nobody_rotated_for_long_are_overdue(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.age(target)
    found = status(function)
    assert (found["state"], found["next_rotation"]) == ("overdue", "next_tick")


def test_a_rotation_by_secrets_manager_and_one_that_is_under_way_are_told(bench):
    target = bench.staged_target("access_key", bench.ai_secret())
    function = bench.function(target)
    assert outcome(function.invoke(schedule())) == "rotated"
    bench.aws.begin_rotation(target["secret_id"], "0" * 36)
    found = status(function)
    assert (found["rotated_by"], found["rotation_under_way"]) == ("secrets_manager", True)


def test_what_cannot_be_read_is_told_with_its_remedy(bench):
    gone = bench.staged_target("access_key", bench.ai_secret(), secret_id="gone")
    found = status(bench.function(gone))
    assert found["state"] == "unknown" and found["error"]["class"] == "not_found"
    refused = bench.ai_secret("x", type="openai")
    found = status(bench.function(bench.target(refused)))
    assert found["state"] == "unknown" and found["error"]["class"] == "conflict"


def test_a_status_can_name_its_targets_and_shows_no_secret(bench):
    one, two = bench.target(bench.ai_secret("one"), name="one"), bench.target(bench.ai_secret("two"), name="two")
    function = bench.function(one, two)
    result = function.invoke({**STATUS, "targets": ["two"]})
    assert [target["name"] for target in result.body["targets"]] == ["two"]
    assert "old-secret" not in json.dumps(result.body) and "old-token" not in json.dumps(result.body)
    for field in ("force", "dry_run"):
        assert not function.invoke({**STATUS, field: True}).ok
