"""Reads the history of a function's targets from CloudWatch, with the caller's own permissions."""

from datetime import UTC, timedelta

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from run_history import DAYS, MINUTE, Datapoints, Past, history, runs_within
from running_function import printable

# A run can't last longer, and the log may show its report at the time when it started.
LONGEST_RUN = timedelta(minutes=15)
# A metric counts a run when it has ended, by the function's clock, which may differ from that of CloudWatch.
CLOCKS_DIFFER = timedelta(minutes=1)
# One request asks for at most 500 metrics, and there are two for each target.
MOST_TARGETS = 250
# A target that is rotated every 20 minutes has about 1,000 datapoints of each metric, and a page holds 100,800.
MOST_PAGES_OF_METRICS = 10
# In total. A page takes a few tenths of a second.
MOST_PAGES_OF_LOGS = 30
# Reports are the only lines with this field. A report on many targets is several lines, each with some of the targets.
REPORTS = "{ $.dry_run IS FALSE }"
QUICK = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
SEE_POLICY = "docs/operate.md has the policy"


class UnreadError(Exception):
    """Why something could not be read."""


def read(function, names, now):
    if not function.has_metrics_per_target:
        return Past({}, ["history: unknown (MetricsPerTarget is false, so the targets have no metrics of their own)"])
    if len(names) > MOST_TARGETS:
        return Past({}, [f"history: unknown (there are more than {MOST_TARGETS} targets: name some with TARGETS=…)"])
    try:
        datapoints = _datapoints(function, names, now)
    except UnreadError as why:
        return Past({}, [f"history: unknown ({why})"])
    log, unknown = _Log(function), []
    try:
        log.read(set().union(*(found.unclear_minutes() for found in datapoints.values())))
    except UnreadError as why:
        unknown = [f"classes of failures: unknown ({why})"]
    histories = {name: history(found, log.runs(name, found.unclear_minutes())) for name, found in datapoints.items()}
    return Past(histories, unknown)


def _datapoints(function, names, now):
    """The datapoints of each target."""
    found = {name: Datapoints({}, {}) for name in names}
    queries = {}
    for number, name in enumerate(names):
        queries[f"s{number}"] = ("RotationSucceeded", name, found[name].succeeded)
        queries[f"f{number}"] = ("RotationFailed", name, found[name].failed)
    asked = {
        "MetricDataQueries": [_query(function, id, metric, name) for id, (metric, name, _) in queries.items()],
        "StartTime": now.replace(second=0, microsecond=0) - timedelta(days=DAYS),
        "EndTime": now + CLOCKS_DIFFER,
        "ScanBy": "TimestampDescending",
    }
    client, status = function.client("cloudwatch", QUICK), {}
    for page in _pages("cloudwatch:GetMetricData", client.get_metric_data, "NextToken", MOST_PAGES_OF_METRICS, asked):
        for result in page["MetricDataResults"]:
            status[result["Id"]] = result["StatusCode"]
            for time, count in zip(result["Timestamps"], result["Values"], strict=True):
                if count > 0:
                    queries[result["Id"]][2][time.astimezone(UTC)] = round(count)
    if bad := sorted(set(status.values()) - {"Complete"}):
        raise UnreadError(f"cloudwatch:GetMetricData answered {bad[0]}")
    return found


def _query(function, id, metric, name):
    dimensions = [{"Name": "FunctionName", "Value": function.name}, {"Name": "Target", "Value": name}]
    metric = {"Namespace": function.metrics_namespace, "MetricName": metric, "Dimensions": dimensions}
    return {"Id": id, "MetricStat": {"Metric": metric, "Period": int(MINUTE.total_seconds()), "Stat": "Sum"}}


class _Log:
    """The messages in the function's log, by the minute around which they were looked for."""

    def __init__(self, function):
        self.client, self.group = function.client("logs", QUICK), function.log_group
        self.messages, self.pages_left = {}, MOST_PAGES_OF_LOGS

    def read(self, minutes):
        """The log answers with the oldest lines first, so it is asked only about these minutes, the newest first."""
        for minute in sorted(minutes, reverse=True):
            begin, end = minute - LONGEST_RUN - CLOCKS_DIFFER, minute + MINUTE + CLOCKS_DIFFER
            asked = {
                "logGroupName": self.group,
                "filterPattern": REPORTS,
                "startTime": int(begin.timestamp() * 1000),
                "endTime": int(end.timestamp() * 1000),
            }
            found, call = [], self.client.filter_log_events
            for page in _pages("logs:FilterLogEvents", call, "nextToken", self.pages_left, asked):
                self.pages_left -= 1
                found += [event["message"] for event in page["events"]]
            self.messages[minute] = found

    def runs(self, name, minutes):
        """The runs of a target in each of these minutes, as far as the log was read."""
        return {
            minute: [run._replace(target=printable(run.target)) for run in runs_within(minute, messages, name)]
            for minute, messages in self.messages.items()
            if minute in minutes
        }


def _pages(permission, call, token, most, asked):
    """At most this many pages of an answer. Fails if there are more, because a part would be misleading."""
    for _ in range(most):
        try:
            page = call(**asked)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code.startswith("AccessDenied"):
                raise UnreadError(f"{permission} was denied: {SEE_POLICY}") from error
            raise UnreadError(f"{permission} answered {code}") from error
        except BotoCoreError as error:
            raise UnreadError(f"{permission} failed: {error}") from error
        yield page
        if not page.get(token):
            return
        asked = {**asked, token: page[token]}
    raise UnreadError(f"{permission} has more data than can be read in a short time: name some targets with TARGETS=…")
