"""A secret with a Braintrust service token, a function that uses it, and the rotations of the token."""

import uuid

from .call_interceptor import CallInterceptor
from .events import rotation_step
from .invocation_result import InvocationResult
from .local_rotation import ROTATION_STEPS
from .world import World


class ServiceTokenSecret:
    def __init__(self, world: World, value=None, **extra):
        self.world, self.account = world, str(uuid.uuid4())
        self.first, key = world.braintrust.add_service_token(self.account)
        token = {"api_key": key, "service_token_id": self.first, "service_account_id": self.account, **extra}
        self.secret = world.cloud.new_secret(token if value is None else value)
        self.ai_secret = world.new_ai_secret(f"AWS Bedrock {self.account}")
        self.function = self.new_function(self.ai_secret)

    def new_function(self, ai_secret, **variables):
        target = self.world.target(ai_secret)
        return self.world.new_function(target, BRAINTRUST_API_KEY_SECRET_ID=self.secret, **variables)

    def intercept_calls(self):
        """Puts a new function behind an interceptor, where its calls can be disturbed."""
        self.function.stop()
        self.interceptor = CallInterceptor(self.world.aws, self.world.braintrust).start()
        self.world.servers.append(self.interceptor)
        url = self.interceptor.url
        self.function = self.new_function(self.ai_secret, AWS_ENDPOINT_URL=url, BRAINTRUST_API_URL=url)

    def begin(self):
        """Does what Secrets Manager does before it calls the first step."""
        self.token = str(uuid.uuid4())
        self.world.aws.begin_rotation(self.secret, self.token)

    def step(self, name: str) -> InvocationResult:
        return self.function.invoke(rotation_step(name, self.secret, self.token))

    def run(self) -> InvocationResult:
        """Calls the steps until one fails, and returns the last result."""
        for name in ROTATION_STEPS:
            result = self.step(name)
            if not result.ok:
                break
        return result

    def value(self, stage="AWSCURRENT") -> dict:
        return self.world.staged_value({"secret_id": self.secret}, stage)

    def tokens(self) -> set[str]:
        """The IDs of this account's service tokens."""
        found = self.world.braintrust.service_tokens
        return {id for id, token in found.items() if token["service_account_id"] == self.account}
