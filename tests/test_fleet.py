"""fleet.yaml: a state machine that rotates many targets in batches. `make test-fleet` runs the largest fleet."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.deployed_fleet import DeployedFleet
from support.deployed_function import document_of
from support.faults import Hold
from support.killed_batch import KilledBatch
from support.local_iam import ACCOUNT
from support.paths import ROOT
from support.upstream import Upstream

UNKNOWN = {"name": "unknown-to-the-function"}
AWS = shutil.which("aws", path=f"{ROOT / '.tools/awscli/bin'}:{os.environ['PATH']}")


@pytest.fixture
def fleet(world, deployed):
    def fleet(targets, accounts, **parameters):
        return DeployedFleet(world, deployed, targets, accounts, **parameters)

    return fleet


def statements_of(world, fleet):
    role = fleet.resource("FleetRole")
    document = world.client("iam").get_role_policy(RoleName=role, PolicyName="rotate-in-batches")["PolicyDocument"]
    return {statement["Sid"]: statement for statement in document["Statement"]}


def set_statements(world, fleet, statements):
    world.client("iam").put_role_policy(
        RoleName=fleet.resource("FleetRole"), PolicyName="rotate-in-batches", PolicyDocument=document_of(statements)
    )


def put_newer_list(world, fleet, targets):
    world.client("s3").put_object(Bucket=fleet.list.bucket, Key="newer.json", Body=json.dumps(targets))


def first_write_held(world, fleet):
    """An event that lets the first target's write continue, and one that is set when the write has arrived."""
    release, arrived = threading.Event(), threading.Event()

    def wait():
        arrived.set()
        assert release.wait(120)

    path = f"/v1/ai_secret/{fleet.members[0].ai_secret}"
    world.braintrust.fail(lambda request: request.method == "PATCH" and request.path == path, Hold(wait))
    return release, arrived


def test_a_run_rotates_300_targets_in_100_accounts_by_their_names(world, fleet):
    fleet = fleet(300, accounts=100, BatchSize="300")
    ended = fleet.run()
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"]) == {"batches": 1, "batchesWithFailedTargets": 0, "refusedBatches": 0}
    assert fleet.working() == 300
    assert set(fleet.times_written().values()) == {1} and fleet.overlaps() == []
    [batch] = fleet.batches(ended["executionArn"])
    # An event can name targets, but it can't define them.
    assert json.loads(batch["input"]) == {"Items": [{"name": member.name} for member in fleet.members]}
    assert fleet.map_run(ended["executionArn"])["itemCounts"]["succeeded"] == 300


def test_a_killed_batch_of_300_targets_is_redriven_and_nothing_is_rotated_twice_at_once(world, fleet):
    fleet = fleet(300, accounts=100, BatchSize="50", Concurrency="3", ToleratedFailurePercentage="0")
    killed_batch_is_redriven(fleet, 50)


@pytest.mark.fleet
def test_a_killed_batch_of_3000_targets_is_redriven_and_nothing_is_rotated_twice_at_once(world, fleet, capsys):
    began = time.monotonic()
    fleet = fleet(3_000, accounts=1_000, ToleratedFailurePercentage="0")
    deployed = time.monotonic()
    whole = fleet.run()
    assert whole["status"] == "SUCCEEDED", whole
    assert set(fleet.times_written().values()) == {1} and fleet.overlaps() == []
    once = whole["stopDate"] - whole["startDate"]
    fleet.forget()
    redriven = killed_batch_is_redriven(fleet, 100)
    with capsys.disabled():
        print(
            f"\n3,000 targets in 1,000 accounts: deployed in {deployed - began:.0f} s; 30 batches, 3 at once: "
            f"{once.total_seconds():.1f} s; with a batch that was killed twice, and then redriven: "
            f"{redriven.total_seconds():.1f} s; no target rotated twice at once"
        )


