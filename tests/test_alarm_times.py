"""Alarms go off while there is time to act, and only then."""

import json

import pytest
from support.alarm_evaluation import Point, first_time_on
from support.deployed_alarms import NAMESPACE, alarms_of
from support.events import scheduled_run
from support.paths import ROOT

RUNBOOK = (ROOT / "docs/runbook.md").read_text()
MINUTE = 60
LIFETIME = 3600  # of role-based credentials
TIMEOUT = 300  # the default of TimeoutSeconds
QUICK = 2
SPREAD = 300  # the most that SpreadSeconds accepts
# Lambda waits for these minutes before it retries a failed event.
RETRIES = (1, 2)


@pytest.fixture(scope="module")
def found():
    """What the tests of this file share."""
    return {}


@pytest.fixture
def alarms(world, deployed, found):
    """The alarms of a stack with these parameters."""

    def alarms(**parameters):
        key = str(sorted(parameters.items()))
        if key not in found:
            found[key] = alarms_of(world, deployed(world.new_ai_secret(), **parameters))
        return found[key]

    return alarms


@pytest.fixture(params=["true", "false"], ids=["metrics-of-each-target", "metrics-of-all-together"])
def lines(world, found, request):
    """The metrics that the function logs when a rotation succeeds, and when its role refuses it afterwards."""
    key = f"lines {request.param}"
    if key not in found:
        role = world.cloud.new_role()
        target = world.target(world.new_ai_secret(), role_arn=role)
        function = world.new_function(target, METRICS_PER_TARGET=request.param)
        assert function.invoke(scheduled_run()).ok
        world.client("iam").update_assume_role_policy(
            RoleName=role.rpartition("/")[2], PolicyDocument=json.dumps(nobody_trusted())
        )
        assert not function.invoke(scheduled_run()).ok
        succeeded, failed = (json.loads(line) for line in function.logs() if '"_aws"' in line)
        found[key] = {"succeeded": succeeded, "failed": failed}
    return found[key]


def nobody_trusted():
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }


class Hours:
    """The metrics of a schedule: healthy until the run at second 0, which is the last one that succeeds."""

    def __init__(self, lines, interval, duration=QUICK):
        self.lines, self.interval, self.duration, self.points = lines, interval * MINUTE, duration, []
        for run in range(-12, 1):
            self.succeed(run * self.interval)

    def succeed(self, at):
        self.issued_at = at + self.duration
        self._lambda("Errors", at, 0, self.duration)
        self._logged("succeeded", at + self.duration)

    def fail(self, at, duration=QUICK, is_logged=True):
        self._lambda("Errors", at, 1, duration)
        if is_logged:
            self._logged("failed", at + duration)

    def throttle(self, at):
        self._lambda("Throttles", at, 1, 0)

    def _lambda(self, metric, at, value, duration):
        """Lambda gives its metrics the time at which the invocation began, and sends them at its end."""
        self.points.append(Point("AWS/Lambda", metric, at, value, at + duration))

    def _logged(self, outcome, at):
        """A line as the function logs it, at another time: the credentials in Braintrust are older or newer then."""
        line = dict(self.lines[outcome])
        line["CredentialAgeSeconds"] = at - self.issued_at
        line["SecondsUntilExpiry"] = max(0, self.issued_at + LIFETIME - at)
        [declared] = line["_aws"]["CloudWatchMetrics"]
        assert ["FunctionName"] in declared["Dimensions"]
        for metric in declared["Metrics"]:
            self.points.append(Point(declared["Namespace"], metric["Name"], at, line[metric["Name"]], at))


def failing_runs(hours, duration, is_logged):
    for at in range(hours.interval, 3 * hours.interval, hours.interval):
        hours.fail(at, duration, is_logged)
        for wait in RETRIES:
            at += duration + wait * MINUTE
            hours.fail(at, duration, is_logged)


def the_role_refuses_the_function(hours):
    failing_runs(hours, QUICK, is_logged=True)


def the_function_crashes(hours):
    failing_runs(hours, QUICK, is_logged=False)


def the_function_times_out(hours):
    failing_runs(hours, TIMEOUT, is_logged=False)


def the_rule_is_disabled(_hours):
    pass


def the_concurrency_is_used_up(hours):
    """Lambda tries again after a second, and then ever later, up to five minutes."""
    for at in range(hours.interval, 3 * hours.interval, hours.interval):
        wait, end = 1, at + 30 * MINUTE
        while at < end:
            hours.throttle(at)
            at, wait = at + wait, min(2 * wait, 5 * MINUTE)


