"""A rotation with a fault at one of its calls, and its recovery."""

import time
import uuid

from .events import scheduled_run
from .faults import Fault
from .invocation_result import InvocationResult
from .kinds import USER_BASED
from .secret_forms import forms
from .template_placeholder import TEMPLATE_PLACEHOLDER
from .watched_run import LONGER_THAN_ANY_RUN, WatchedRun
from .world import World

_ERROR_TYPES = {"RotationFailed", "EventRefused"}
_SHOW_EVERYTHING = {"AWS_LAMBDA_LOG_LEVEL": "TRACE", "RUST_LOG": "trace", "RUST_BACKTRACE": "full"}


class DisturbedRun(WatchedRun):
    """A target whose credentials are due; the IAM user of a user-based one has an orphaned key in its last slot."""

    def __init__(self, world: World, kind: str, trigger: str, *staged):
        super().__init__(world, kind, trigger, *staged)
        self._not_ours = set(world.aws.issued_secrets)
        self._shown = b""

    def begin(self, timeout: int, **variables):
        self.prepare()
        self.begin_rotation()
        self.start(timeout, **variables)

    def prepare(self):
        if self.trigger != "memory":
            self.world.age_credentials(self.target)
        if self.kind in USER_BASED:
            self.world.create_key_by_hand(self.kind, self.target["user_name"])

    def start(self, timeout: int = 300, **variables):
        self._timeout = timeout
        super().start(timeout, **_SHOW_EVERYTHING, **variables)

    def disturb(self, call: str, fault: Fault, times: int | None, skip: int):
        self.interceptor.fail(call, fault, times, skip)
        self.run()
        if self.calls().count(call) <= skip:
            self.wrong.append("the fault was not reached")

    def wait_for_late_calls(self):
        """Waits until the server has acted on the calls that the function doesn't wait for any more."""
        deadline = time.monotonic() + 60
        while any(request.status is None for request in self.interceptor.requests):
            assert time.monotonic() < deadline, "the server has not acted on a delayed call"
            time.sleep(0.05)

    def invoke(self, event: dict) -> InvocationResult:
        result = super().invoke(event)
        self._shown += result.raw
        if result.seconds > self._timeout:
            self.wrong.append(f"it took {result.seconds:.1f} s")
        ended_well = result.ok or isinstance(result.body, dict) and result.body.get("errorType") in _ERROR_TYPES
        if result.status != 200 or not ended_well:
            self.wrong.append(f"it ended with {result.status} {result.body}")
        return result

    def recover(self):
        """Retries, followed by two scheduled runs that deactivate and delete unneeded keys."""
        self.interceptor.clear_faults()
        if not any(self._retry() for _ in range(3)):
            self.wrong.append("three retries failed")
        self.cancel_rotation()
        if self.trigger != "memory":
            # A restoration that failed keeps its version from being retired until every run of that time has ended.
            self.world.let_time_pass(self.target, LONGER_THAN_ANY_RUN)
        if not all([self.invoke(scheduled_run()).ok, self.invoke(scheduled_run()).ok]):
            self.wrong.append("a scheduled run after the rotation failed")
        self.check("at the end")
        if self.trigger != "memory":
            self.check_agreement()

    def check(self, when: str):
        """The credentials in Braintrust and in the staged secret can call Bedrock."""
        self.check_braintrust(when)
        current = self._current_credentials()
        if current and not self.world.works(current):
            self.wrong.append(f"AWSCURRENT doesn't work, {when}")

    def stop(self):
        self._shown += "\n".join(self.function.logs()).encode()
        super().stop()

    def check_what_is_shown(self):
        caller = self.world.cloud.caller
        secrets = self.world.aws.issued_secrets - self._not_ours
        secrets |= {self.world.api_key, caller["AWS_SECRET_ACCESS_KEY"], caller["AWS_SESSION_TOKEN"]}
        sent = [request.headers.get("authorization", "") for request in self.interceptor.requests]
        secrets |= {header.removeprefix("Bearer ") for header in sent if header.startswith("Bearer ")}
        if any(form in self._shown for secret in secrets for form in forms(secret)):
            self.wrong.append("a secret is shown")

    def _retry(self) -> bool:
        """If the rotation was abandoned and has no pending version, Secrets Manager begins another."""
        if self.trigger == "rotation" and "AWSPENDING" not in self.world.stages(self.target):
            self.token = str(uuid.uuid4())
            self.begin_rotation()
        return self.run()

    def _current_credentials(self) -> dict | None:
        """None if the secret is still empty, or if there is no secret."""
        if self.trigger == "memory" or "AWSCURRENT" not in self.world.stages(self.target):
            return None
        current = self.world.staged_value(self.target)
        if "kind" not in current:
            return None
        return {
            "auth_type": "api_key" if "api_key" in current else "iam_credentials",
            "access_key": current.get("aws_access_key_id"),
            "secret": current.get("api_key") or current["aws_secret_access_key"],
            "session_token": current.get("aws_session_token"),
            "region": current["region"],
        }


class FirstRun(DisturbedRun):
    """Nothing is staged yet, the IAM user has no keys, and Braintrust has working credentials that a person created."""

    def prepare(self):
        pass


def due_runs(
    world: World, kind: str, trigger: str, number: int, new_destination=World.new_ai_secret_of_any_name
) -> list[DisturbedRun]:
    """Runs that have their first credentials, which one run of one function gives to all of them."""
    runs = [DisturbedRun(world, kind, trigger, new_destination(world)) for _ in range(number)]
    world.rotate(*[run.target for run in runs])
    return runs


def due_runs_in_projects(world: World, kind: str, trigger: str, number: int) -> list[DisturbedRun]:
    return due_runs(world, kind, trigger, number, World.new_project_provider_by_name)


def first_runs(world: World, kind: str, trigger: str, number: int) -> list[DisturbedRun]:
    return [FirstRun(world, kind, trigger, ai_secret) for ai_secret in world.ai_secrets_made_by_hand(number)]


def placeholder_runs(world: World, kind: str, trigger: str, number: int) -> list[DisturbedRun]:
    """As in a new stack: the staged secret holds the template's placeholder."""
    ids = world.ai_secrets_made_by_hand(number)
    return [FirstRun(world, kind, trigger, ai_secret, TEMPLATE_PLACEHOLDER) for ai_secret in ids]
