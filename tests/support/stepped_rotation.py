"""A rotation whose steps a test calls one by one, as Secrets Manager would."""

import json
import uuid

from .events import rotation_step
from .invocation_result import InvocationResult
from .local_rotation import ROTATION_STEPS
from .reports import outcome
from .world import LISTED_BY_NOW, World


class SteppedRotation:
    def __init__(self, world: World, target: dict, function=None):
        self.world, self.target = world, target
        self.function = function or world.new_function(target)
        self.begin()

    def begin(self):
        """Does what Secrets Manager does before it calls the first step."""
        self.token = str(uuid.uuid4())
        self.world.aws.begin_rotation(self.target["secret_id"], self.token)

    def step(self, name: str, token: str | None = None) -> InvocationResult:
        return self.function.invoke(rotation_step(name, self.target["secret_id"], token or self.token))

    def run(self, steps=ROTATION_STEPS):
        for name in steps:
            assert outcome(self.step(name)) == "step_done"

    def staged_value(self) -> dict:
        """What the version of the rotation holds, whatever its stages."""
        version = {"SecretId": self.target["secret_id"], "VersionId": self.token}
        return json.loads(self.world.client("secretsmanager").get_secret_value(**version)["SecretString"])

    def age_pending(self):
        """Makes the pending credentials so old that IAM's lists must have them. They get another version."""
        self.token = self.world.age_credentials(self.target, LISTED_BY_NOW, "AWSPENDING")

    def remove_pending(self):
        """Does what an operator does to abandon a stuck rotation."""
        self.world.move_stage(self.target, "AWSPENDING", RemoveFromVersionId=self.token)