def killed_batch_is_redriven(fleet, size):
    """Returns the time from the start of the run to the end of the redriven one."""
    victims = fleet.members[-size:]
    killed = KilledBatch(fleet, victims)
    ended = fleet.run()
    assert ended["status"] == "FAILED" and ended["error"] == "States.ExceedToleratedFailureThreshold", ended
    counts = fleet.map_run(ended["executionArn"])["itemCounts"]
    assert (counts["failed"], counts["succeeded"]) == (size, len(fleet.members) - size)
    [failed] = [batch for batch in fleet.batches(ended["executionArn"]) if batch["status"] == "FAILED"]
    assert failed["error"] == "Runtime.ExitError"
    # The batch was killed in its first attempt and in its second.
    assert len(killed.at) == 2
    fleet.redrive(ended["executionArn"])
    whole = fleet.wait(ended["executionArn"])
    assert whole["status"] == "SUCCEEDED"
    run = fleet.map_run(ended["executionArn"])
    assert run["redriveCount"] == 1 and run["itemCounts"]["succeeded"] == len(fleet.members)
    assert fleet.working() == len(fleet.members)
    written = fleet.times_written()
    assert {written[member.name] for member in fleet.members[:-size]} == {1}
    assert fleet.overlaps(*killed.at) == []
    return whole["stopDate"] - whole["startDate"]


def test_batches_wait_for_the_functions_concurrency(world, fleet):
    fleet = fleet(30, accounts=10, concurrency=1, BatchSize="10", Concurrency="3")
    ended = fleet.run()
    assert ended["status"] == "SUCCEEDED", ended
    assert fleet.errors_of_attempts(ended["executionArn"]) == {"Lambda.TooManyRequestsException"}
    assert set(fleet.times_written().values()) == {1} and fleet.working() == 30


def test_a_target_that_fails_is_tried_again_and_stops_no_other(world, fleet):
    fleet = fleet(20, accounts=10, BatchSize="5", ToleratedFailurePercentage="0")
    broken = fleet.members[7]
    trust = {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}}
    Upstream(world.cloud.ministack.port).root_query(
        "iam",
        account=broken.role.split(":")[4],
        Action="UpdateAssumeRolePolicy",
        RoleName=broken.role.rpartition("/")[2],
        PolicyDocument=json.dumps(trust),
    )
    ended = fleet.run()
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"]) == {"batches": 4, "batchesWithFailedTargets": 1, "refusedBatches": 0}
    beside = {member.name for member in fleet.members[5:10]} - {broken.name}
    expected = {m.name: 0 if m == broken else 2 if m.name in beside else 1 for m in fleet.members}
    assert fleet.times_written() == expected
    assert [what for _, what in fleet.attempts()[broken.name]] == ["assumed"] * 2


@pytest.mark.parametrize(("tolerated", "status", "succeeded"), [("20", "FAILED", 0), ("50", "SUCCEEDED", 15)])
def test_a_run_stops_if_more_batches_fail_than_are_tolerated(fleet, tolerated, status, succeeded):
    fleet = fleet(20, accounts=10, BatchSize="5", Concurrency="1", ToleratedFailurePercentage=tolerated)
    KilledBatch(fleet, fleet.members[:5])
    ended = fleet.run()
    assert ended["status"] == status, ended
    counts = fleet.map_run(ended["executionArn"])["itemCounts"]
    assert (counts["failed"], counts["succeeded"], counts["pending"]) == (5, succeeded, 15 - succeeded)
    written = fleet.times_written()
    assert sum(written[member.name] for member in fleet.members[5:]) == succeeded
    assert fleet.batches(ended["executionArn"])[0]["error"] == "Runtime.ExitError"


def test_a_batch_that_the_function_refuses_stops_no_other_but_fails_the_run(world, fleet):
    # The state machine and the function can read different versions of the list. Here, they read different objects.
    fleet = fleet(20, accounts=10, BatchSize="5", ToleratedFailurePercentage="0", TargetsKey="newer.json")
    put_newer_list(world, fleet, [UNKNOWN, *(member.target() for member in fleet.members[1:])])
    ended = fleet.run()
    assert (ended["status"], ended["error"]) == ("FAILED", "BatchesWereRefused"), ended
    assert ended["cause"].startswith("The function refused 1 of 4 batches")
    counts = fleet.map_run(ended["executionArn"])["itemCounts"]
    assert (counts["failed"], counts["succeeded"]) == (0, 20)
    expected = {member.name: 0 if member in fleet.members[:5] else 1 for member in fleet.members}
    assert fleet.times_written() == expected
    put_newer_list(world, fleet, [member.target() for member in fleet.members])
    fleet.redrive(ended["executionArn"])
    assert fleet.wait(ended["executionArn"])["error"] == "BatchesWereRefused"
    assert fleet.times_written() == expected
    corrected = fleet.run()
    assert corrected["status"] == "SUCCEEDED", corrected
    # All invocations of the refused run have ended.
    assert fleet.seconds_waited(corrected["executionArn"]) == [0]


