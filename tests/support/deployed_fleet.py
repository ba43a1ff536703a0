"""Targets in many accounts, and the state machine of fleet.yaml that rotates them, deployed into the local AWS."""

import json
import time
import uuid
from dataclasses import dataclass

from .http_messages import RecordedRequest, Reply
from .local_cloud import REGION
from .local_iam import ACCOUNT
from .paths import ROOT
from .readers import READERS, ROUTES
from .targets_object import TargetsObject
from .upstream import Upstream, form
from .world import BEDROCK_ACTIONS, World

_FLEET = (ROOT / "fleet.yaml").read_text()
_ROLE = "braintrust-bedrock"
_SOON = {"Delay": 0.2, "MaxAttempts": 300}


@dataclass(frozen=True)
class Member:
    """A target, the role that it alone assumes, and its ai_secret."""

    name: str
    role: str
    ai_secret: str

    def target(self) -> dict:
        return {
            "name": self.name,
            "kind": "temporary",
            "role_arn": self.role,
            "region": REGION,
            "ai_secrets": [{"id": self.ai_secret}],
        }


class DeployedFleet:
    """`deployed` is the fixture that deploys the function."""

    def __init__(self, world: World, deployed, targets: int, accounts: int, concurrency: int | None = None, **parameters):
        self.world = world
        self.members = _members(world, targets, accounts)
        # When each write was complete, and its path.
        self._writes: list[tuple[float, str]] = []
        self._inspect, world.braintrust.inspect = world.braintrust.inspect, self._record
        self._states = world.client("stepfunctions")
        self.list = TargetsObject(world, key="targets.json")
        self.list.put([member.target() for member in self.members])
        self.function = deployed(
            None,
            TargetsBucket=self.list.bucket,
            RoleArns=f"arn:aws:iam::*:role/{_ROLE}-*",
            ScheduleState="DISABLED",
            ReservedConcurrency="0" if concurrency is None else str(concurrency),
        )
        if concurrency is not None:
            # ministack's CloudFormation ignores ReservedConcurrentExecutions.
            world.client("lambda").put_function_concurrency(
                FunctionName=self.function["FunctionName"], ReservedConcurrentExecutions=concurrency
            )
        self.stack = f"fleet-{uuid.uuid4().hex[:8]}"
        given = {"TargetsBucket": self.list.bucket, "ScheduleState": "DISABLED", **parameters}
        given |= {name: self.function[name] for name in ("FunctionArn", "AlarmTopicArn")}
        self.outputs = self._deploy(given)

    def _deploy(self, parameters: dict[str, str]) -> dict[str, str]:
        cloudformation = self.world.client("cloudformation")
        cloudformation.create_stack(
            StackName=self.stack,
            TemplateBody=_FLEET,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        )
        cloudformation.get_waiter("stack_create_complete").wait(StackName=self.stack, WaiterConfig=_SOON)
        [deployed] = cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in deployed["Outputs"]}

    def resource(self, logical_id: str) -> str:
        """The physical ID of one of the stack's resources."""
        found = self.world.client("cloudformation").describe_stack_resource(
            StackName=self.stack, LogicalResourceId=logical_id
        )
        return found["StackResourceDetail"]["PhysicalResourceId"]

    # Runs

    def start(self) -> str:
        return self._states.start_execution(stateMachineArn=self.outputs["StateMachineArn"])["executionArn"]

    def redrive(self, execution: str):
        self._states.redrive_execution(executionArn=execution)

    def wait(self, execution: str, timeout: float = 900) -> dict:
        """What DescribeExecution shows after the end."""
        deadline = time.monotonic() + timeout
        while (found := self._states.describe_execution(executionArn=execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline, self.map_run(execution)
            time.sleep(0.1)
        return found

    def run(self) -> dict:
        return self.wait(self.start())

    def under_way(self) -> str:
        """The run that is under way."""
        found = self._states.list_executions(
            stateMachineArn=self.outputs["StateMachineArn"], statusFilter="RUNNING"
        )["executions"]
        return found[0]["executionArn"]

    def map_run(self, execution: str) -> dict:
        [run] = self._states.list_map_runs(executionArn=execution)["mapRuns"]
        return self._states.describe_map_run(mapRunArn=run["mapRunArn"])

    def batches(self, execution: str) -> list[dict]:
        """What DescribeExecution shows of each batch that has been started, the oldest first."""
        run = self.map_run(execution)["mapRunArn"]
        found = self._states.list_executions(mapRunArn=run)["executions"]
        shown = [self._states.describe_execution(executionArn=batch["executionArn"]) for batch in found]
        return sorted(shown, key=lambda batch: batch["startDate"])

    # What the servers have recorded

    def forget(self):
        """Forgets what the servers have recorded so far."""
        for requests in (self._writes, self.world.aws.requests, self.world.braintrust.requests):
            requests.clear()

    def attempts(self) -> dict[str, list[tuple[float, str]]]:
        """For each target, in order: when its role was assumed, and when the write of its ai_secret was complete."""
        by_role = {member.role: member.name for member in self.members}
        by_path = {f"/v1/ai_secret/{member.ai_secret}": member.name for member in self.members}
        found = {member.name: [] for member in self.members}
        for request in self.world.aws_requests("sts:AssumeRole"):
            found[by_role[form(request)["RoleArn"]]].append((request.at, "assumed"))
        for at, path in self._writes:
            found[by_path[path]].append((at, "written"))
        return {name: sorted(events) for name, events in found.items()}

    def seconds_waited(self, execution: str) -> list[int]:
        """How many seconds the run waited for the invocations of earlier runs, each time."""
        events = self._states.get_execution_history(executionArn=execution)["events"]
        waits = [event["stateEnteredEventDetails"] for event in events if event["type"] == "WaitStateEntered"]
        return [json.loads(wait["input"])["seconds"] for wait in waits]

    def errors_of_attempts(self, execution: str) -> set[str]:
        """The errors with which attempts of the run's batches ended."""
        histories = [
            self._states.get_execution_history(executionArn=batch["executionArn"])["events"]
            for batch in self.batches(execution)
        ]
        failed = [event.get("taskFailedEventDetails") for history in histories for event in history]
        return {details["error"] for details in failed if details}

    def times_written(self) -> dict[str, int]:
        return {name: [what for _, what in events].count("written") for name, events in self.attempts().items()}

    def overlaps(self, *ends: float) -> list[str]:
        """The targets with an attempt that began before another one ended.

        An attempt that wrote nothing ended, at the latest, at the next of the given times, when its process was dead.
        """
        return [name for name, events in self.attempts().items() if _overlap(events, ends)]

    def _record(self, request: RecordedRequest, reply: Reply | None):
        self._inspect(request, reply)
        if reply is not None and request.method == "PATCH" and reply.status == 200:
            self._writes.append((time.monotonic(), request.path))

    def working(self) -> int:
        """How many ai_secrets have credentials that Bedrock accepts."""
        found, read = self.world.braintrust.snapshot(), READERS["todays_proxy"]
        return sum(self.world.works(read(found[member.ai_secret], ROUTES[0])) for member in self.members)


def _overlap(events, ends) -> bool:
    began = None
    for at, what in events:
        if what == "written":
            if began is None:
                return True
            began = None
        else:
            if began is not None and not any(began < end < at for end in ends):
                return True
            began = at
    return False


def _members(world, targets, accounts):
    # Other tests have roles in the same accounts.
    upstream, fleet, members = Upstream(world.cloud.ministack.port), uuid.uuid4().hex[:8], []
    for number in range(targets):
        account = str(100_000_000_000 + number % accounts)
        name = f"customer-{number % accounts}-{number // accounts}"
        role = _new_role(upstream, account, f"{_ROLE}-{fleet}-{number // accounts}")
        members.append(Member(name, role, world.new_ai_secret(name)))
    return members


def _new_role(upstream, account, name):
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    allow = {"Effect": "Allow", "Action": BEDROCK_ACTIONS, "Resource": "*"}
    trust, allow = (json.dumps({"Version": "2012-10-17", "Statement": [one]}) for one in (trust, allow))
    upstream.root_query("iam", account=account, Action="CreateRole", RoleName=name, AssumeRolePolicyDocument=trust)
    upstream.root_query(
        "iam", account=account, Action="PutRolePolicy", RoleName=name, PolicyName="allow", PolicyDocument=allow
    )
    return f"arn:aws:iam::{account}:role/{name}"
