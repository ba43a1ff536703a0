"""Two runs of one target, each in a function of its own: one is held before a call while the other one continues.

At every moment, that is, after every change that either of them makes, Braintrust holds credentials that work, and
neither Braintrust nor AWSCURRENT has credentials that the function has deactivated or deleted. After the scheduled runs
that follow, AWSCURRENT, Braintrust and IAM agree.
"""

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta

from .call_interceptor import CallInterceptor
from .events import FORCED, ROLLBACK, rotation_step, scheduled_run
from .faults import Hold
from .http_messages import RecordedRequest, Reply
from .local_cloud import REGION
from .local_rotation import ROTATION_STEPS
from .stopped_run import StoppedRotation
from .upstream import form
from .watched_run import LONGER_THAN_ANY_RUN
from .world import World

SCHEDULED, SAME_EVENT, FORCED_RUN = "a scheduled run", "the same event", "a forced run"
STEPS, TURNED_ON, ROLLED_BACK = "the four steps", "rotation turned on", "a rollback"
REVOKED = "a revocation"
# Less than the ten seconds after which the function attempts a call again.
_HELD_FOR = 8
# A run may wait for something that the other run prevents, but not for minutes. Many runs share the machine.
_TIMEOUT = 60
# Longer than any run takes, so that no earlier run can still be under way.
_LATER = timedelta(minutes=20)
_MAX_SCHEDULED_RUNS = 4
_ENDS_A_KEY = ("iam:UpdateAccessKey", "iam:DeleteAccessKey")
_ENDS_A_KEY += ("iam:UpdateServiceSpecificCredential", "iam:DeleteServiceSpecificCredential")
_CHANGES_A_STAGE = ("secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage")


class Gate:
    """Holds one call of a run."""

    def __init__(self):
        self.reached = threading.Event()
        self.opened = threading.Event()

    def hold(self):
        self.reached.set()
        self.opened.wait(_HELD_FOR)


class Run:
    """One of the two runs: what it does, and a function of its own."""

    def __init__(self, interleaving: "InterleavedRuns", name: str, does: str):
        self.does = does
        self.problem: str | None = None
        self._of = interleaving
        self._name = name
        world = interleaving.world
        self.interceptor = CallInterceptor(world.aws, world.braintrust, self._watched).start()
        world.servers.append(self.interceptor)
        url = self.interceptor.url
        variables = {"AWS_ENDPOINT_URL": url, "BRAINTRUST_API_URL": url}
        self.function = world.new_function(interleaving.target, timeout=_TIMEOUT, **variables)

    def hold_before(self, position: int) -> Gate:
        gate, calls = Gate(), iter(range(1_000_000))
        self.interceptor.fail(lambda request: next(calls) == position, Hold(gate.hold))
        return gate

    def run(self) -> bool:
        of, name = self._of, self._of.target["name"]
        match self.does:
            case "a scheduled run":
                return self._invoke(of.event if self._name == "A" else scheduled_run())
            case "the same event":
                return self._invoke(of.event)
            case "a forced run":
                return self._invoke(FORCED | {"targets": [name]})
            case "a rollback":
                return self._invoke(ROLLBACK | {"targets": [name]})
            case "a revocation":
                return self._invoke({"action": "revoke", "targets": [name]})
            case "the four steps":
                return self._steps(of.token)
            case "rotation turned on":
                token = str(uuid.uuid4())
                of.world.aws.begin_rotation(of.target["secret_id"], token)
                return self._steps(token)
        raise ValueError(self.does)

    def stop(self):
        self.function.stop()
        self.interceptor.stop()

    def _steps(self, token: str) -> bool:
        return all(self._invoke(rotation_step(step, self._of.target["secret_id"], token)) for step in ROTATION_STEPS)

    def _invoke(self, event: dict) -> bool:
        result = self.function.invoke(event)
        if not result.ok:
            report = result.report_in_error()
            self.problem = report["targets"][0]["error"]["problem"] if isinstance(report, dict) else report
        return result.ok

    def _watched(self, request: RecordedRequest, handle: Callable[[RecordedRequest], Reply]) -> Reply:
        if request.method != "PATCH" and request.call not in _ENDS_A_KEY + _CHANGES_A_STAGE:
            return handle(request)
        with self._of.changing:
            answer = handle(request)
            if answer.status == 200:
                self._of.look(f"after {self._name}'s {request.call.partition(':')[2] or request.method}", request)
            return answer


