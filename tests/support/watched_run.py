"""The rotation of one target by a function whose calls can be disturbed, and what must be true of it afterwards."""

import uuid
from datetime import timedelta

from .call_interceptor import CallInterceptor
from .events import rotation_step, scheduled_run
from .invocation_result import InvocationResult
from .kinds import USER_BASED
from .local_rotation import ROTATION_STEPS
from .world import World

LONGER_THAN_ANY_RUN = timedelta(minutes=20)


class WatchedRun:
    """Collects violations in `wrong`.

    `trigger` is "schedule", "rotation" (the steps that Secrets Manager calls), or "memory": the schedule, for a target
    without a staged secret. `destination` is an ai_secret's ID or an entry of `ai_secrets`. `value` is the initial
    value of the staged secret, if it has one.
    """

    def __init__(
        self, world: World, kind: str, trigger: str, destination: str | dict | None = None, value: str | None = None
    ):
        self.world, self.kind, self.trigger = world, kind, trigger
        self.interceptor = CallInterceptor(world.aws, world.braintrust).start()
        world.servers.append(self.interceptor)
        name = uuid.uuid4().hex
        destination = destination or world.new_ai_secret(name)
        self.ai_secret = world.provider_id(destination) if isinstance(destination, dict) else destination
        if trigger == "memory":
            self.target = world.target(destination, name=name)
        else:
            secret = world.new_staged_secret(value)
            self.target = world.new_staged_target(kind, destination, name=name, secret_id=secret)
        self.event, self.token = scheduled_run(), str(uuid.uuid4())
        self.wrong: list[str] = []

    def start(self, timeout: int = 300, **variables):
        """Creates a function that has not been invoked yet."""
        url = self.interceptor.url
        variables = {"AWS_ENDPOINT_URL": url, "BRAINTRUST_API_URL": url, **variables}
        self.function = self.world.new_function(self.target, timeout=timeout, **variables)

    def begin_rotation(self):
        """Does what Secrets Manager does before it calls the first step."""
        if self.trigger == "rotation":
            self.world.aws.begin_rotation(self.target["secret_id"], self.token)

    def invoke(self, event: dict) -> InvocationResult:
        return self.function.invoke(event)

    def run(self) -> bool:
        """Starts or resumes the rotation, and returns whether that succeeded."""
        if self.trigger != "rotation":
            return self.invoke(self.event).ok
        secret = self.target["secret_id"]
        return all(self.invoke(rotation_step(name, secret, self.token)).ok for name in ROTATION_STEPS)

    def cancel_rotation(self):
        if self.trigger == "rotation":
            self.world.client("secretsmanager").cancel_rotate_secret(SecretId=self.target["secret_id"])

    def stop(self):
        self.function.stop()
        self.interceptor.stop()

    def calls(self) -> list[str]:
        return [request.call for request in self.interceptor.requests]

    def check_braintrust(self, when: str):
        if not self.world.has_working_credentials(self.ai_secret):
            self.wrong.append(f"the credentials in Braintrust don't work, {when}")

    def check_agreement(self):
        self.wrong += self.disagreements()

    def disagreements(self) -> list[str]:
        """AWSCURRENT, Braintrust and IAM must agree, and nothing may be pending."""
        wrong = []
        current = self.world.staged_value(self.target)
        secret = current.get("api_key") or current["aws_secret_access_key"]
        if self.world.braintrust.credentials(self.ai_secret)["secret"] != secret:
            wrong.append("AWSCURRENT and Braintrust disagree")
        keys = self.world.iam_keys(self.target)
        if self.kind in USER_BASED and keys != {current["credential_id"]: True}:
            wrong.append(f"IAM has {keys}, but AWSCURRENT names {current['credential_id']}")
        stages = self.world.stages(self.target)
        if stages.get("AWSPENDING") not in (None, stages["AWSCURRENT"]):
            wrong.append("a pending version is left")
        return wrong
