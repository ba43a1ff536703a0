"""The metrics that the function logs in CloudWatch's embedded metric format."""

import json
from datetime import timedelta

from support.events import scheduled_run


def metrics(function):
    """The metric lines so far, each with the values of one target by name."""
    lines = [json.loads(line) for line in function.logs() if line.startswith("{") and '"_aws"' in line]
    for line in lines:
        [declared] = line["_aws"]["CloudWatchMetrics"]
        assert declared["Namespace"] == "Rotations"
        assert all(metric["Name"] in line for metric in declared["Metrics"])
    return lines


def test_a_scheduled_run_writes_metrics_for_each_target_and_a_dry_run_writes_none(world):
    good, bad = (
        world.target(world.new_ai_secret("good"), name="good"),
        world.target("00000000-0000-0000-0000-000000000000", name="bad"),
    )
    function = world.new_function(good, bad, METRICS_NAMESPACE="Rotations")
    function.invoke({"action": "rotate", "dry_run": True})
    function.invoke({"action": "status"})
    assert metrics(function) == []
    function.invoke(scheduled_run())
    found = {line["Target"]: line for line in metrics(function)}
    assert (found["good"]["RotationSucceeded"], found["good"]["RotationFailed"]) == (1, 0)
    assert 3_500 < found["good"]["SecondsUntilExpiry"] <= 3_600 and found["good"]["CredentialAgeSeconds"] < 60
    assert (found["bad"]["RotationSucceeded"], found["bad"]["RotationFailed"]) == (0, 1)
    assert "SecondsUntilExpiry" not in found["bad"]


def test_a_failed_run_reports_how_long_the_previous_credentials_remain_valid(world):
    ai_secret = world.new_ai_secret()
    role = world.cloud.new_role(allow=[])
    function = world.new_function(world.target(ai_secret, role_arn=role), METRICS_NAMESPACE="Rotations")
    world.braintrust.ai_secrets[ai_secret]["secret_updated_at"] = "2026-01-01T00:00:00Z"
    assert not function.invoke(scheduled_run()).ok
    [line] = metrics(function)
    assert (line["RotationFailed"], line["SecondsUntilExpiry"]) == (1, 0)


def test_the_age_of_user_based_credentials_is_reported_when_no_rotation_is_due(world):
    target = world.new_staged_target("long_term_api_key", world.new_ai_secret())
    function = world.new_function(target, METRICS_NAMESPACE="Rotations")
    assert function.invoke(scheduled_run()).ok
    world.age_credentials(target, timedelta(days=3))
    assert function.invoke(scheduled_run()).ok
    line = metrics(function)[-1]
    assert line["CredentialAgeSeconds"] >= 3 * 86_400 and line["SecondsUntilExpiry"] > 80 * 86_400
    assert "RotationSucceeded" not in line


def test_without_metrics_of_each_target_a_run_writes_one_line_with_totals_and_names_the_worst_targets(world):
    names = ("one", "two", "bad")
    ids = [world.new_ai_secret("one"), world.new_ai_secret("two"), "00000000-0000-0000-0000-000000000000"]
    targets = [world.target(id, name=name) for id, name in zip(ids, names, strict=True)]
    function = world.new_function(*targets, METRICS_NAMESPACE="Rotations", METRICS_PER_TARGET="false")
    function.invoke({"action": "rotate", "dry_run": True})
    assert metrics(function) == []
    assert not function.invoke(scheduled_run()).ok
    [line] = metrics(function)
    assert (line["RotationSucceeded"], line["RotationFailed"]) == (2, 1)
    assert 3_500 < line["SecondsUntilExpiry"] <= 3_600 and line["CredentialAgeSeconds"] < 60
    [declared] = line["_aws"]["CloudWatchMetrics"]
    assert declared["Dimensions"] == [["FunctionName"]] and "Target" not in line
    worst = line["WorstTargets"]
    assert set(worst) == {"RotationDuration", "SecondsUntilExpiry", "CredentialAgeSeconds"}
    assert worst["SecondsUntilExpiry"] in ("one", "two")
    world.braintrust.let_time_pass(ids[0], timedelta(minutes=50))
    assert function.invoke({"action": "rotate", "targets": ["two"]}).ok
    assert metrics(function)[-1]["RotationSucceeded"] == 1


def test_a_namespace_that_cloudwatch_would_refuse_is_refused(world):
    result = world.new_function(world.target(world.new_ai_secret()), METRICS_NAMESPACE="AWS/Lambda").invoke(
        scheduled_run()
    )
    assert not result.ok and "METRICS_NAMESPACE" in result.body["errorMessage"]
