"""When CloudWatch would set off an alarm, given the metrics of some hours.

<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html> describes the evaluation.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

# CloudWatch evaluates an alarm with a period of a minute or more every minute.
_EVERY = 60
# How long metrics take until alarms see them. AWS gives no figure; Lambda's metrics usually take one to two minutes.
_DELAY = 120
# If data are missing, CloudWatch looks for them in earlier periods, too. AWS doesn't say in how many: its examples have
# an evaluation range of five periods for three evaluation periods.
_EARLIER_PERIODS = 3
_STATISTICS = {"Sum": sum, "Minimum": min, "Maximum": max, "SampleCount": len}
_COMPARISONS = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
}


@dataclass(frozen=True)
class Point:
    """A value of a metric: what it's about, and when it was sent. Times are in seconds."""

    namespace: str
    metric: str
    at: float
    value: float
    sent_at: float


def first_time_on(alarm: dict, points: list[Point], since: int, until: int) -> int | None:
    """The first second of the time span at which this alarm (as DescribeAlarms returns it) is on; None if never."""
    watched = [p for p in points if (p.namespace, p.metric) == (alarm["Namespace"], alarm["MetricName"])]
    is_on = False
    for now in range(since, until, _EVERY):
        is_on = _is_on(alarm, watched, now, is_on)
        if is_on:
            return now
    return None


def _is_on(alarm, points, now, was_on):
    found = _breaching(alarm, points, now)
    if not found and alarm["TreatMissingData"] == "ignore":
        return was_on
    needed = alarm["EvaluationPeriods"]
    breaching = sum(found[:needed])
    if alarm["TreatMissingData"] == "breaching":
        breaching += max(0, needed - len(found))
    return breaching >= alarm.get("DatapointsToAlarm", needed)


def _breaching(alarm, points, now):
    """Whether each period of the evaluation range that has data breaches the threshold, the newest first."""
    period, values = alarm["Period"], defaultdict(list)
    last = math.floor(now / period)
    for point in points:
        if point.sent_at + _DELAY <= now:
            values[math.floor(point.at / period)].append(point.value)
    statistic, breaches = _STATISTICS[alarm["Statistic"]], _COMPARISONS[alarm["ComparisonOperator"]]
    first = last - alarm["EvaluationPeriods"] - _EARLIER_PERIODS
    return [
        breaches(statistic(values[index]), alarm["Threshold"])
        for index in range(last - 1, first - 1, -1)
        if index in values
    ]