def test_a_mistake_in_the_list_fails_the_run_whether_or_not_the_function_has_an_earlier_list(world, fleet):
    fleet = fleet(20, accounts=10, BatchSize="5", Concurrency="1")
    wrong = [UNKNOWN, *(member.target() for member in fleet.members[1:])]
    fleet.list.put(wrong)
    ended = fleet.run()
    assert (ended["status"], ended["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold"), ended
    assert set(fleet.times_written().values()) == {0}
    fleet.list.put([member.target() for member in fleet.members])
    assert fleet.run()["status"] == "SUCCEEDED"
    fleet.forget()
    fleet.list.put(wrong)
    ended = fleet.run()
    assert (ended["status"], ended["error"]) == ("FAILED", "BatchesWereRefused"), ended
    written = fleet.times_written()
    assert [written[member.name] > 0 for member in fleet.members] == [False] * 5 + [True] * 15


def test_a_run_does_not_begin_while_an_earlier_one_is_under_way(world, fleet):
    fleet = fleet(4, accounts=2)
    release, arrived = first_write_held(world, fleet)
    first = fleet.start()
    assert arrived.wait(120)
    second = fleet.run()
    assert (second["status"], second["error"]) == ("FAILED", "EarlierRunIsUnderWay")
    release.set()
    assert fleet.wait(first)["status"] == "SUCCEEDED"
    assert set(fleet.times_written().values()) == {1}
    third = fleet.run()
    assert third["status"] == "SUCCEEDED"
    # The second run has invoked nothing.
    assert fleet.seconds_waited(third["executionArn"]) == [0]


def test_a_run_lets_the_invocations_of_a_stopped_run_end(world, fleet):
    fleet = fleet(4, accounts=2, FunctionTimeoutSeconds="900")
    release, arrived = first_write_held(world, fleet)
    first = fleet.start()
    assert arrived.wait(120)
    world.client("stepfunctions").stop_execution(executionArn=first)
    stopped = time.monotonic()
    time.sleep(2)
    second = fleet.start()
    # In the local AWS, it waits for 9 seconds instead of 900.
    time.sleep(4)
    release.set()
    assert fleet.wait(second)["status"] == "SUCCEEDED"
    assert fleet.wait(first)["status"] == "ABORTED"
    assert set(fleet.times_written().values()) == {2} and fleet.overlaps() == []
    [seconds] = fleet.seconds_waited(second)
    assert 900 - (time.monotonic() - stopped) < seconds <= 899


@pytest.mark.parametrize("sid", ["InvokeTheFunction", "ReadTheTargets", "SeeOtherRunsAndStartBatches"])
def test_a_run_needs_each_permission(world, fleet, sid):
    fleet = fleet(1, accounts=1)
    whole = statements_of(world, fleet)
    set_statements(world, fleet, {name: statement for name, statement in whole.items() if name != sid})
    ended = fleet.run()
    assert ended["status"] == "FAILED"
    batches = fleet.batches(ended["executionArn"]) if sid == "InvokeTheFunction" else []
    assert {one["error"] for one in batches or [ended]} == {"States.Permissions"}
    assert fleet.times_written() == {fleet.members[0].name: 0}


def test_the_list_may_be_in_no_other_account(world, fleet):
    """If the bucket were deleted, another account could create one of the same name."""
    statement = statements_of(world, fleet(1, accounts=1))["ReadTheTargets"]
    assert statement["Condition"] == {"StringEquals": {"aws:ResourceAccount": ACCOUNT}}


def test_a_redrive_and_a_run_after_a_failed_one_need_their_permission(world, fleet):
    fleet = fleet(1, accounts=1)
    fleet.list.put([UNKNOWN])
    execution = fleet.run()["executionArn"]
    whole = statements_of(world, fleet)
    set_statements(
        world, fleet, {name: statement for name, statement in whole.items() if name != "WatchStopAndRedriveBatches"}
    )
    fleet.redrive(execution)
    assert fleet.wait(execution)["error"] == "States.Permissions"
    assert fleet.run()["error"] == "States.Permissions"


def test_the_schedule_of_the_function_is_off(world, fleet):
    fleet = fleet(1, accounts=1)
    name = re.search(r"--name (\S+)", fleet.function["EnableScheduleCommand"])[1]
    assert world.client("events").describe_rule(Name=name)["State"] == "DISABLED"


@pytest.mark.long
def test_the_schedule_starts_runs(world, fleet):
    fleet = fleet(2, accounts=2, ScheduleExpression="rate(1 minute)", ScheduleState="ENABLED")
    deadline = time.monotonic() + 240
    while fleet.working() < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    [target] = world.client("events").list_targets_by_rule(Rule=fleet.resource("Schedule"))["Targets"]
    assert (target["Arn"], target["Input"]) == (fleet.outputs["StateMachineArn"], "{}")


def test_both_roles_have_the_boundary_and_the_path_that_the_company_requires(world, fleet):
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    boundary = world.client("iam").create_policy(PolicyName="fleet-boundary", PolicyDocument=json.dumps(document))
    arn = boundary["Policy"]["Arn"]
    fleet = fleet(1, accounts=1, PermissionsBoundaryArn=arn, RolePath="/service/bedrock/")
    for name in ("FleetRole", "ScheduleRole"):
        role = world.client("iam").get_role(RoleName=fleet.resource(name))["Role"]
        assert role["Arn"].startswith(f"arn:aws:iam::{ACCOUNT}:role/service/bedrock/"), name
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == arn, name
    assert fleet.run()["status"] == "SUCCEEDED"


def test_cfn_lint_accepts_the_state_machine(world, fleet, tmp_path):
    """In fleet.yaml itself, cfn-lint can't check the definition, because it is a string that contains parameters."""
    described = world.client("stepfunctions").describe_state_machine(
        stateMachineArn=fleet(1, accounts=1).outputs["StateMachineArn"]
    )
    properties = {"RoleArn": described["roleArn"], "Definition": json.loads(described["definition"])}
    template = {"Resources": {"Fleet": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}}}
    (tmp_path / "template.json").write_text(json.dumps(template))
    lint = [Path(sys.executable).with_name("cfn-lint"), tmp_path / "template.json"]
    done = subprocess.run(lint, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def alarms_of_fleet(world, fleet):
    names = {fleet.resource(name): name for name in ("FleetFailedAlarm", "FleetTimedOutAlarm")}
    found = world.client("cloudwatch").describe_alarms(AlarmNames=list(names))["MetricAlarms"]
    return {names[alarm["AlarmName"]]: alarm for alarm in found}


def test_a_run_that_fails_or_takes_too_long_raises_an_alarm(world, fleet):
    fleet = fleet(1, accounts=1)
    alarms = alarms_of_fleet(world, fleet)
    for name, metric in [("FleetFailedAlarm", "ExecutionsFailed"), ("FleetTimedOutAlarm", "ExecutionsTimedOut")]:
        alarm = alarms[name]
        assert (alarm["Namespace"], alarm["MetricName"], alarm["Statistic"]) == ("AWS/States", metric, "Sum")
        assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)
        assert alarm["Dimensions"] == [{"Name": "StateMachineArn", "Value": fleet.outputs["StateMachineArn"]}]
        assert alarm["AlarmActions"] == [fleet.function["AlarmTopicArn"]]
        assert len(alarm["AlarmDescription"]) <= 1024
        impact, run_this, command, then, *_ = alarm["AlarmDescription"].splitlines()
        assert impact.startswith("Impact: ") and run_this == "Run this:" and then.startswith("Then: ")
        assert command == fleet.outputs["RunsCommand"]


