"""What the metrics and the logged reports say about the runs of a target. Everything here is pure.

A metric's datapoint covers one minute. The reports that ended within such a minute say more: how a run failed, and
which of two runs in the same minute was the last one.
"""

import json
from datetime import datetime, timedelta
from typing import NamedTuple

# CloudWatch keeps datapoints of one minute for 15 days.
DAYS = 14
MINUTE = timedelta(minutes=1)
# A report has the time when its run started, in whole seconds, and the metrics have the time when it ended.
IMPRECISION = timedelta(seconds=2)
# As the metrics count them.
SUCCEEDED, FAILED = ("rotated", "resumed", "revoked", "replaced", "uses_assume_role"), ("failed", "deferred")


class Datapoints(NamedTuple):
    """How many runs of a target succeeded and failed, by the minute in which they ended."""

    succeeded: dict
    failed: dict

    def last_success(self):
        return max(self.succeeded, default=None)

    def last_failure(self):
        return max(self.failed, default=None)

    def unclear_minutes(self):
        """The minutes about which the log says more than the metrics."""
        success = self.last_success()
        return {minute for minute in (self.last_failure(), success if success in self.failed else None) if minute}


class Run(NamedTuple):
    """A target's run as its report tells it."""

    ended: datetime
    target: dict
    succeeded: bool


class History(NamedTuple):
    last_success: datetime | None  # the minute
    last_failure: datetime | None  # the minute, or the second if the failure is known
    failed: int  # runs since the last success, or since the metrics begin
    is_unordered: bool  # whether others failed in the minute of the last success, before or after it
    failure: dict | None  # the target's part of the report on the last failure

    def is_failing(self):
        """Whether the last run may have failed."""
        return self.failed > 0 or self.is_unordered


class Past(NamedTuple):
    """What could be read: the histories by target, and why the rest could not be read."""

    histories: dict
    unknown: list


def history(datapoints, runs):
    """`runs` has those of the unclear minutes, in their order, as far as the log could be read."""
    success, failure = datapoints.last_success(), datapoints.last_failure()
    later = sum(count for minute, count in datapoints.failed.items() if not success or minute > success)
    same_minute = _failed_after_success(runs.get(success, [])) if success in datapoints.failed else 0
    last = next((run for run in reversed(runs.get(failure, [])) if not run.succeeded), None)
    return History(
        last_success=success,
        last_failure=last.ended if last else failure,
        failed=later + (same_minute or 0),
        is_unordered=same_minute is None,
        failure=last.target if last else None,
    )


def _failed_after_success(runs):
    """How many runs failed after the last one that succeeded. None if the log lacks that one."""
    successes = [place for place, run in enumerate(runs) if run.succeeded]
    return len(runs) - 1 - successes[-1] if successes else None


def runs_within(minute, messages, name):
    """The runs of one target that ended within a minute, in the order of the log's messages."""
    runs = (run for message in messages if (run := _run(message, name)))
    return [run for run in runs if minute - IMPRECISION <= run.ended < minute + MINUTE]


def _run(message, name):
    """The run that a line of the log reports on, or None."""
    try:
        report = json.loads(message)
        if report["dry_run"]:
            return None
        started = datetime.fromisoformat(report["started_at"])
        ended = started + timedelta(milliseconds=report["duration_ms"])
        target = next(target for target in report["targets"] if target["name"] == name)
        done = target["outcome"]
    except (ValueError, TypeError, KeyError, StopIteration):
        return None
    if done in FAILED:
        return Run(ended, target, succeeded=False)
    finished = done == "step_done" and report.get("step") == "finishSecret"
    return Run(ended, target, succeeded=True) if done in SUCCEEDED or finished else None
