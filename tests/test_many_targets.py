"""One run of many targets: its report in the log and in the answer, and when the targets start."""

import json
import uuid
from collections import Counter

from support.deployment import report_of
from support.events import scheduled_run
from support.queues import wait_for_message

# AWS's limits, in bytes.
LOG_EVENT = 256 * 1024
RECORD = 256 * 1024
CAUSE = 32_768


def missing_targets(world, number):
    """Targets whose ai_secrets don't exist, so that their rotations fail."""
    return [world.target(str(uuid.uuid4()), name=f"missing-{place}") for place in range(number)]


def good_targets(world, number):
    return [world.target(world.new_ai_secret_of_any_name(), name=f"good-{place}") for place in range(number)]


def names_in(report):
    return [target["name"] for target in report["targets"]]


def logged_reports(function):
    lines = [json.loads(line) for line in function.logs() if line.startswith("{")]
    return [line for line in lines if "trigger" in line]


def test_a_long_report_is_several_reports_in_the_log_and_shortened_in_the_error(world):
    targets = good_targets(world, 10) + missing_targets(world, 400)
    function = world.new_function(*targets)
    event = scheduled_run()
    result = function.invoke(event)
    assert not result.ok and len(result.raw) < RECORD
    answer = result.report_in_error()
    outcomes = Counter(target["outcome"] for target in answer["targets"])
    assert outcomes + Counter(answer["left_out"]) == {"rotated": 10, "failed": 400}
    assert outcomes["failed"] > 100 and answer["left_out"]["rotated"] > 5
    order = [target["name"] for target in targets]
    assert sorted(names_in(answer), key=order.index) == names_in(answer)
    assert answer["token"] == event["id"] and answer["targets"][-1]["error"]["class"] == "not_found"

    parts = logged_reports(function)
    assert all(len(json.dumps(part)) < LOG_EVENT for part in parts)
    assert [(part["part"], part["parts"]) for part in parts] == [(n + 1, len(parts)) for n in range(len(parts))]
    assert {part["token"] for part in parts} == {event["id"]} and len({part["started_at"] for part in parts}) == 1
    assert [name for part in parts for name in names_in(part)] == order
    assert all(part["level"] == "ERROR" for part in parts)


def test_the_answers_to_a_schedule_and_to_an_action_fit_into_an_event_and_the_log_is_complete(world):
    targets = good_targets(world, 700)
    function = world.new_function(TARGETS="", TARGETS_SECRET_ID=world.cloud.new_secret(targets))
    for event in (scheduled_run(), {"action": "rotate"}):
        result = function.invoke(event)
        assert result.ok and len(result.raw) < RECORD
        assert len(result.body["targets"]) > 400
        assert result.body["left_out"] == {"rotated": 700 - len(result.body["targets"])}
    assert sum(len(part["targets"]) for part in logged_reports(function)) == 1_400


def test_the_error_of_a_batch_fits_into_the_cause_of_an_error_in_step_functions(world):
    targets = missing_targets(world, 100)
    function = world.new_function(*targets)
    result = function.invoke({"action": "rotate", "targets": [target["name"] for target in targets]})
    assert not result.ok and len(result.raw) < CAUSE
    answer = result.report_in_error()
    assert len(answer["targets"]) > 20 and answer["left_out"] == {"failed": 100 - len(answer["targets"])}
    # Somebody who rotates all targets by hand gets more of them.
    assert len(function.invoke({"action": "rotate"}).report_in_error()["targets"]) == 100


def test_the_report_of_a_few_targets_is_one_line_and_the_answer(world):
    function = world.new_function(*good_targets(world, 3))
    result = function.invoke(scheduled_run())
    assert result.ok
    [logged] = logged_reports(function)
    assert {field: logged[field] for field in result.body} == result.body
    assert not {"part", "parts", "left_out"} & set(logged)


def test_the_record_of_a_failed_run_of_many_targets_reaches_the_queue(world, deployed):
    role = world.cloud.new_role(trust="*")
    targets = [{**target, "role_arn": role} for target in missing_targets(world, 400)]
    secret = world.cloud.new_secret(targets)
    outputs = deployed(None, AiSecretId=None, TargetsSecretArn=secret, RoleArns=role)
    event = json.dumps(scheduled_run())
    world.client("lambda").invoke(FunctionName=outputs["FunctionName"], InvocationType="Event", Payload=event)
    kept = wait_for_message(world, outputs["FailureQueueUrl"], timeout=300)
    assert len(json.dumps(kept)) < RECORD
    report = report_of(kept["responsePayload"])
    assert report["left_out"]["failed"] + len(report["targets"]) == 400


def test_a_run_of_many_targets_is_spread_over_the_given_time(world):
    targets = good_targets(world, 40)
    function = world.new_function(*targets, SPREAD_SECONDS="10", timeout=900)
    result = function.invoke(scheduled_run())
    assert result.ok and names_in(result.body) == [target["name"] for target in targets]
    starts = sorted(request.at for request in world.aws_requests("sts:AssumeRole"))
    assert len(starts) == 40 and starts[-1] - starts[0] > 4


def test_a_forced_run_of_named_targets_does_not_wait(world):
    targets = good_targets(world, 20)
    function = world.new_function(*targets, SPREAD_SECONDS="300", timeout=900)
    names = [target["name"] for target in targets]
    result = function.invoke({"action": "rotate", "targets": names, "force": True})
    assert result.ok and result.seconds < 200


def test_a_single_target_does_not_wait(world):
    targets = good_targets(world, 2)
    function = world.new_function(*targets, SPREAD_SECONDS="300", timeout=900)
    # A single target is never delayed, even if the run isn't forced.
    result = function.invoke({"action": "rotate", "targets": [targets[1]["name"]]})
    assert result.ok and result.seconds < 100
