"""Evaluates CloudWatch alarms, minute by minute."""

STATISTICS = {"Sum": sum, "Minimum": min, "Maximum": max, "SampleCount": len}
COMPARISONS = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


def minutes_on(alarm: dict, datapoints: dict[int, list[float]], until: int) -> list[int]:
    """The minutes, from 0 to `until`, at which the alarm is on.

    `alarm` has its properties in CloudFormation, and `datapoints` the values that the metric received in each minute.
    They begin early enough to fill the alarm's periods at minute 0. The alarm is evaluated at the end of each period.
    """
    length, count = int(alarm["Period"]) // 60, int(alarm["EvaluationPeriods"])
    needed = int(alarm.get("DatapointsToAlarm", count))
    found, is_on = [], False
    for minute in range(until + 1):
        if minute % length == 0:
            ends = range(minute, minute - count * length, -length)
            periods = [_breaches(alarm, datapoints, range(end - length, end)) for end in ends]
            if alarm["TreatMissingData"] != "ignore" or any(period is not None for period in periods):
                missing = alarm["TreatMissingData"] == "breaching"
                is_on = sum(missing if period is None else period for period in periods) >= needed
        if is_on:
            found.append(minute)
    return found


def _breaches(alarm, datapoints, minutes):
    """Whether the period's value breaches the threshold; None if the period has no data."""
    values = [value for minute in minutes for value in datapoints.get(minute, [])]
    if not values:
        return None
    return COMPARISONS[alarm["ComparisonOperator"]](STATISTICS[alarm["Statistic"]](values), float(alarm["Threshold"]))
