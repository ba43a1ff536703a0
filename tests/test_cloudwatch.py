"""How `make status` reads CloudWatch: in a limited number of pages, and also without the permissions."""

import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
import cloudwatch  # noqa: E402

NOW = datetime(2026, 1, 10, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def ago(minutes):
    return NOW.replace(second=0) - minutes * MINUTE


class CloudWatch:
    """A function's metrics and log. A page has one metric, or one event."""

    def __init__(self, metrics=None, log=()):
        self.name, self.log_group, self.metrics_namespace = "rotator", "/aws/lambda/rotator", "Rotations"
        self.has_metrics_per_target = True
        self.metrics, self.log = metrics or {}, log
        self.asked, self.status, self.error = [], "Complete", {}

    def client(self, service, _config):
        return SimpleNamespace(get_metric_data=self.get_metric_data, filter_log_events=self.filter_log_events)

    def get_metric_data(self, MetricDataQueries, StartTime, EndTime, ScanBy, NextToken="0"):
        self._called("GetMetricData", len(MetricDataQueries))
        place = int(NextToken)
        query = MetricDataQueries[place]
        metric = query["MetricStat"]["Metric"]
        values = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        assert (metric["Namespace"], values["FunctionName"]) == ("Rotations", "rotator")
        found = self.metrics.get((values["Target"], metric["MetricName"]), {})
        found = {time: count for time, count in found.items() if StartTime <= time < EndTime}
        result = {"Id": query["Id"], "StatusCode": self.status, "Timestamps": [*found], "Values": [*found.values()]}
        more = {"NextToken": str(place + 1)} if place + 1 < len(MetricDataQueries) else {}
        return {"MetricDataResults": [result], **more}

    def filter_log_events(self, logGroupName, filterPattern, startTime, endTime, nextToken="0"):
        self._called("FilterLogEvents", (startTime, endTime))
        assert (logGroupName, filterPattern) == (self.log_group, cloudwatch.REPORTS)
        found = [message for time, message in self.log if startTime <= time.timestamp() * 1000 <= endTime]
        place = int(nextToken)
        more = {"nextToken": str(place + 1)} if place + 1 < len(found) else {}
        return {"events": [{"message": message} for message in found[place : place + 1]], **more}

    def calls(self, name):
        return [about for call, about in self.asked if call == name]

    def _called(self, call, about):
        self.asked.append((call, about))
        if call in self.error:
            raise self.error[call]


def refusal(code, call="GetMetricData"):
    return ClientError({"Error": {"Code": code}}, call)


def failed_report(ended, name="prod", problem="answered AccessDenied"):
    """A line of the log with the time at which it was written."""
    error = {"class": "permission", "service": "sts", "call": "AssumeRole", "problem": problem}
    target = {"name": name, "outcome": "failed", "error": error}
    started = (ended - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    report = {"dry_run": False, "started_at": started, "duration_ms": 1000, "targets": [target]}
    return ended, json.dumps(report)


def failing(*names):
    """Each target succeeded once, and failed after that; the first one most recently."""
    metrics, log = {}, []
    for number, name in enumerate(names):
        at = ago(60 * number + 20)
        metrics[name, "RotationSucceeded"] = {at: 0, at - 20 * MINUTE: 1.0}
        metrics[name, "RotationFailed"] = {at: 1.0, at - 20 * MINUTE: 0}
        log.append(failed_report(at + timedelta(seconds=30), name))
    return CloudWatch(metrics, log)


def test_all_pages_of_the_metrics_are_read_and_the_log_only_around_each_last_failure():
    function = failing("a", "b", "c")
    past = cloudwatch.read(function, ["a", "b", "c", "new"], NOW)
    assert past.unknown == []
    for name, minutes in (("a", 20), ("b", 80), ("c", 140)):
        found = past.histories[name]
        assert (found.last_success, found.failed) == (ago(minutes + 20), 1)
        assert found.last_failure == ago(minutes) + timedelta(seconds=30)
        assert found.failure["error"]["class"] == "permission"
    assert past.histories["new"] == (None, None, 0, False, None)
    assert function.calls("GetMetricData") == [8] * 8
    windows = function.calls("FilterLogEvents")
    assert len(windows) == 3 and windows == sorted(windows, reverse=True)
    assert all(end - begin < 20 * 60_000 for begin, end in windows)


def test_targets_that_failed_in_the_same_minute_share_the_log():
    metrics = {(name, "RotationFailed"): {ago(5): 1} for name in "ab"}
    function = CloudWatch(metrics, [failed_report(ago(5), "a"), failed_report(ago(5), "b")])
    past = cloudwatch.read(function, ["a", "b"], NOW)
    assert all(past.histories[name].failure for name in "ab")
    assert len(function.calls("FilterLogEvents")) == 2  # the pages of one window


def test_the_log_tells_the_order_within_the_minute_of_the_last_success_too():
    success, failure = ago(10), ago(8)
    metrics = {("prod", "RotationSucceeded"): {success: 1}, ("prod", "RotationFailed"): {success: 2, failure: 1}}
    rotated = {"name": "prod", "outcome": "rotated"}
    report = {"dry_run": False, "started_at": f"{success:%Y-%m-%dT%H:%M:20Z}", "duration_ms": 1000, "targets": [rotated]}
    log = [
        failed_report(success + timedelta(seconds=10)),
        (success + timedelta(seconds=21), json.dumps(report)),
        failed_report(success + timedelta(seconds=40)),
        failed_report(failure),
    ]
    found = cloudwatch.read(CloudWatch(metrics, log), ["prod"], NOW).histories["prod"]
    assert (found.failed, found.is_unordered) == (2, False)


def test_the_log_is_not_read_if_nothing_failed():
    function = CloudWatch({("prod", "RotationSucceeded"): {ago(5): 1}})
    assert cloudwatch.read(function, ["prod"], NOW).histories["prod"].failed == 0
    assert function.calls("FilterLogEvents") == []


def test_older_datapoints_are_not_asked_for():
    function = CloudWatch({("prod", "RotationFailed"): {NOW - timedelta(days=cloudwatch.DAYS + 1): 1}})
    assert cloudwatch.read(function, ["prod"], NOW).histories["prod"].last_failure is None


@pytest.mark.parametrize(
    "error, reason",
    [
        (refusal("AccessDenied"), "cloudwatch:GetMetricData was denied"),
        (refusal("AccessDeniedException"), "cloudwatch:GetMetricData was denied"),
        (refusal("Throttling"), "cloudwatch:GetMetricData answered Throttling"),
        (EndpointConnectionError(endpoint_url="https://x"), "cloudwatch:GetMetricData failed: Could not connect"),
    ],
)
def test_without_the_metrics_nothing_is_claimed(error, reason):
    function = failing("prod")
    function.error = {"GetMetricData": error}
    past = cloudwatch.read(function, ["prod"], NOW)
    [line] = past.unknown
    assert past.histories == {} and line.startswith(f"history: unknown ({reason}")
    assert function.calls("FilterLogEvents") == []


@pytest.mark.parametrize("status", ["InternalError", "Forbidden", "PartialData"])
def test_metrics_that_are_incomplete_are_not_used(status):
    function = failing("prod")
    function.status = status
    past = cloudwatch.read(function, ["prod"], NOW)
    assert past == ({}, [f"history: unknown (cloudwatch:GetMetricData answered {status})"])


def test_without_the_log_the_times_and_the_count_are_known():
    function = failing("prod")
    function.error = {"FilterLogEvents": refusal("AccessDeniedException", "FilterLogEvents")}
    past = cloudwatch.read(function, ["prod"], NOW)
    [line] = past.unknown
    assert line.startswith("classes of failures: unknown (logs:FilterLogEvents was denied")
    assert past.histories["prod"] == (ago(40), ago(20), 1, False, None)


def test_metrics_of_more_pages_than_the_limit_are_not_used(monkeypatch):
    monkeypatch.setattr(cloudwatch, "MOST_PAGES_OF_METRICS", 3)
    function = failing("a", "b")
    past = cloudwatch.read(function, ["a", "b"], NOW)
    assert past.histories == {} and "TARGETS=" in past.unknown[0]
    assert len(function.calls("GetMetricData")) == 3


def test_the_pages_of_the_log_are_limited_in_all_and_the_newest_failures_come_first(monkeypatch):
    monkeypatch.setattr(cloudwatch, "MOST_PAGES_OF_LOGS", 2)
    function = failing("a", "b", "c")
    past = cloudwatch.read(function, ["a", "b", "c"], NOW)
    assert [bool(past.histories[name].failure) for name in "abc"] == [True, True, False]
    assert past.histories["c"].failed == 1
    assert "TARGETS=" in past.unknown[0] and len(function.calls("FilterLogEvents")) == 2


def test_more_targets_than_one_request_takes_must_be_named():
    function = CloudWatch()
    past = cloudwatch.read(function, [f"t{number}" for number in range(cloudwatch.MOST_TARGETS + 1)], NOW)
    assert past.histories == {} and "TARGETS=" in past.unknown[0] and function.asked == []
    cloudwatch.read(function, ["t"] * cloudwatch.MOST_TARGETS, NOW)
    assert function.calls("GetMetricData")[0] == 500


def test_without_metrics_of_the_targets_nothing_is_claimed_or_asked():
    function = failing("prod")
    function.has_metrics_per_target = False
    past = cloudwatch.read(function, ["prod"], NOW)
    assert past.histories == {} and "MetricsPerTarget" in past.unknown[0] and function.asked == []


def test_a_failure_is_found_in_any_part_of_a_report():
    function = failing("a", "b")
    at, part = failed_report(ago(20) + timedelta(seconds=30), "other")
    function.log = [(at, part), *function.log, (at, part)]
    past = cloudwatch.read(function, ["a", "b"], NOW)
    assert all(past.histories[name].failure["name"] == name for name in "ab")


def test_the_log_is_shown_without_characters_that_control_a_terminal():
    function = failing("prod")
    function.log = [failed_report(ago(20), problem="\x1b[2J")]
    failure = cloudwatch.read(function, ["prod"], NOW).histories["prod"].failure
    assert failure["error"]["problem"] == "\ufffd[2J"
