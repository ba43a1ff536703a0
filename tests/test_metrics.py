"""CloudWatch's embedded metrics, as the function writes them into its log."""

import json

from test_crashes import schedule


def metrics(function):
    """The metric lines so far: each target's values by name."""
    lines = [json.loads(line) for line in function.logs() if line.startswith("{") and '"_aws"' in line]
    for line in lines:
        [declared] = line["_aws"]["CloudWatchMetrics"]
        assert declared["Namespace"] == "Rotations"
        assert all(metric["Name"] in line for metric in declared["Metrics"])
    return lines


def test_a_tick_writes_metrics_for_each_target_and_a_dry_run_none(bench):
    good, bad = bench.target(bench.ai_secret("good"), name="good"), bench.target("00000000-0000-0000-0000-000000000000", name="bad")
    function = bench.function(good, bad, METRICS_NAMESPACE="Rotations")
    function.invoke({"action": "rotate", "dry_run": True})
    function.invoke({"action": "status"})
    assert metrics(function) == []
    function.invoke(schedule())
    found = {line["Target"]: line for line in metrics(function)}
    assert (found["good"]["RotationSucceeded"], found["good"]["RotationFailed"]) == (1, 0)
    assert 3_500 < found["good"]["SecondsUntilExpiry"] <= 3_600 and found["good"]["CredentialAgeSeconds"] < 60
    assert (found["bad"]["RotationSucceeded"], found["bad"]["RotationFailed"]) == (0, 1)
    assert "SecondsUntilExpiry" not in found["bad"]


def test_a_failed_tick_tells_how_long_the_old_credentials_still_live(bench):
    ai_secret = bench.ai_secret()
    role = bench.stack.role(allow=[])
    function = bench.function(bench.target(ai_secret, role_arn=role), METRICS_NAMESPACE="Rotations")
    bench.braintrust.ai_secrets[ai_secret]["secret_updated_at"] = "2026-01-01T00:00:00Z"
    assert not function.invoke(schedule()).ok
    [line] = metrics(function)
    assert (line["RotationFailed"], line["SecondsUntilExpiry"]) == (1, 0)


def test_standing_credentials_that_are_not_due_still_tell_their_age(bench):
    target = bench.staged_target("long_term_api_key", bench.ai_secret())
    function = bench.function(target, METRICS_NAMESPACE="Rotations")
    assert function.invoke(schedule()).ok
    bench.age(target, days=3)
    assert function.invoke(schedule()).ok
    line = metrics(function)[-1]
    assert line["CredentialAgeSeconds"] >= 3 * 86_400 and line["SecondsUntilExpiry"] > 80 * 86_400
    assert "RotationSucceeded" not in line


def test_a_namespace_that_cloudwatch_would_refuse_is_refused(bench):
    result = bench.function(bench.target(bench.ai_secret()), METRICS_NAMESPACE="AWS/Lambda").invoke(schedule())
    assert not result.ok and "METRICS_NAMESPACE" in result.body["errorMessage"]
