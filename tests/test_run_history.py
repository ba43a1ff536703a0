"""What `make status` concludes from metrics and logged reports about the runs of a target."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "tools"))
from run_history import Datapoints, history, runs_within  # noqa: E402

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
DENIED = {"class": "permission", "service": "sts", "call": "AssumeRole", "problem": "answered AccessDenied"}


def minute(number):
    return NOON + timedelta(minutes=number)


def datapoints(succeeded=(), failed=()):
    """One run in each of these minutes."""
    return Datapoints({minute(number): 1 for number in succeeded}, {minute(number): 1 for number in failed})


def target(outcome="rotated", name="prod"):
    return {"name": name, "outcome": outcome, **({"error": DENIED} if outcome == "failed" else {})}


def line(*targets, second=0, milliseconds=500, **fields):
    """A report in the log, of a run that started in this second after noon."""
    started = (NOON + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")
    report = {"level": "INFO", "dry_run": False, "started_at": started, "duration_ms": milliseconds, **fields}
    return json.dumps({**report, "targets": list(targets)})


def runs(*lines, at=0, name="prod"):
    return runs_within(minute(at), lines, name)


def log(*lines):
    """What was read about the minute after noon."""
    return {minute(0): runs(*lines)}


@pytest.mark.parametrize(
    "succeeded, failed, expected",
    [
        ([], [], (None, None, 0)),
        ([0, 20, 40], [], (40, None, 0)),
        ([], [0, 20, 40], (None, 40, 3)),
        ([0, 20], [40, 41, 43], (20, 43, 3)),
        ([0, 60], [20, 40], (60, 40, 0)),
        # A gap, in which nothing ran, ends neither a failure nor a success.
        ([0], [20, 9000], (0, 9000, 2)),
        ([0, 9000], [20], (9000, 20, 0)),
    ],
)
def test_the_failures_since_the_last_success_are_counted(succeeded, failed, expected):
    found = history(datapoints(succeeded, failed), {})
    success, failure, count = expected
    assert found.last_success == (None if success is None else minute(success))
    assert found.last_failure == (None if failure is None else minute(failure))
    assert found.failed == count
    assert found.is_failing() == (count > 0)


def test_several_failures_within_a_minute_count_each():
    found = history(Datapoints({minute(0): 1}, {minute(1): 2, minute(3): 1}), {})
    assert found.failed == 3


def test_the_newest_failed_report_of_the_minute_is_the_last_failure():
    throttled = {**target("failed"), "error": {**DENIED, "class": "throttled"}}
    found = history(datapoints([], [0]), log(line(target("failed"), second=5), line(throttled, second=30)))
    assert found.failure["error"]["class"] == "throttled"
    assert found.last_failure == NOON + timedelta(seconds=30.5)


def test_a_deferred_target_is_a_failure_without_an_error():
    found = history(datapoints([], [0]), log(line(target("deferred"))))
    assert found.failure == target("deferred")


def test_a_failure_whose_report_is_not_in_the_log_is_known_to_the_minute():
    found = history(datapoints([-20], [0]), {})
    assert (found.last_failure, found.failed, found.failure) == (minute(0), 1, None)


@pytest.mark.parametrize(
    "outcomes, failed",
    [
        (["rotated", "failed"], 1),
        (["rotated", "failed", "failed"], 2),
        (["failed", "rotated"], 0),
        (["failed", "rotated", "failed"], 1),
        (["failed", "resumed"], 0),
        # The log lacks the success, as it does if its level was set to WARN.
        (["failed"], None),
        ([], None),
    ],
)
def test_within_one_minute_the_log_tells_whether_the_success_or_the_failure_was_last(outcomes, failed):
    lines = [line(target(done), second=10 * place) for place, done in enumerate(outcomes)]
    found = history(datapoints([-20, 0], [0]), log(*lines))
    assert (found.failed, found.is_unordered) == (failed or 0, failed is None)
    assert found.is_failing() == (failed != 0)
    found = history(datapoints([-20, 0], [0, 1, 2]), log(*lines))
    assert (found.failed, found.is_unordered) == (2 + (failed or 0), failed is None)


@pytest.mark.parametrize(
    "succeeded, failed, unclear",
    [
        ([], [], []),
        ([0], [], []),
        ([0], [-20, 20], [20]),
        ([0], [-20, 0], [0]),
        ([0], [0, 1, 2], [0, 2]),
    ],
)
def test_the_log_is_needed_only_about_the_last_failure_and_failures_in_the_minute_of_the_last_success(
    succeeded, failed, unclear
):
    assert datapoints(succeeded, failed).unclear_minutes() == {minute(number) for number in unclear}


def test_each_target_has_its_own_runs():
    lines = [line(target("failed"), target("rotated", name="eu")), line(target("rotated", name="us"))]
    assert [run.succeeded for run in runs(*lines)] == [False]
    assert [run.succeeded for run in runs(*lines, name="eu")] == [True]
    assert runs(*lines, name="nobody") == []


def test_a_run_is_found_in_the_part_of_a_report_that_has_its_target():
    parts = [line(target(name="eu"), part=1, parts=2), line(target("failed"), part=2, parts=2)]
    assert [run.succeeded for run in runs(*parts)] == [False]
    assert [run.succeeded for run in runs(*parts, name="eu")] == [True]


def test_a_report_belongs_to_the_minute_in_which_its_run_ended():
    long = line(target("failed"), second=-290, milliseconds=300_000)
    assert len(runs(long)) == 1 and not runs(long, at=-5)
    assert not runs(line(target("failed"), second=-20))
    assert not runs(line(target("failed"), second=60))
    # It started at an unknown fraction of second -2.
    assert len(runs(line(target("failed"), second=-2, milliseconds=1_500))) == 1


def test_only_a_finished_rotation_by_secrets_manager_is_a_success():
    lines = [line(target("step_done"), step=step) for step in ("createSecret", "setSecret", "testSecret")]
    assert runs(*lines) == []
    assert [run.succeeded for run in runs(line(target("step_done"), step="finishSecret"))] == [True]


@pytest.mark.parametrize("outcome", ["rotated", "resumed", "revoked", "replaced", "uses_assume_role"])
def test_a_run_after_which_braintrust_has_credentials_that_work_is_a_success(outcome):
    assert [run.succeeded for run in runs(line(target(outcome)))] == [True]


@pytest.mark.parametrize("outcome", ["not_due", "repaired", "left_to_secrets_manager", "rolled_back"])
def test_a_run_that_did_not_rotate_is_neither_a_success_nor_a_failure(outcome):
    assert runs(line(target(outcome))) == []


def test_dry_runs_and_other_lines_are_no_runs():
    others = ["START RequestId: 1", "[]", "null", '"x"', '{"dry_run": false}', line()]
    others.append(line(target("failed"), duration_ms="x"))
    assert runs(line(target("failed"), dry_run=True), *others) == []