# What can fail, the first alarm that says so, and how many minutes before the credentials expire.
EVERYTHING = {
    the_role_refuses_the_function: ("ErrorsAlarm", 36),
    the_function_crashes: ("ErrorsAlarm", 36),
    the_function_times_out: ("ErrorsAlarm", 27),
    the_rule_is_disabled: ("NoSuccessAlarm", 26),
    the_concurrency_is_used_up: ("NoSuccessAlarm", 26),
}


def minutes_left(alarms, hours):
    """How many minutes before the credentials expire each alarm goes off."""
    times = {
        name: first_time_on(alarm, hours.points, 0, LIFETIME)
        for name, alarm in alarms.items()
        if name != "FailureQueueAlarm"  # the queue's metric isn't simulated
    }
    return {name: (LIFETIME - at) / MINUTE for name, at in times.items() if at is not None}


@pytest.mark.parametrize("failure", EVERYTHING)
def test_a_failing_schedule_is_seen_25_minutes_before_the_credentials_expire(alarms, lines, failure):
    hours = Hours(lines, interval=20)
    failure(hours)
    left = minutes_left(alarms(), hours)
    first, minutes = EVERYTHING[failure]
    assert left[first] == max(left.values()) == minutes >= 25, left
    assert f"| {failure.__name__.replace('_', ' ')} | `{first}` | {minutes} |" in RUNBOOK


@pytest.mark.parametrize("failure", [the_role_refuses_the_function, the_function_crashes])
def test_a_run_that_fails_is_seen_25_minutes_before_with_half_the_lifetime_as_interval_too(alarms, lines, failure):
    hours = Hours(lines, interval=30)
    failure(hours)
    left = minutes_left(alarms(ScheduleExpression="rate(30 minutes)", AlarmAfterMinutes="45"), hours)
    assert left["ErrorsAlarm"] >= 25, left


def test_expiry_alarm_goes_off_when_two_scheduled_runs_have_failed(alarms, lines):
    hours = Hours(lines, interval=20)
    the_role_refuses_the_function(hours)
    left = minutes_left(alarms(), hours)
    assert 15 <= left["ExpiryAlarm"] < 20, left


def test_no_alarm_goes_off_while_every_run_succeeds_at_its_first_or_second_attempt(alarms, lines):
    hours = Hours(lines, interval=20)
    for run in range(1, 6):
        at = run * hours.interval
        if run == 2:
            hours.fail(at)
            at += QUICK + MINUTE
        hours.succeed(at)
    for name, alarm in alarms().items():
        assert first_time_on(alarm, hours.points, 0, 5 * hours.interval) is None, name


def test_the_alarm_on_missing_success_stays_off_if_a_run_succeeds_at_its_last_attempt(alarms, lines):
    hours = Hours(lines, interval=20)
    hours.fail(hours.interval)
    hours.fail(hours.interval + MINUTE)
    hours.succeed(hours.interval + 3 * MINUTE)
    found = alarms()
    assert first_time_on(found["NoSuccessAlarm"], hours.points, 0, 2 * hours.interval) is None
    assert first_time_on(found["ErrorsAlarm"], hours.points, 0, 2 * hours.interval) is not None


@pytest.mark.parametrize("minutes, goes_off", [(45, False), (30, True)])
def test_with_a_spread_the_alarm_on_missing_success_needs_three_times_as_much_more(alarms, lines, minutes, goes_off):
    """45 minutes is the default plus three times the spread."""
    hours = Hours(lines, interval=20, duration=SPREAD + QUICK)
    at = hours.interval
    for wait in RETRIES:
        hours.fail(at, hours.duration)
        at += hours.duration + wait * MINUTE
    hours.succeed(at)
    given = {"SpreadSeconds": str(SPREAD), "TimeoutSeconds": "900", "AlarmAfterMinutes": str(minutes)}
    on = first_time_on(alarms(**given)["NoSuccessAlarm"], hours.points, 0, 3 * hours.interval)
    assert (on is not None) == goes_off


def test_the_lines_of_the_function_are_those_that_the_alarms_watch(alarms, lines):
    """Otherwise the other tests would go through metrics that no alarm sees."""
    watched = {alarm["MetricName"] for alarm in alarms().values() if alarm["Namespace"] == NAMESPACE}
    for line in lines.values():
        [declared] = line["_aws"]["CloudWatchMetrics"]
        assert declared["Namespace"] == NAMESPACE
        assert watched <= {metric["Name"] for metric in declared["Metrics"]}