@pytest.mark.skipif(not AWS, reason="needs the AWS CLI")
def test_the_commands_in_the_outputs_work_as_they_are(world, fleet):
    fleet = fleet(2, accounts=1, ToleratedFailurePercentage="0")

    def done(output):
        environment = world.cloud.ministack.root | {
            "PATH": f"{Path(AWS).parent}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": world.aws.url,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        command = fleet.outputs[output]
        return subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60)

    fleet.list.put([UNKNOWN])
    started = done("StartCommand")
    assert started.returncode == 0, started.stderr
    execution = json.loads(started.stdout)["executionArn"]
    assert fleet.wait(execution)["status"] == "FAILED"
    assert json.loads(done("RunsCommand").stdout)["executions"][0]["executionArn"] == execution
    redriven = done("RedriveCommand")
    assert redriven.returncode == 0, redriven.stderr
    assert fleet.wait(execution)["status"] == "FAILED"
    assert fleet.map_run(execution)["redriveCount"] == 1
    fleet.list.put([member.target() for member in fleet.members])
    assert fleet.run()["status"] == "SUCCEEDED"
    assert "ExecutionNotRedrivable" in done("RedriveCommand").stderr
    assert done("EnableScheduleCommand").returncode == 0
    assert world.client("events").describe_rule(Name=fleet.resource("Schedule"))["State"] == "ENABLED"
