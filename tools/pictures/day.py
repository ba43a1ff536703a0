"""A day of scheduled runs of the function on the local stack, in which one run and its retries fail."""

import json
from datetime import timedelta

from support.events import scheduled_run
from support.local_cloud import LocalCloud
from support.paths import MINISTACK
from support.world import World

from .hour import Hour
from .template import Template

MINUTES = 24 * 60
FAILS_FROM = 14 * 60  # the first run from this minute on fails
NOBODY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}]}


class Day:
    """What CloudWatch receives during the day.

    `series` has the values of each namespace and metric by the minute of the day, and `errors` the log lines with
    errors, each with its minute. The run at `fails_at` fails.
    """

    def __init__(self, template: Template):
        self.series: dict[tuple[str, str], dict[int, float]] = {}
        self.errors: list[tuple[int, str]] = []
        hour = Hour(template)
        self.fails_at = -(-FAILS_FROM // hour.interval) * hour.interval
        self.target, namespace = template.parameters["TargetName"], template.parameters["MetricsNamespace"]
        with LocalCloud(MINISTACK) as cloud:
            world = World(cloud, cloud.new_role())
            ai_secret, now, read = world.new_ai_secret(), 0, 0
            function = world.new_function(world.target(ai_secret, name=self.target), METRICS_NAMESPACE=namespace)
            for minute, event in _attempts(hour, world, self.fails_at):
                world.braintrust.let_time_pass(ai_secret, timedelta(minutes=minute - now))
                result, now = function.invoke(event), minute
                self._add("AWS/Lambda", minute, Invocations=1, Errors=int(not result.ok), Throttles=0)
                self._add("AWS/Lambda", minute, Duration=result.seconds * 1000)
                self._read(function.logs()[read:], minute)
                read = len(function.logs())
            world.stop()

    def _read(self, log, minute):
        for written in log:
            entry = json.loads(written)
            for declared in entry.get("_aws", {}).get("CloudWatchMetrics", []):
                values = {metric["Name"]: entry[metric["Name"]] for metric in declared["Metrics"]}
                self._add(declared["Namespace"], minute, **values)
            if entry.get("level") == "ERROR":
                self.errors.append((minute, written))

    def _add(self, namespace, minute, **values):
        for name, value in values.items():
            self.series.setdefault((namespace, name), {})[minute] = value


def _attempts(hour: Hour, world: World, fails_at: int):
    """Yields the minute and the event of each invocation. The role trusts nobody during those that fail."""
    iam, role = world.client("iam"), world.role.rpartition("/")[2]
    trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    for run in range(0, MINUTES, hour.interval):
        event, fails = scheduled_run(), run == fails_at
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(NOBODY if fails else trust))
        for delay in hour.attempts if fails else (0,):
            yield run + delay, event
