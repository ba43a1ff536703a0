"""What ministack lacks of CloudWatch: the metrics in log lines, and the filter patterns that ask for a boolean.

Lines in the embedded metric format become metrics, as in AWS. This runs in ministack's own Python environment.
"""

import json
import re

from ministack.services import cloudwatch, cloudwatch_logs

_BOOLEAN = re.compile(r"\{\s*\$\.(\w+)\s+IS\s+(TRUE|FALSE)\s*\}")
_append = cloudwatch_logs._append_log_events
_compile = cloudwatch_logs._compile_filter_pattern


def install():
    cloudwatch_logs._append_log_events = _append_and_measure
    cloudwatch_logs._compile_filter_pattern = _compile_boolean


def _append_and_measure(stream, events):
    _append(stream, events)
    for line in map(_object, (event["message"] for event in events)):
        if "_aws" in line:
            _measure(line)


def _measure(line):
    for declared in line["_aws"]["CloudWatchMetrics"]:
        for names in declared["Dimensions"]:
            dimensions = {name: line[name] for name in names}
            for metric in declared["Metrics"]:
                key = (declared["Namespace"], metric["Name"], cloudwatch._dims_key(dimensions))
                cloudwatch._metric_bucket(key).append(
                    {
                        "Timestamp": line["_aws"]["Timestamp"] / 1000,
                        "Value": float(line[metric["Name"]]),
                        "Unit": metric["Unit"],
                        "Dimensions": dimensions,
                    }
                )


def _compile_boolean(pattern):
    found = _BOOLEAN.fullmatch(pattern or "")
    if not found:
        return _compile(pattern)
    name, wanted = found[1], found[2] == "TRUE"
    return lambda message: _object(message).get(name) is wanted


def _object(message):
    try:
        line = json.loads(message)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