class InterleavedRuns(StoppedRotation):
    def __init__(self, world: World, kind: str, first: str, second: str, destination: str | dict):
        super().__init__(world, kind, "interleaved", destination)
        self.changing = threading.Lock()
        self._does = first, second
        self._ended: set[str] = set()
        self._rotates = {first, second} & {STEPS, TURNED_ON}

    def begin(self):
        self.world.aws.shown_older_by = timedelta()
        if STEPS in self._does:
            self.world.aws.begin_rotation(self.target["secret_id"], self.token)
        self.first, self.second = Run(self, "A", self._does[0]), Run(self, "B", self._does[1])
        self.function = self.first.function

    def hold_first(self, position: int):
        """Holds A before this call while B runs to its end."""
        gate = self.first.hold_before(position)
        with ThreadPoolExecutor(2) as pool:
            first = _start(pool, self.first, gate)
            second = pool.submit(self.second.run)
            wait([second], _HELD_FOR)
            gate.opened.set()
        self._require_a_success(first, second)

    def hold_both(self, position: int, second_position: int):
        """Holds A and B, and lets A run to its end first."""
        gate, second_gate = self.first.hold_before(position), self.second.hold_before(second_position)
        with ThreadPoolExecutor(2) as pool:
            first = _start(pool, self.first, gate)
            second = _start(pool, self.second, second_gate)
            gate.opened.set()
            wait([first], _HELD_FOR)
            second_gate.opened.set()
        overwritten = "reads back"
        if not (overwritten in (self.first.problem or "") and overwritten in (self.second.problem or "")):
            # Runs that overwrite each other between the write and the look after it may both fail.
            self._require_a_success(first, second)

    def look(self, when: str, request: RecordedRequest):
        """Looks at the state right after a change."""
        if request.call in _ENDS_A_KEY:
            asked = form(request)
            if asked.get("Status") != "Active":
                self._ended.add(asked.get("AccessKeyId") or asked["ServiceSpecificCredentialId"])
        found = self.world.braintrust.credentials(self.ai_secret)
        if self._id(found) in self._ended:
            self._violated("Braintrust holds credentials that were ended", when)
        elif not self.world.works(found):
            self._violated("the credentials in Braintrust don't work", when)
        current = self.world.aws.secrets_manager.current_value(self.target["secret_id"], REGION)
        if json.loads(current.get("SecretString", "{}")).get("credential_id") in self._ended:
            self._violated("AWSCURRENT names credentials that were ended", when)

    def recover(self):
        if self._rotates:
            self.world.client("secretsmanager").cancel_rotate_secret(SecretId=self.target["secret_id"])
        self.world.let_time_pass(self.target, LONGER_THAN_ANY_RUN)
        for run in range(_MAX_SCHEDULED_RUNS):
            result = self.invoke(scheduled_run())
            if not self.world.has_working_credentials(self.ai_secret):
                self._violated("the credentials in Braintrust don't work", f"after scheduled run {run + 1}")
            disagreements = self.disagreements()
            if result.ok and not disagreements:
                break
        self.wrong += disagreements
        if not result.ok:
            self.wrong.append(f"the last scheduled run failed: {result.report_in_error()}")
        for run in (self.first, self.second):
            run.stop()
        self.interceptor.stop()

    def _require_a_success(self, first: Future, second: Future):
        if not first.result() and not second.result():
            self.wrong.append(f"both runs failed: {self.first.problem}; {self.second.problem}")

    def _id(self, found: dict) -> str | None:
        if found["auth_type"] != "api_key":
            return found["access_key"]
        return next((id for id, key in list(self.world.aws.api_keys.items()) if key.secret == found["secret"]), None)

    def _violated(self, what: str, when: str):
        if not any(line.startswith(what) for line in self.wrong):
            self.wrong.append(f"{what}, {when}")


def _start(pool: ThreadPoolExecutor, run: Run, gate: Gate) -> Future:
    """Starts the run, and waits until it has reached the gate or its end."""
    started = pool.submit(run.run)
    started.add_done_callback(lambda _: gate.reached.set())
    gate.reached.wait()
    return started


def due_runs(
    world: World, kind: str, first: str, second: str, number: int, new_destination=World.new_ai_secret_of_any_name
) -> list[InterleavedRuns]:
    runs = [InterleavedRuns(world, kind, first, second, new_destination(world)) for _ in range(number)]
    world.rotate(*[run.target for run in runs])
    for run in runs:
        world.age_credentials(run.target)
    return runs


def due_runs_in_projects(world: World, kind: str, first: str, second: str, number: int) -> list[InterleavedRuns]:
    return due_runs(world, kind, first, second, number, World.new_project_provider_by_name)


def first_runs(world: World, kind: str, first: str, second: str, number: int) -> list[InterleavedRuns]:
    """Nothing is staged yet, and Braintrust has working credentials that a person created."""
    ids = world.ai_secrets_made_by_hand(number)
    return [InterleavedRuns(world, kind, first, second, ai_secret) for ai_secret in ids]


def runs_after_two_rotations(world: World, kind: str, first: str, second: str, number: int) -> list[InterleavedRuns]:
    """The previous credentials still work, and the next scheduled run would retire them."""
    ids = [world.new_ai_secret_of_any_name() for _ in range(number)]
    runs = [InterleavedRuns(world, kind, first, second, ai_secret) for ai_secret in ids]
    overlap = {"overlap": "1h"} if "user_name" in runs[0].target else {}
    targets = [run.target | overlap for run in runs]
    world.rotate(*targets)
    world.rotate(*targets, event=FORCED)
    return runs
